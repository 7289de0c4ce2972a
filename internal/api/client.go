package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
)

// Client talks to the node whose data folder it was given.
type Client struct {
	http *http.Client
	path string
}

// NewClient returns a client for the node with this data folder.
func NewClient(dataDir string) *Client {
	path := filepath.Join(dataDir, SocketName)
	var d net.Dialer
	return &Client{path: path, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", path) },
	}}}
}

// Status asks the node for its status.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, c.do(ctx, http.MethodGet, "/v1/status", &s)
}

// Check compares a volume's replicas.
func (c *Client) Check(ctx context.Context, volume string) (CheckResult, error) {
	var r CheckResult
	return r, c.do(ctx, http.MethodPost, "/v1/volumes/"+url.PathEscape(volume)+"/check", &r)
}

// Transfer moves a volume's leadership.
func (c *Client) Transfer(ctx context.Context, volume, to string) (TransferResult, error) {
	var r TransferResult
	return r, c.do(ctx, http.MethodPost, "/v1/volumes/"+url.PathEscape(volume)+"/transfer?to="+url.QueryEscape(to), &r)
}

func (c *Client) do(ctx context.Context, method, path string, v any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://holdfast"+path, nil)
	if err != nil {
		return fmt.Errorf("build request: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.explain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		e := &Error{Status: resp.StatusCode}
		if err := json.NewDecoder(resp.Body).Decode(e); err != nil || e.Message == "" {
			e.Message = "the node answered " + resp.Status
		}
		return e
	}
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		return fmt.Errorf("read the node's answer: %w", err)
	}
	return nil
}

// explain says what a person can do about an error of the connection.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no node is running on %s: start it with `holdfast serve`, or name its data folder with --data: %w", filepath.Dir(c.path), err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("may not open %s: run this as the user that runs the node (root): %w", c.path, err)
	}
	return fmt.Errorf("ask the node at %s: %w", c.path, err)
}
