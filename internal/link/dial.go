package link

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"holdfast/internal/identity"
)

// dialTimeout bounds how long connecting takes, handshake included, if the context does not.
const dialTimeout = 5 * time.Second

// Dialer connects to nodes.
type Dialer struct {
	Creds *identity.Credentials
	// UserTimeout is how long sent bytes may stay unacknowledged before a connection counts as dead (TCP_USER_TIMEOUT); default 3 s.
	UserTimeout time.Duration
}

// Dial connects to a node at an address (host:port), for a protocol. The node must prove that it has the number; 0 stands for any node of the cluster. Whether the
// node accepts us shows when the connection is first read from. errors.Is finds ECONNREFUSED if nobody listens there.
func (d *Dialer) Dial(ctx context.Context, addr string, node uint64, proto string) (*Conn, error) {
	c, err := dial(ctx, addr, d.Creds.Client(node, proto), proto, d.UserTimeout)
	switch {
	case err == nil:
		return c, nil
	case node == 0:
		return nil, fmt.Errorf("connect to a node at %s: %w", addr, err)
	}
	return nil, fmt.Errorf("connect to node %d at %s: %w", node, addr, err)
}

// DialJoin connects to a node of a cluster that we are not in. All that is known of the cluster is the hash of its CA, from a token (identity.Token.Pin).
func DialJoin(ctx context.Context, addr string, pin [sha256.Size]byte) (*Conn, error) {
	c, err := dial(ctx, addr, identity.JoinClient(pin, ProtoJoin, nil), ProtoJoin, 0)
	if err != nil {
		return nil, fmt.Errorf("connect to the cluster at %s: %w", addr, err)
	}
	return c, nil
}

func dial(ctx context.Context, addr string, cfg *tls.Config, proto string, userTimeout time.Duration) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	tune(conn, userTimeout)
	w := newWire(conn)
	c := tls.Client(w, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		err = explain(err, proto)
		var header tls.RecordHeaderError
		if errors.As(err, &header) {
			err = fmt.Errorf("what answers there is not a Holdfast node, as it does not speak TLS: %w", err)
		}
		return nil, errors.Join(err, closeError(conn))
	}
	link, err := newConn(c, w, proto)
	if err != nil {
		return nil, errors.Join(err, closeError(conn))
	}
	return link, nil
}

// closeError closes conn and returns an error that is worth telling; that it is closed already is none.
func closeError(conn net.Conn) error {
	if err := conn.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
