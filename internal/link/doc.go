// Package link is the one port of a node and how to reach that of another: TLS from the first byte, both sides proven by certificates (package identity), and a
// protocol name (ALPN) that says what a connection is for.
//
// A Mux accepts, does the handshakes and hands the connections out, by protocol, to those who serve it. A Dialer makes connections. Both return a *Conn, which knows
// who is at the other end, and can write without waiting.
package link
