package api

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
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"holdfast/internal/cluster"
	"holdfast/internal/config"
	"holdfast/internal/doctor"
)

// Client talks to one node.
type Client struct {
	http *http.Client
	by   string
	// where names the node in errors; dir is its data folder if it is reached by its socket.
	where, dir string
}

// NewClient returns a client for the node with this data folder.
func NewClient(dataDir string) *Client {
	path := filepath.Join(dataDir, SocketName)
	var d net.Dialer
	return &Client{where: path, dir: dataDir, http: newHTTP(func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "unix", path) })}
}

// NewRemoteClient returns a client for a node elsewhere that dial connects to; where names it in errors. by, unless empty, is for whom a node passes requests on.
func NewRemoteClient(where, by string, dial func(ctx context.Context) (net.Conn, error)) *Client {
	return &Client{where: where, by: by, http: newHTTP(dial)}
}

func newHTTP(dial func(ctx context.Context) (net.Conn, error)) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		IdleConnTimeout: idleTimeout / 2,
	}}
}

// Close ends the connections that are kept for the next request.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks for the cluster's status, or with local for that of this node alone.
func (c *Client) Status(ctx context.Context, local bool) (Status, error) {
	path := "/v1/status"
	if local {
		path += "?local"
	}
	return get[Status](ctx, c, path)
}

// State asks for what is configured.
func (c *Client) State(ctx context.Context) (*cluster.State, error) {
	return get[*cluster.State](ctx, c, "/v1/state")
}

// Events asks for the events after a sequence number; with wait it waits for one if there is none.
func (c *Client) Events(ctx context.Context, after uint64, wait bool) ([]cluster.Event, error) {
	path := "/v1/events?after=" + strconv.FormatUint(after, 10)
	if wait {
		path += "&wait"
	}
	return get[[]cluster.Event](ctx, c, path)
}

// Do executes a command of the cluster. A command that was refused is an *Error.
func (c *Client) Do(ctx context.Context, cmd cluster.Command) (cluster.Result, error) {
	r, err := post[cluster.Result](ctx, c, "/v1/commands", cmd)
	if err == nil {
		err = r.Err()
	}
	return r, err
}

// Token makes a join token.
func (c *Client) Token(ctx context.Context, r TokenRequest) (TokenResult, error) {
	return post[TokenResult](ctx, c, "/v1/tokens", r)
}

// NodeCertificate renews the certificate of the node that asks.
func (c *Client) NodeCertificate(ctx context.Context, request string) (CertificateResult, error) {
	return post[CertificateResult](ctx, c, "/v1/certificates/node", CertificateRequest{Request: request})
}

// AdminCertificate makes an administrator's certificate.
func (c *Client) AdminCertificate(ctx context.Context, r CertificateRequest) (CertificateResult, error) {
	return post[CertificateResult](ctx, c, "/v1/certificates/admin", r)
}

func volumePath(volume, action string) string {
	return "/v1/volumes/" + url.PathEscape(volume) + "/" + action
}

// Check compares a volume's replicas.
func (c *Client) Check(ctx context.Context, volume string) (CheckResult, error) {
	return post[CheckResult](ctx, c, volumePath(volume, "check"), nil)
}

// Transfer moves a volume's leadership.
func (c *Client) Transfer(ctx context.Context, volume, to string) (TransferResult, error) {
	return post[TransferResult](ctx, c, volumePath(volume, "transfer?to=")+url.QueryEscape(to), nil)
}

// Explain asks why a volume is where it is.
func (c *Client) Explain(ctx context.Context, volume string) (Explanation, error) {
	return get[Explanation](ctx, c, volumePath(volume, "explain"))
}

// Leader asks who leads a volume; see Backend.Leader.
func (c *Client) Leader(ctx context.Context, volume string, known uint64) (LeaderResult, error) {
	return get[LeaderResult](ctx, c, volumePath(volume, "leader?known=")+strconv.FormatUint(known, 10))
}

// Doctor runs the node's checks of its machine.
func (c *Client) Doctor(ctx context.Context) ([]doctor.Result, error) {
	return get[[]doctor.Result](ctx, c, "/v1/doctor")
}

// Backup begins a backup; the caller reads it to its end, which tells whether it is whole, and closes it.
func (c *Client) Backup(ctx context.Context, volume string, o BackupOptions) (io.ReadCloser, error) {
	path := volumePath(volume, "backup?since=") + strconv.FormatUint(o.Since, 10)
	if o.Here {
		path += "&here"
	}
	resp, err := c.send(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Restore makes a volume from backups that r yields one after the other.
func (c *Client) Restore(ctx context.Context, spec config.VolumeSpec, r io.Reader) error {
	header, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("encode the volume's specification: %w", err)
	}
	resp, err := c.send(ctx, http.MethodPost, "/v1/restore", io.NopCloser(r), http.Header{headerVolume: {string(header)}})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	discard(resp.Body)
	return nil
}

func get[T any](ctx context.Context, c *Client, path string) (v T, err error) {
	return v, c.do(ctx, http.MethodGet, path, nil, &v)
}

func post[T any](ctx context.Context, c *Client, path string, body any) (v T, err error) {
	b, err := json.Marshal(body)
	if err != nil {
		return v, fmt.Errorf("encode the request: %w", err)
	}
	return v, c.do(ctx, http.MethodPost, path, bytes.NewReader(b), &v)
}

func (c *Client) do(ctx context.Context, method, path string, body io.Reader, v any) error {
	resp, err := c.send(ctx, method, path, body, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.where, err)
	}
	return nil
}

// send sends a request; an answer that is no success is an error.
func (c *Client) send(ctx context.Context, method, path string, body io.Reader, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://holdfast"+path, body)
	if err != nil {
		return nil, fmt.Errorf("build request: %w", err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if c.by != "" {
		req.Header.Set(headerBy, c.by)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	e := &Error{Status: resp.StatusCode}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBodyBytes)).Decode(e); err != nil || e.Message == "" {
		e.Message = c.where + " answered " + resp.Status
	}
	return nil, e
}

// explain says what a person can do about an error of the connection.
func (c *Client) explain(err error) error {
	var what *url.Error // it says which path was asked for, which is nobody's concern
	if errors.As(err, &what) {
		err = what.Err
	}
	switch {
	case c.dir == "":
		return fmt.Errorf("ask %s: %w", c.where, err)
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no node is running on %s: start it with `holdfast serve`, or name its data folder with --data: %w", c.dir, err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("may not open %s: run this as root, or as a member of the node's group (holdfast): %w", c.where, err)
	}
	return fmt.Errorf("ask the node at %s: %w", c.where, err)
}
