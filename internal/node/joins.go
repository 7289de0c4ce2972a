package node

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/identity"
	"holdfast/internal/join"
	"holdfast/internal/link"
	"holdfast/internal/replica"
)

// serveJoins answers machines that want to join.
func (n *Node) serveJoins() {
	const (
		headerTimeout = 5 * time.Second
		wholeTimeout  = 30 * time.Second
	)
	ln := n.mux.Listener(link.ProtoJoin)
	srv := &http.Server{Handler: join.Handler(n.admit), ReadHeaderTimeout: headerTimeout, ReadTimeout: wholeTimeout, WriteTimeout: wholeTimeout}
	n.work.Go(func() {
		stop := context.AfterFunc(n.ctx, func() { srv.Close() })
		defer stop()
		if err := srv.Serve(ln); err != nil && !errors.Is(err, http.ErrServerClosed) && n.ctx.Err() == nil {
			n.fail(fmt.Errorf("serve machines that join: %w", err))
		}
	})
}

// admit lets a machine in that has a token.
func (n *Node) admit(ctx context.Context, r *join.Request) (*join.Response, error) {
	t, err := identity.ParseToken(r.Token)
	if err != nil {
		return nil, err
	}
	s, err := n.cluster.made(ctx)
	if err != nil {
		return nil, err
	}
	if n.id.ClusterKey == nil {
		resp := &join.Response{}
		for i := range s.Nodes {
			if s.Nodes[i].Role == cluster.RoleData {
				resp.Ask = append(resp.Ask, s.Nodes[i].Peer)
			}
		}
		return resp, fmt.Errorf("node %s is a witness, which cannot let others in: ask a data node", n.id.Name)
	}
	if err := n.checkJoin(ctx, t, r); err != nil {
		return nil, err
	}
	if err := n.checkReach(ctx, r); err != nil {
		return nil, err
	}
	result, err := n.cluster.do(ctx, "token "+t.ID, cluster.Command{AddNode: &cluster.AddNode{
		Token: t.ID, Hash: t.Hash(),
		Node: cluster.Node{Name: r.Name, Peer: r.Peer, Zone: r.Zone, Release: r.Release, MaxVersion: r.MaxVersion},
	}})
	if err == nil {
		err = result.Err()
	}
	if err != nil {
		return nil, err
	}
	cert, err := n.sign(r.CSR, result.Number, r.Name)
	if err != nil {
		return nil, err
	}
	s = n.cluster.state()
	resp := &join.Response{
		Number: result.Number, Role: cluster.RoleData, ClusterID: s.ID, ClusterName: s.Name, Certificate: string(cert), CA: s.CA,
		Hints: join.Hints{Peers: map[uint64]string{}, Timing: s.Timing},
	}
	if replica.IsWitness(result.Number) {
		resp.Role = cluster.RoleWitness
	} else {
		resp.ClusterKey = n.id.ClusterKey
	}
	for i := range s.Nodes {
		resp.Peers[s.Nodes[i].Number] = s.Nodes[i].Peer
	}
	return resp, nil
}

// checkJoin refuses a machine that asks for what its token is not for, and a witness that is of no use: the cluster itself would take both.
func (n *Node) checkJoin(ctx context.Context, t identity.Token, r *join.Request) error {
	known := n.awaitToken(ctx, t.ID)
	if known == nil || subtle.ConstantTimeCompare(t.Hash(), known.Hash) != 1 {
		if r.Role == "" {
			return nil // the cluster has the last word
		}
		return errors.New("the token is not known here: it was used, withdrawn, or belongs to another cluster. Make one with `holdfast node add` on a node of the cluster")
	}
	if err := r.CheckRole(known.Role); err != nil {
		return err
	}
	if known.Role == cluster.RoleWitness && known.Replaces == "" {
		return witnessUse(n.cluster.state(), time.Now())
	}
	return nil
}

