package rpc

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Defaults of ServerConfig.
const (
	DefaultMaxConns         = 4096
	DefaultMaxInflightBytes = 256 << 20
	DefaultMaxOutputBytes   = 256 << 20
)

// ServerConfig are the limits of a server. Zero values stand for the defaults.
type ServerConfig struct {
	// Conn is the configuration of each connection; its Handler receives all calls.
	Conn ConnConfig
	// MaxConns is how many connections may be open; further ones are reset as soon as they are accepted.
	MaxConns int
	// MaxInflightBytes bounds the calls being read or with the handler, of all connections together; beyond it nothing more is read.
	MaxInflightBytes int
	// MaxOutputBytes is how much output of all connections may wait for slow peers; beyond it the connections whose own
	// queue exceeds ConnConfig.MaxQueued are closed.
	MaxOutputBytes int
	// Opened and Closed, if set, are called for each connection, before its first call is read and after its last one was handed over. Closed gets
	// the reason of the end.
	Opened func(c *Conn)
	Closed func(c *Conn, err error)
	// Log receives accept failures; nil: slog.Default.
	Log *slog.Logger
}

// Server accepts connections and serves them. It may serve several listeners.
type Server struct {
	cfg    ServerConfig
	shared shared

	mu    sync.Mutex // guards the fields below
	conns map[*Conn]struct{}
	full  time.Time // when we last complained about too many connections
}

// NewServer makes a server. cfg.Conn.Handler must be set.
func NewServer(cfg ServerConfig) *Server {
	setDefault(&cfg.MaxConns, DefaultMaxConns)
	setDefault(&cfg.MaxInflightBytes, DefaultMaxInflightBytes)
	setDefault(&cfg.MaxOutputBytes, DefaultMaxOutputBytes)
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Conn.Log == nil {
		cfg.Conn.Log = cfg.Log
	}
	cfg.Conn.setDefaults()
	s := &Server{cfg: cfg, conns: make(map[*Conn]struct{})}
	// A record must fit, or its connection would wait for ever.
	s.shared.budget.left = max(cfg.MaxInflightBytes, cfg.Conn.MaxRecord)
	s.shared.maxOutput = int64(cfg.MaxOutputBytes)
	return s
}

// Serve accepts connections from ln until ctx ends, then closes ln and the connections that came from it, waits for their goroutines
// and returns nil. It returns an error if ln failed for good.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	return Accept(ctx, ln, s.cfg.Log, s.ServeConn)
}

// admit makes a Conn of an accepted connection, or closes it and returns nil.
func (s *Server) admit(nc net.Conn) *Conn {
	if err := Tune(nc); err != nil {
		_ = nc.Close() // the peer is gone already
		return nil
	}
	c := newConn(nc, s.cfg.Conn, &s.shared)
	c.vanishOnExit()
	s.mu.Lock()
	if len(s.conns) < s.cfg.MaxConns {
		s.conns[c] = struct{}{}
		s.mu.Unlock()
		return c
	}
	complain := time.Since(s.full) > 10*time.Second
	if complain {
		s.full = time.Now()
	}
	s.mu.Unlock()
	if complain {
		s.cfg.Log.Warn("too many RPC connections: refusing new ones", "limit", s.cfg.MaxConns, "peer", c.peer())
	}
	c.Reset()
	return nil
}

// ServeConn serves one connection that was accepted elsewhere until it ends, or ctx does. It counts among the server's connections, and like
// those it is reset where there are too many. nc need not be a socket: then its addresses should be TCP's still, and if it has a method
// SetLinger that decides, as a socket's does, whether the peer sees a reset or an orderly end.
func (s *Server) ServeConn(ctx context.Context, nc net.Conn) {
	c := s.admit(nc)
	if c == nil {
		return
	}
	stop := context.AfterFunc(ctx, c.Close)
	defer stop()
	if s.cfg.Opened != nil {
		s.cfg.Opened(c)
	}
	err := c.Run()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	if s.cfg.Closed != nil {
		s.cfg.Closed(c, err)
	}
}

// Conns returns the connections that are open.
func (s *Server) Conns() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	return all
}

// CloseConns ends all connections that are open now; with reset their peers see a reset. New ones are accepted as before.
func (s *Server) CloseConns(reset bool) {
	for _, c := range s.Conns() {
		if reset {
			c.Reset()
		} else {
			c.Close()
		}
	}
}
