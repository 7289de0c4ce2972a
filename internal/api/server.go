package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// maxSocketPath is the longest path that a Unix socket can have (unix(7): sun_path, and a zero behind it).
const maxSocketPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// Serve answers API requests on the socket in the data folder until ctx ends.
func Serve(ctx context.Context, dataDir string, b Backend, log *slog.Logger) error {
	path := filepath.Join(dataDir, SocketName)
	if len(path) > maxSocketPath {
		return fmt.Errorf("open admin socket: the path %s has %d bytes, a Unix socket's has at most %d: give the node a data folder with a shorter path", path, len(path), maxSocketPath)
	}
	// A socket file that a killed process left behind would make the bind fail; the data folder's lock has already shown that no other process is alive.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove stale admin socket: %w", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("open admin socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return fmt.Errorf("restrict admin socket: %w", err)
	}
	srv := &http.Server{Handler: Handler(b), ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(ln); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve admin socket: %w", err)
	}
	return nil
}

// Handler returns the HTTP routes of the API.
func Handler(b Backend) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		answer(w, b.Status(r.Context()), nil)
	})
	mux.HandleFunc("POST /v1/volumes/{volume}/check", func(w http.ResponseWriter, r *http.Request) {
		res, err := b.Check(r.Context(), r.PathValue("volume"))
		answer(w, res, err)
	})
	mux.HandleFunc("POST /v1/volumes/{volume}/transfer", func(w http.ResponseWriter, r *http.Request) {
		res, err := b.Transfer(r.Context(), r.PathValue("volume"), r.URL.Query().Get("to"))
		answer(w, res, err)
	})
	return mux
}

func answer(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		status := http.StatusInternalServerError
		var e *Error
		if errors.As(err, &e) {
			status = e.Status
		}
		w.WriteHeader(status)
		v = &Error{Message: err.Error()}
	}
	// The client is gone if this fails; there is nobody left to tell.
	_ = json.NewEncoder(w).Encode(v)
}
