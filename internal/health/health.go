// Package health answers TCP balancers that ask, by HTTP, whether a node serves a volume: with 200 only the leader that holds the lease, everybody else
// with 503. It tells nothing else, to anybody who asks, and so needs neither encryption nor passwords.
//
//	GET /health/NAME   the volume of that name or number; 404 if this node knows of none
//	GET /health, /     any volume: that of a cluster that has one
//
// HEAD and OPTIONS are answered alike: haproxy's "option httpchk" sends OPTIONS / in HTTP/1.0.
package health

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// MaxConns is how many requests are answered at a time; further ones wait in the kernel.
	MaxConns = 64
	// requestTimeout is how long a request may take to arrive, and its answer to be taken.
	requestTimeout = 2 * time.Second
	// maxHeaderBytes is more than enough for a balancer's request; net/http adds 4 KiB.
	maxHeaderBytes = 4 << 10
)

// Volume is the health of a volume at this node.
type Volume struct {
	// ID is the volume's number, and Name its name.
	ID   uint64
	Name string
	// Serving: this node leads and holds the lease.
	Serving bool
	// Why is why it does not serve, in a few words on one line.
	Why string
}

// Handler answers with the health of the volumes that this node has when it is asked.
func Handler(volumes func() []Volume) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/plain; charset=utf-8")
		h.Set("Cache-Control", "no-store")
		switch r.Method {
		case http.MethodGet, http.MethodHead, http.MethodOptions:
		default:
			h.Set("Allow", "GET, HEAD, OPTIONS")
			answer(w, http.StatusMethodNotAllowed, "only GET, HEAD and OPTIONS are answered")
			return
		}
		code, line := judge(r.URL.Path, volumes())
		answer(w, code, line)
	})
}

func answer(w http.ResponseWriter, code int, line string) {
	w.Header().Set("Content-Length", strconv.Itoa(len(line)+1))
	w.WriteHeader(code)
	_, _ = fmt.Fprintln(w, line) // an error means that the balancer is gone
}

// judge returns the answer for a path.
func judge(path string, volumes []Volume) (code int, line string) {
	name, one := strings.CutPrefix(path, "/health/")
	switch {
	case one && name != "":
		for _, v := range volumes {
			if v.Name == name || strconv.FormatUint(v.ID, 10) == name {
				return verdict([]Volume{v})
			}
		}
		return http.StatusNotFound, "this node knows of no such volume"
	case one, path == "/", path == "/health", path == "", path == "*": // OPTIONS * is for the server as a whole
		return verdict(volumes)
	default:
		return http.StatusNotFound, "there is only /health and /health/VOLUME"
	}
}

// verdict is for any of the volumes.
func verdict(volumes []Volume) (code int, line string) {
	for _, v := range volumes {
		if v.Serving {
			return http.StatusOK, "serving"
		}
	}
	switch len(volumes) {
	case 0:
		return http.StatusServiceUnavailable, "not serving: this node has no volume"
	case 1:
		return http.StatusServiceUnavailable, "not serving: " + volumes[0].Why
	default:
		return http.StatusServiceUnavailable, fmt.Sprintf("not serving: none of %d volumes", len(volumes))
	}
}

// Serve answers on ln until ctx ends, then closes ln and all connections and returns nil. It returns an error if ln failed for good.
// A nil log is slog.Default.
func Serve(ctx context.Context, ln net.Listener, volumes func() []Volume, log *slog.Logger) error {
	if log == nil {
		log = slog.Default()
	}
	srv := &http.Server{
		Handler:     Handler(volumes),
		ReadTimeout: requestTimeout, WriteTimeout: 2 * requestTimeout, MaxHeaderBytes: maxHeaderBytes,
		DisableGeneralOptionsHandler: true, // it answers OPTIONS * with 200, whatever the health
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	srv.SetKeepAlivesEnabled(false) // a connection that is kept takes a place from others
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(closed); _ = srv.Close() })
	err := srv.Serve(&limited{Listener: ln, places: make(chan struct{}, MaxConns), done: ctx.Done()})
	if !stop() {
		<-closed
		return nil
	}
	_ = srv.Close()
	if ctx.Err() != nil { // ln was quicker to notice
		return nil
	}
	return fmt.Errorf("health: serving %v: %w", ln.Addr(), err)
}

// limited is a listener whose connections have places.
type limited struct {
	net.Listener
	places chan struct{}
	done   <-chan struct{}
}

// Accept takes the place after the connection: a listener that is closed meanwhile must be noticed. One connection more than there are places is
// accepted so, and waits for at most as long as a request may take.
func (l *limited) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	select {
	case l.places <- struct{}{}:
	case <-l.done:
		_ = nc.Close()
		return nil, net.ErrClosed
	}
	return &placed{Conn: nc, free: sync.OnceFunc(func() { <-l.places })}, nil
}

type placed struct {
	net.Conn
	free func()
}

func (c *placed) Close() error {
	defer c.free()
	return c.Conn.Close()
}
