package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"holdfast/internal/cluster"
	"holdfast/internal/config"
)

// maxSocketPath is the longest path that a Unix socket can have (unix(7): sun_path, and a zero behind it).
const maxSocketPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// maxBodyBytes bounds a request's body, those of restores excepted.
const maxBodyBytes = 4 << 20

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	// headerBy names who asked, when one node passes a request on to another.
	headerBy = "Holdfast-By"
	// headerVolume holds the specification of the volume that a restore makes, in JSON.
	headerVolume = "Holdfast-Volume"
)

// Caller is who is on the other side of a connection.
type Caller struct {
	// Name is for the events: an administrator's, a node's, or that of the local user.
	Name string
	// Node is the number of the node that asks; 0 for people.
	Node uint64
}

// Listen opens the socket in the data folder.
func Listen(dataDir string) (net.Listener, error) {
	path := filepath.Join(dataDir, SocketName)
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("open admin socket: the path %s has %d bytes, a Unix socket's has at most %d: give the node a data folder with a shorter path", path, len(path), maxSocketPath)
	}
	// A socket file that a killed process left behind would make the bind fail; the data folder's lock has already shown that no other process is alive.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove stale admin socket: %w", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open admin socket: %w", err)
	}
	// The process's group may use it, which with the Debian package is holdfast's.
	if err := os.Chmod(path, 0o660); err != nil {
		ln.Close()
		return nil, fmt.Errorf("restrict admin socket: %w", err)
	}
	return ln, nil
}

// Serve answers API requests on ln until ctx ends. who says who is on the other side of an accepted connection.
func Serve(ctx context.Context, ln net.Listener, b Backend, who func(net.Conn) Caller, log *slog.Logger) error {
	srv := &http.Server{
		Handler: Handler(b), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, callerKey{}, who(c))
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(ln); err != nil && !errors.Is(err, http.ErrServerClosed) && ctx.Err() == nil {
		return fmt.Errorf("serve the API on %s: %w", ln.Addr(), err)
	}
	return nil
}

type callerKey struct{}

// caller returns who asks. A node that passes a request on says for whom.
func caller(r *http.Request) Caller {
	c, _ := r.Context().Value(callerKey{}).(Caller)
	if by := r.Header.Get(headerBy); by != "" && c.Node != 0 {
		c.Name = by
	}
	return c
}

// LocalUser is the Caller on the other side of the admin socket.
func LocalUser(conn net.Conn) Caller {
	unknown := Caller{Name: "local user"}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return unknown
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return unknown
	}
	var cred *syscall.Ucred
	if raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}) != nil || err != nil {
		return unknown
	}
	if cred.Uid == 0 {
		return Caller{Name: "root"}
	}
	return Caller{Name: "uid " + strconv.FormatUint(uint64(cred.Uid), 10)}
}

// Handler returns the HTTP routes of the API.
func Handler(b Backend) http.Handler {
	mux := http.NewServeMux()
	get := func(path string, f func(r *http.Request) (any, error)) { handle(mux, "GET "+path, f) }
	post := func(path string, f func(r *http.Request) (any, error)) { handle(mux, "POST "+path, f) }
	get("/v1/status", func(r *http.Request) (any, error) { return b.Status(r.Context(), r.URL.Query().Has("local")), nil })
	get("/v1/state", func(r *http.Request) (any, error) { return b.State(r.Context()) })
	get("/v1/events", func(r *http.Request) (any, error) { return events(b, r) })
	get("/v1/doctor", func(r *http.Request) (any, error) { return b.Doctor(r.Context()) })
	post("/v1/commands", func(r *http.Request) (any, error) {
		cmd, err := body[cluster.Command](r)
		if err != nil {
			return nil, err
		}
		if who := caller(r); who.Node == 0 && (cmd.Init != nil || cmd.AddNode != nil || cmd.ReportNode != nil) {
			return nil, Errorf(http.StatusForbidden, "only nodes say this to each other: a cluster is made with `holdfast init` and joined with `holdfast join`")
		}
		return b.Do(r.Context(), caller(r).Name, cmd)
	})
	post("/v1/tokens", func(r *http.Request) (any, error) {
		req, err := body[TokenRequest](r)
		if err != nil {
			return nil, err
		}
		return b.Token(r.Context(), caller(r).Name, req)
	})
	post("/v1/certificates/node", func(r *http.Request) (any, error) {
		req, err := body[CertificateRequest](r)
		if err != nil {
			return nil, err
		}
		return b.NodeCertificate(r.Context(), caller(r).Node, req.Request)
	})
	post("/v1/certificates/admin", func(r *http.Request) (any, error) {
		req, err := body[CertificateRequest](r)
		if err != nil {
			return nil, err
		}
		return b.AdminCertificate(r.Context(), caller(r).Name, req)
	})
	post("/v1/volumes/{volume}/check", func(r *http.Request) (any, error) { return b.Check(r.Context(), caller(r).Name, r.PathValue("volume")) })
	post("/v1/volumes/{volume}/transfer", func(r *http.Request) (any, error) {
		return b.Transfer(r.Context(), caller(r).Name, r.PathValue("volume"), r.URL.Query().Get("to"))
	})
	get("/v1/volumes/{volume}/explain", func(r *http.Request) (any, error) {
		return b.Explain(r.Context(), caller(r).Name, r.PathValue("volume"))
	})
	get("/v1/volumes/{volume}/leader", func(r *http.Request) (any, error) {
		known, err := strconv.ParseUint(r.URL.Query().Get("known"), 10, 64)
		if err != nil {
			return nil, Errorf(http.StatusBadRequest, "known=%s: want the number of a node", r.URL.Query().Get("known"))
		}
		return b.Leader(r.Context(), r.PathValue("volume"), known)
	})
	mux.HandleFunc("GET /v1/volumes/{volume}/backup", func(w http.ResponseWriter, r *http.Request) { backup(b, w, r) })
	mux.HandleFunc("POST /v1/restore", func(w http.ResponseWriter, r *http.Request) {
		var spec config.VolumeSpec
		if err := json.Unmarshal([]byte(r.Header.Get(headerVolume)), &spec); err != nil {
			answer(w, nil, Errorf(http.StatusBadRequest, "read the volume's specification: %v", err))
			return
		}
		answer(w, struct{}{}, b.Restore(r.Context(), caller(r).Name, spec, r.Body))
	})
	return mux
}

