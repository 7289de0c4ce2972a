package link

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/identity"
)

// Protocols: what a connection is for.
const (
	// ProtoRaft carries the messages of raft groups (package transport). For nodes.
	ProtoRaft = "holdfast/raft"
	// ProtoAPI is the HTTP API. For nodes and administrators.
	ProtoAPI = "holdfast/api"
	// ProtoNFS carries the NFS requests of clients to the node that leads their volume. For nodes.
	ProtoNFS = "holdfast/nfs"
	// ProtoJoin is HTTP for a node that asks to be let in. It has no certificate yet, so anyone may connect.
	ProtoJoin = "holdfast/join"
)

// access says who may use a protocol.
func access(proto string) identity.Access {
	switch proto {
	case ProtoRaft, ProtoNFS:
		return identity.Nodes
	case ProtoAPI:
		return identity.Members
	case ProtoJoin:
		return identity.Anyone
	}
	return identity.Nobody
}

// busy reports whether a protocol's connections carry enough for large buffers.
func busy(proto string) bool { return proto == ProtoRaft || proto == ProtoNFS }

// ErrRefused is what errors.Is finds in the error of a connection that the other side ended because of who we are or what we want.
var ErrRefused = errors.New("the other side refuses the connection")

// explain adds to the TLS alert of the other side what it means. With TLS 1.3 a client has the server's verdict on its certificate only when it reads.
func explain(err error, proto string) error {
	var remote *net.OpError
	if !errors.As(err, &remote) || remote.Op != "remote error" {
		return err
	}
	why := remote.Err.Error()
	switch text := strings.TrimPrefix(why, "tls: "); text {
	case "bad certificate", "unknown certificate authority", "expired certificate", "revoked certificate", "certificate required":
		why = "it does not accept our certificate, and its log says why: expired, revoked, of another cluster, or not of a kind that may use " + proto
	case "no application protocol":
		why = "it does not serve " + proto + ": it is another release, or has not got that far in starting"
	}
	return fmt.Errorf("%w: %s (%w)", ErrRefused, why, err)
}

// keepAlive finds the death of a peer that an idle connection is waiting for.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3}

// defaultUserTimeout is how long sent bytes may stay unacknowledged before a connection counts as dead.
const defaultUserTimeout = 3 * time.Second

// tune sets what TCP needs for small messages in a hurry. Go sets TCP_NODELAY by itself.
func tune(conn net.Conn, userTimeout time.Duration) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	if userTimeout == 0 {
		userTimeout = defaultUserTimeout
	}
	// A kernel that refuses has its own, longer timeouts.
	_ = tcp.SetKeepAliveConfig(keepAlive)
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
	})
}

// newConn wraps a connection whose handshake is done.
func newConn(c *tls.Conn, w *wire, proto string) (*Conn, error) {
	peer, err := identity.PeerOf(c.ConnectionState())
	if err != nil {
		return nil, err
	}
	if busy(proto) {
		w.bufferReads()
	}
	return &Conn{Conn: c, wire: w, peer: peer, proto: proto}, nil
}