// checkReach refuses a machine that gives a name which this node cannot look up: it would be a node that does not answer.
func (n *Node) checkReach(ctx context.Context, r *join.Request) error {
	host, _, err := net.SplitHostPort(r.Peer)
	if err != nil {
		return fmt.Errorf("%q is not an address and a port that nodes can reach: give it with --peer", r.Peer)
	}
	limited, cancel := context.WithTimeout(ctx, lookupPatience)
	defer cancel()
	if _, err := net.DefaultResolver.LookupNetIP(limited, "ip", host); err != nil {
		return fmt.Errorf("node %s cannot look up %s, where it is to reach node %s: %w: enter the name where all nodes find it, or give an address with --peer", n.id.Name, host, r.Name, err)
	}
	return nil
}

// lookupPatience is how long a name may take to be looked up.
const lookupPatience = 5 * time.Second

// awaitToken returns a token as the cluster knows it. This node may hear of it a moment later than the one that made it.
func (n *Node) awaitToken(ctx context.Context, id string) *cluster.Token {
	limited, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	for {
		changed := n.cluster.changes.wait()
		if t := n.cluster.state().Token(id); t != nil {
			return t
		}
		select {
		case <-changed:
		case <-limited.Done():
			return nil
		}
	}
}

// witnessUse says why a witness would be of no use in a cluster, or do harm, and what to do instead. Data nodes for which there are tokens count as well, so that it does
// not matter in which order machines join.
func witnessUse(s *cluster.State, now time.Time) error {
	data, coming := 0, 0
	for i := range s.Nodes {
		m := &s.Nodes[i]
		switch {
		case m.Leaving:
		case m.Role == cluster.RoleData:
			data++
		default:
			return api.Errorf(http.StatusConflict, "node %s is the witness already, and a cluster has one. If another machine is to take its place: `holdfast node replace %s`", m.Name, m.Name)
		}
	}
	for i := range s.Tokens {
		if t := &s.Tokens[i]; t.Role == cluster.RoleData && t.Replaces == "" && t.Expires.After(now) {
			coming++
		}
	}
	twoCopies := slices.ContainsFunc(s.Volumes, func(v cluster.Volume) bool { return v.Spec.Copies == 2 || len(v.Spec.Nodes) == 2 })
	switch {
	case data+coming < 2:
		return api.Errorf(http.StatusConflict, "the cluster has one data node, beside which a witness is only one more machine that must be up. "+
			"Add the second data node first (`holdfast node add`), then the witness")
	case data%2 == 1 && (coming == 0 || (data+coming)%2 == 1) && !twoCopies:
		return api.Errorf(http.StatusConflict, "the cluster has %d data nodes, an odd number, and no volume with two copies: a witness would make it even, so that more nodes must be up, and survive no more losses. "+
			"It needs none; more losses are survived with more data nodes (`holdfast node add`)", data)
	}
	return nil
}

// sign makes a node's certificate.
func (n *Node) sign(request string, number uint64, name string) ([]byte, error) {
	ca, err := n.authority()
	if err != nil {
		return nil, err
	}
	return ca.SignNode([]byte(request), identity.NodeInfo{Number: number, Name: name}, n.now())
}

// authority opens the cluster's certificate authority, which only data nodes can.
func (n *Node) authority() (*identity.CA, error) {
	s := n.cluster.state()
	ca, err := identity.OpenCA([]byte(s.CA), s.SealedKey, n.id.ClusterKey)
	if err != nil {
		return nil, fmt.Errorf("open the cluster's certificate authority: %w", err)
	}
	return ca, nil
}

// Token implements api.Backend.
func (n *Node) Token(ctx context.Context, by string, r api.TokenRequest) (api.TokenResult, error) {
	s, err := n.cluster.made(ctx)
	if err != nil {
		return api.TokenResult{}, err
	}
	if r.Role == string(cluster.RoleWitness) && r.Replaces == "" {
		if err := witnessUse(s, time.Now()); err != nil {
			return api.TokenResult{}, err
		}
	}
	cas, err := identity.ParseCertificates([]byte(s.CA))
	if err != nil {
		return api.TokenResult{}, fmt.Errorf("read the cluster's authority: %w", err)
	}
	t := identity.NewToken(cas[0])
	expires := time.Now().Add(r.Lifetime).UTC().Round(time.Second)
	result, err := n.cluster.do(ctx, by, cluster.Command{AddToken: &cluster.Token{
		ID: t.ID, Hash: t.Hash(), Role: cluster.Role(r.Role), Expires: expires, Replaces: r.Replaces,
	}})
	if err == nil {
		err = result.Err()
	}
	if err != nil {
		return api.TokenResult{}, err
	}
	return api.TokenResult{ID: t.ID, Token: t.String(), Expires: expires, Address: n.id.PeerAddress}, nil
}