// handle routes requests whose answer is one JSON value.
func handle(mux *http.ServeMux, pattern string, f func(r *http.Request) (any, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
		v, err := f(r)
		answer(w, v, err)
	})
}

// body decodes a request's body. Keys that this release does not know are refused: they would be lost without a word.
func body[T any](r *http.Request) (v T, err error) {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, Errorf(http.StatusBadRequest, "read the request: %v", err)
	}
	return v, nil
}

func events(b Backend, r *http.Request) (any, error) {
	q := r.URL.Query()
	after := uint64(0)
	if text := q.Get("after"); text != "" {
		var err error
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			return nil, Errorf(http.StatusBadRequest, "after=%s: want the number of an event", text)
		}
	}
	list, err := b.Events(r.Context(), after, q.Has("wait"))
	if list == nil {
		list = []cluster.Event{}
	}
	return list, err
}

// backup streams a backup. An error after the first byte ends the connection in the middle of a chunk, so that nobody takes the stream for whole.
func backup(b Backend, w http.ResponseWriter, r *http.Request) {
	o := BackupOptions{Here: r.URL.Query().Has("here")}
	if text := r.URL.Query().Get("since"); text != "" {
		var err error
		if o.Since, err = strconv.ParseUint(text, 10, 64); err != nil {
			answer(w, nil, Errorf(http.StatusBadRequest, "since=%s: want the index of a backup", text))
			return
		}
	}
	out := &lazyWriter{w: w}
	err := b.Backup(r.Context(), caller(r).Name, r.PathValue("volume"), o, out)
	switch {
	case err != nil && out.begun:
		panic(http.ErrAbortHandler)
	case err != nil:
		answer(w, nil, err)
	}
}

// lazyWriter begins the answer with the first byte, so that an error before it still can be told.
type lazyWriter struct {
	w     http.ResponseWriter
	begun bool
}

func (l *lazyWriter) Write(p []byte) (int, error) {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", "application/octet-stream")
	}
	n, err := l.w.Write(p)
	if err != nil {
		return n, fmt.Errorf("send the backup: %w", err)
	}
	return n, nil
}

func answer(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		status := statusOf(err)
		w.WriteHeader(status)
		v = &Error{Message: err.Error()}
	}
	// The client is gone if this fails; there is nobody left to tell.
	_ = json.NewEncoder(w).Encode(v)
}

// statusOf is the HTTP status of an error.
func statusOf(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	var refused *cluster.Error
	if errors.As(err, &refused) {
		switch refused.Code {
		case cluster.CodeInvalid:
			return http.StatusBadRequest
		case cluster.CodeNotFound:
			return http.StatusNotFound
		case cluster.CodeConflict:
			return http.StatusConflict
		case cluster.CodeDenied:
			return http.StatusForbidden
		}
	}
	return http.StatusInternalServerError
}

// discard reads what is left of a body that is of no interest, so that the connection can be used again.
func discard(r io.Reader) {
	const most = 64 << 10
	_, _ = io.CopyN(io.Discard, r, most)
}
