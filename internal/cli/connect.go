package cli

import (
	"context"
	"crypto"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/config"
	"holdfast/internal/identity"
	"holdfast/internal/link"
)

// client returns a client for the node that the flags name.
func (o *options) client() (*api.Client, error) {
	if o.node == "" {
		if o.cert != "" {
			return nil, usagef("--cert is for a node elsewhere: name it with --node")
		}
		return api.NewClient(o.dataDir()), nil
	}
	if o.data != "" {
		return nil, usagef("--data names the node on this machine and --node one elsewhere: use one of them")
	}
	file := o.cert
	if file == "" {
		file = os.Getenv("HOLDFAST_CERT")
	}
	if file == "" {
		return nil, usagef("a node elsewhere wants to know who asks: make a certificate on a node with `holdfast cert create`, and name its file with --cert")
	}
	creds, err := loadAdmin(file)
	if err != nil {
		return nil, withCode(ExitUsage, fmt.Errorf("read %s: %w", file, err))
	}
	address := withPort(o.node)
	dialer := &link.Dialer{Creds: creds}
	return api.NewRemoteClient("the node at "+address, "", func(ctx context.Context) (net.Conn, error) {
		conn, err := dialer.Dial(ctx, address, 0, link.ProtoAPI)
		if err != nil {
			return nil, err // a nil net.Conn, not a nil *link.Conn in one
		}
		return conn, nil
	}), nil
}

// withPort adds the nodes' port to an address without one.
func withPort(address string) string {
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address
	}
	return net.JoinHostPort(strings.Trim(address, "[]"), strconv.Itoa(config.DefaultPort))
}

// loadAdmin reads what `cert create` printed: a certificate, its key, and the cluster's authorities, in any order, the certificate before the authorities.
func loadAdmin(file string) (*identity.Credentials, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseAdmin(text)
}

func parseAdmin(text []byte) (*identity.Credentials, error) {
	var cert, ca []byte
	var key crypto.Signer
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		switch one := pem.EncodeToMemory(block); {
		case block.Type == "PRIVATE KEY":
			k, err := identity.ParseKey(one)
			if err != nil {
				return nil, fmt.Errorf("the private key: %w", err)
			}
			key = k
		case block.Type == "CERTIFICATE" && cert == nil:
			cert = one
		case block.Type == "CERTIFICATE":
			ca = append(ca, one...)
		}
	}
	if cert == nil || ca == nil || key == nil {
		return nil, errors.New("a certificate, its private key, and the cluster's authority must be in the file, in the PEM format, as `holdfast cert create` prints them")
	}
	return identity.NewCredentials(cert, key, ca)
}

// askTimeout bounds requests that a node answers by itself.
const askTimeout = 15 * time.Second

// ask calls f with a client, and says that it waits if that takes long.
func ask[T any](cmd *cobra.Command, o *options, f func(ctx context.Context, c *api.Client) (T, error)) (T, error) {
	c, err := o.client()
	if err != nil {
		var none T
		return none, err
	}
	defer c.Close()
	return asking(cmd.Context(), o, "waiting for the node's answer", func(ctx context.Context) (T, error) { return f(ctx, c) })
}

// status asks for the cluster's status.
func (o *options) status(ctx context.Context, c *api.Client) (api.Status, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, errNoAnswer)
	defer cancel()
	s, err := c.Status(ctx, false)
	return s, because(ctx, err)
}

// state asks for what is configured.
func (o *options) state(ctx context.Context, c *api.Client) (*cluster.State, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, errNoAnswer)
	defer cancel()
	s, err := c.State(ctx)
	return s, because(ctx, err)
}

var errNoAnswer = fmt.Errorf("the node did not answer within %v: look at its log", askTimeout)

// because adds to an error of a request why its context ended.
func because(ctx context.Context, err error) error {
	if err != nil && errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	return err
}

// do has the cluster execute a command.
func (o *options) do(cmd *cobra.Command, command cluster.Command) (cluster.Result, error) {
	c, err := o.client()
	if err != nil {
		return cluster.Result{}, err
	}
	defer c.Close()
	return asking(cmd.Context(), o, "waiting for the cluster to accept the change", func(ctx context.Context) (cluster.Result, error) { return c.Do(ctx, command) })
}