// NodeCertificate implements api.Backend.
func (n *Node) NodeCertificate(ctx context.Context, number uint64, request string) (api.CertificateResult, error) {
	member := n.cluster.state().Node(number)
	if member == nil || number == 0 {
		return api.CertificateResult{}, api.Errorf(http.StatusForbidden, "only nodes of the cluster can renew a node's certificate")
	}
	if n.id.ClusterKey == nil {
		return n.askDataNode(ctx, func(c *api.Client) (api.CertificateResult, error) { return c.NodeCertificate(ctx, request) })
	}
	cert, err := n.sign(request, number, member.Name)
	if err != nil {
		return api.CertificateResult{}, err
	}
	return n.certificate(cert)
}

// maxAdminLifetime bounds an administrator's certificate.
const maxAdminLifetime = 5 * 365 * 24 * time.Hour

// AdminCertificate implements api.Backend.
func (n *Node) AdminCertificate(ctx context.Context, by string, r api.CertificateRequest) (api.CertificateResult, error) {
	if r.Lifetime <= 0 || r.Lifetime > maxAdminLifetime {
		return api.CertificateResult{}, api.Errorf(http.StatusBadRequest, "a certificate is valid for some time, %v at most", maxAdminLifetime)
	}
	if n.id.ClusterKey == nil {
		return n.askDataNode(ctx, func(c *api.Client) (api.CertificateResult, error) { return c.AdminCertificate(ctx, r) })
	}
	ca, err := n.authority()
	if err != nil {
		return api.CertificateResult{}, err
	}
	cert, err := ca.SignAdmin([]byte(r.Request), r.Name, r.Lifetime, n.now())
	if err != nil {
		return api.CertificateResult{}, api.Errorf(http.StatusBadRequest, "%v", err)
	}
	result, err := n.certificate(cert)
	if err != nil {
		return result, err
	}
	note := cluster.Event{Kind: cluster.EventConfig, Text: fmt.Sprintf("certificate %s for administrator %s, until %s", result.Serial, r.Name, result.Expires.UTC().Format(time.RFC3339))}
	done, err := n.cluster.do(ctx, by, cluster.Command{Note: &note})
	if err == nil {
		err = done.Err()
	}
	return result, err
}

// certificate describes a certificate that was just made.
func (n *Node) certificate(pem []byte) (api.CertificateResult, error) {
	cert, err := identity.ParseCertificate(pem)
	if err != nil {
		return api.CertificateResult{}, fmt.Errorf("read the new certificate: %w", err)
	}
	peer, err := identity.PeerOfCertificate(cert)
	if err != nil {
		return api.CertificateResult{}, err
	}
	return api.CertificateResult{Certificate: string(pem), CA: n.cluster.state().CA, Serial: peer.Serial, Expires: cert.NotAfter}, nil
}

// askDataNode asks the data nodes, one after the other, for what a witness cannot do.
func (n *Node) askDataNode(ctx context.Context, ask func(c *api.Client) (api.CertificateResult, error)) (api.CertificateResult, error) {
	errs := []error{api.Errorf(http.StatusServiceUnavailable, "no data node answers, and a witness cannot sign certificates")}
	s := n.cluster.state()
	for i := range s.Nodes {
		if s.Nodes[i].Role != cluster.RoleData {
			continue
		}
		c, err := n.peers.client(s.Nodes[i].Number, "")
		if err == nil {
			var r api.CertificateResult
			if r, err = ask(c); err == nil {
				return r, nil
			}
		}
		errs = append(errs, err)
	}
	return api.CertificateResult{}, errors.Join(errs...)
}
