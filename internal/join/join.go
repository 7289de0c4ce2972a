package join

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"holdfast/internal/cluster"
	"holdfast/internal/identity"
	"holdfast/internal/link"
)

// Request is what a machine that wants to join sends.
type Request struct {
	Token string `json:"token"`
	Name  string `json:"name"`
	Peer  string `json:"peer"`
	Zone  string `json:"zone,omitempty"`
	// Role is what the machine is to become, where whoever sits at it has said so; it must be the token's then.
	Role       cluster.Role `json:"role,omitempty"`
	Release    string       `json:"release"`
	MaxVersion uint32       `json:"max_version"`
	// CSR is the certificate request (PEM).
	CSR string `json:"csr"`
}

// CheckRole refuses a machine that is to become something else than its token is for.
func (r *Request) CheckRole(token cluster.Role) error {
	if r.Role == "" || r.Role == token {
		return nil
	}
	return fmt.Errorf("the token is one for a %s node, and this machine is to be a %s node: nothing was done. Make a token of the right kind with `holdfast node add --role %s`, or join as what this one is for",
		token, r.Role, r.Role)
}

// Response is what it gets.
type Response struct {
	Error string `json:"error,omitempty"`
	// Ask are the peer addresses of nodes that can answer, when the one that was asked cannot.
	Ask []string `json:"ask,omitempty"`

	Number      uint64       `json:"number"`
	Role        cluster.Role `json:"role"`
	ClusterID   string       `json:"cluster_id"`
	ClusterName string       `json:"cluster_name"`
	Certificate string       `json:"certificate"`
	CA          string       `json:"ca"`
	ClusterKey  []byte       `json:"cluster_key,omitempty"` // data nodes only
	Hints
}

// Path is where a node answers requests, on connections of link.ProtoJoin.
const Path = "/v1/join"

// timeout bounds the whole exchange with one node.
const timeout = 30 * time.Second

// maxBytes bounds a request and a response.
const maxBytes = 1 << 20

// Join makes this machine a node of the cluster that the node at address belongs to. Nothing is written before the cluster has accepted it.
func Join(ctx context.Context, address, token string, o Options) (*identity.Identity, error) {
	t, err := identity.ParseToken(token)
	if err != nil {
		return nil, err
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(address, DefaultPort)
	}
	if host, _, err := net.SplitHostPort(address); err != nil || host == "" {
		return nil, fmt.Errorf("%q is not the address of a node, such as 10.0.0.11:%s", address, DefaultPort)
	}
	if err := o.complete(address); err != nil {
		return nil, err
	}
	key, err := identity.NewKey()
	if err != nil {
		return nil, err
	}
	csr, err := identity.NewRequest(key, o.Name)
	if err != nil {
		return nil, err
	}
	req := Request{Token: token, Name: o.Name, Peer: o.Peer, Zone: o.Zone, Role: o.Role, Release: o.Release, MaxVersion: cluster.MaxVersion, CSR: string(csr)}
	resp, err := ask(ctx, address, t, &req)
	if err != nil {
		return nil, err
	}
	id := &identity.Identity{
		ClusterID: resp.ClusterID, ClusterName: resp.ClusterName, Node: resp.Number, Name: o.Name, Role: identity.Role(resp.Role), PeerAddress: o.Peer,
		Key: key, Certificate: []byte(resp.Certificate), CA: []byte(resp.CA), ClusterKey: resp.ClusterKey,
	}
	if err := saveJSON(filepath.Join(Dir(o.Data), hintsFile), resp.Hints); err != nil {
		return nil, err
	}
	return id, id.Save(identity.Dir(o.Data))
}

// ask asks the node at address, or those that it names instead of itself.
func ask(ctx context.Context, address string, t identity.Token, req *Request) (*Response, error) {
	resp, err := askOne(ctx, address, t, req)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, other := range resp.Ask {
		next, err := askOne(ctx, other, t, req)
		if err == nil {
			resp = next
			break
		}
		errs = append(errs, err)
	}
	if resp.Error != "" {
		return nil, errors.Join(append([]error{errors.New(resp.Error)}, errs...)...)
	}
	return resp, nil
}

func askOne(ctx context.Context, address string, t identity.Token, req *Request) (*Response, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return link.DialJoin(ctx, address, t.Pin)
		},
	}}
	body, err := json.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("encode the request to join: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://holdfast"+Path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make the request to join: %w", err)
	}
	answer, err := client.Do(r)
	if err != nil {
		var what *url.Error // which says what was asked for, too
		if errors.As(err, &what) {
			err = what.Err
		}
		return nil, fmt.Errorf("%w. Is %s the address of a node, does holdfast run there, and does the network let this machine reach it?", err, address)
	}
	defer answer.Body.Close()
	var resp Response
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxBytes)).Decode(&resp); err != nil {
		return nil, fmt.Errorf("read the answer of the node at %s: %w", address, err)
	}
	return &resp, nil
}

// Handler answers requests to join by admit, whose error is told to the joiner.
func Handler(admit func(ctx context.Context, r *Request) (*Response, error)) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+Path, func(w http.ResponseWriter, r *http.Request) {
		var req Request
		resp := &Response{}
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBytes)).Decode(&req)
		if err == nil {
			var admitted *Response
			if admitted, err = admit(r.Context(), &req); admitted != nil {
				resp = admitted
			}
		}
		if err != nil {
			resp.Error = err.Error()
		}
		w.Header().Set("Content-Type", "application/json")
		// The joiner is gone if this fails; there is nobody left to tell.
		_ = json.NewEncoder(w).Encode(resp)
	})
	return mux
}
