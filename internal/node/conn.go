package node

import (
	"holdfast/internal/rpc"
)

// clientConn is a client's connection as the gateway sees it. It lives as the value of its rpc.Conn, so that there is one for each connection.
type clientConn struct {
	*rpc.Conn
}

// connOf returns the clientConn that opened made for c.
func connOf(c *rpc.Conn) *clientConn { return c.Value().(*clientConn) }

// Reply implements gateway.Conn. A connection that is gone loses its reply: the client asks again and is answered from the reply cache.
func (c *clientConn) Reply(record []byte) { _ = c.Send(record) }
