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
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"holdfast/internal/cluster"
	"holdfast/internal/config"
)

// fakeNode answers with what it was asked.
type fakeNode struct {
	Backend // what no test asks for is nil
	err     error
}

func (f fakeNode) Status(_ context.Context, local bool) Status {
	if local {
		return Status{Node: "a", ID: 1}
	}
	return Status{Node: "a", ID: 1, Nodes: []NodeStatus{{Name: "b"}}}
}

func (f fakeNode) Check(_ context.Context, by, volume string) (CheckResult, error) {
	return CheckResult{Volume: volume, Equal: true, Replicas: []ReplicaDigest{{Node: "a", Index: 7, Digest: "00"}}}, f.err
}

func (f fakeNode) Transfer(_ context.Context, by, volume, to string) (TransferResult, error) {
	return TransferResult{Volume: volume, From: by, To: to, Seconds: 0.5}, f.err
}

func (f fakeNode) Do(_ context.Context, by string, cmd cluster.Command) (cluster.Result, error) {
	if cmd.RemoveVolume == nil {
		return cluster.Result{Error: "that is not to be done", Code: cluster.CodeConflict}, f.err
	}
	return cluster.Result{Revision: 5, Number: uint64(len(by))}, f.err
}

func (f fakeNode) Events(_ context.Context, after uint64, wait bool) ([]cluster.Event, error) {
	if after == 9 {
		return nil, f.err
	}
	return []cluster.Event{{Seq: after + 1}}, f.err
}

func (f fakeNode) Backup(_ context.Context, _, volume string, o BackupOptions, w io.Writer) error {
	if volume == "none" {
		return Errorf(http.StatusNotFound, "there is no such volume")
	}
	if _, err := fmt.Fprintf(w, "%s since %d here %t", volume, o.Since, o.Here); err != nil {
		return err
	}
	return f.err
}

func (f fakeNode) Restore(_ context.Context, _ string, spec config.VolumeSpec, r io.Reader) error {
	b, err := io.ReadAll(r)
	if err == nil && string(b) != spec.Name {
		err = fmt.Errorf("%q is restored as %s", b, spec.Name)
	}
	return err
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// serve runs Serve in a new data folder and returns the folder and what ends it.
func serve(t *testing.T, b Backend) (dir string, stop func() error) {
	t.Helper()
	dir = t.TempDir()
	// What a killed process left behind must not be in the way.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, SocketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	ln, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, ln, b, LocalUser, quiet()) }()
	stop = func() error { cancel(); return <-done }
	t.Cleanup(cancel)
	return dir, stop
}

func TestClientAndServer(t *testing.T) {
	dir, stop := serve(t, fakeNode{})
	info, err := os.Stat(filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o660 {
		t.Errorf("the socket's mode is %v", info.Mode())
	}
	ctx := context.Background()
	c := NewClient(dir)
	// Names of volumes and nodes that a careless encoding would tear apart.
	for _, name := range []string{"main", "a b", "x/y", "ü?to=z", "100%", "a&b=c"} {
		check, err := c.Check(ctx, name)
		want := CheckResult{Volume: name, Equal: true, Replicas: []ReplicaDigest{{Node: "a", Index: 7, Digest: "00"}}}
		if diff := cmp.Diff(want, check); err != nil || diff != "" {
			t.Errorf("check %q: %v\n%s", name, err, diff)
		}
		tr, err := c.Transfer(ctx, name, name)
		if diff := cmp.Diff(TransferResult{Volume: name, From: "root", To: name, Seconds: 0.5}, tr); err != nil || diff != "" {
			t.Errorf("transfer %q: %v\n%s", name, err, diff)
		}
	}
	if err := stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, SocketName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

// TestRequests sends each kind of request whose answer is more than JSON of one value, or comes by a body.
func TestRequests(t *testing.T) {
	dir, _ := serve(t, fakeNode{})
	c, ctx := NewClient(dir), context.Background()
	if s, err := c.Status(ctx, false); err != nil || len(s.Nodes) != 1 {
		t.Errorf("status %+v, %v", s, err)
	}
	if r, err := c.Do(ctx, cluster.Command{RemoveVolume: &cluster.RemoveVolume{Name: "v"}}); err != nil || r.Revision != 5 || r.Number != uint64(len("root")) {
		t.Errorf("command: %+v, %v", r, err)
	}
	var refused *cluster.Error
	if _, err := c.Do(ctx, cluster.Command{AddToken: &cluster.Token{}}); !errors.As(err, &refused) || refused.Code != cluster.CodeConflict {
		t.Errorf("a refused command: %v", err)
	}
	var e *Error
	if _, err := c.Do(ctx, cluster.Command{AddNode: &cluster.AddNode{}}); !errors.As(err, &e) || e.Status != http.StatusForbidden {
		t.Errorf("a person adds a node: %v", err)
	}
	for after, want := range map[uint64]int{3: 1, 9: 0} {
		if list, err := c.Events(ctx, after, true); err != nil || len(list) != want || list == nil {
			t.Errorf("events after %d: %v, %v", after, list, err)
		}
	}
	r, err := c.Backup(ctx, "v", BackupOptions{Since: 7, Here: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); err != nil || string(b) != "v since 7 here true" {
		t.Errorf("backup %q, %v", b, err)
	}
	if _, err := c.Backup(ctx, "none", BackupOptions{}); !errors.As(err, &e) || e.Status != http.StatusNotFound {
		t.Errorf("backup of nothing: %v", err)
	}
	if err := c.Restore(ctx, config.NewVolume("w"), strings.NewReader("w")); err != nil {
		t.Error(err)
	}
	if err := c.Restore(ctx, config.NewVolume("w"), strings.NewReader("x")); err == nil || !strings.Contains(err.Error(), "restored as w") {
		t.Errorf("a restore that fails: %v", err)
	}
}

// TestBackupBreaks has a backup fail in the middle: nobody may take it for whole.
func TestBackupBreaks(t *testing.T) {
	dir, _ := serve(t, fakeNode{err: errors.New("disk on fire")})
	r, err := NewClient(dir).Backup(context.Background(), "v", BackupOptions{})
	if err != nil {
		return // it was told before the first byte
	}
	defer r.Close()
	if b, err := io.ReadAll(r); err == nil {
		t.Errorf("a backup that broke off reads as whole: %q", b)
	}
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		name   string
		err    error
		status int
	}{
		{"of the node", Errorf(http.StatusConflict, "volume %s is led by %s", "v", "b"), http.StatusConflict},
		{"wrapped", fmt.Errorf("volume v: %w", Errorf(http.StatusNotFound, "gone")), http.StatusNotFound},
		{"any other", errors.New("disk on fire"), http.StatusInternalServerError},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, _ := serve(t, fakeNode{err: tt.err})
			_, err := NewClient(dir).Check(context.Background(), "v")
			var e *Error
			if !errors.As(err, &e) || e.Status != tt.status || e.Message != tt.err.Error() {
				t.Errorf("error %#v, want %d with %q", err, tt.status, tt.err)
			}
		})
	}
}

func TestRoutes(t *testing.T) {
	h := Handler(fakeNode{})
	for _, tt := range []struct {
		method, path string
		code         int
	}{
		{"GET", "/v1/status", 200},
		{"POST", "/v1/status", 405},
		{"POST", "/v1/volumes/v/check", 200},
		{"GET", "/v1/volumes/v/check", 405},
		{"POST", "/v1/volumes/v/transfer?to=b", 200},
		{"GET", "/v1/volumes/v/transfer", 405},
		{"GET", "/", 404},
		{"GET", "/v1/volumes", 404},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
		if w.Code != tt.code {
			t.Errorf("%s %s: %d, want %d", tt.method, tt.path, w.Code, tt.code)
		}
		if tt.code == 200 && (w.Header().Get("Content-Type") != "application/json" || !json.Valid(w.Body.Bytes())) {
			t.Errorf("%s %s: %s %q", tt.method, tt.path, w.Header().Get("Content-Type"), w.Body)
		}
	}
}

func TestNoNode(t *testing.T) {
	dir := t.TempDir()
	if _, err := NewClient(dir).Status(context.Background(), true); err == nil || !strings.Contains(err.Error(), "no node is running on "+dir) {
		t.Errorf("no socket: %v", err)
	}
	c := NewClient(dir)
	for _, tt := range []struct {
		err  error
		want string
	}{
		{syscall.ENOENT, "holdfast serve"},
		{syscall.ECONNREFUSED, "holdfast serve"},
		{syscall.EACCES, "run this as root, or as a member"},
		{syscall.EPERM, "run this as root, or as a member"},
		{io.ErrUnexpectedEOF, "ask the node at"},
	} {
		err := c.explain(&net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", tt.err)})
		if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v is explained as %q", tt.err, err)
		}
	}
}

// TestNotTheNode has something else answer on the socket.
func TestNotTheNode(t *testing.T) {
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"an error without a message", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "bad gateway", http.StatusBadGateway) }, "answered 502"},
		{"no JSON", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }, "read the answer of"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			ln, err := net.Listen("unix", filepath.Join(dir, SocketName))
			if err != nil {
				t.Fatal(err)
			}
			srv := httptest.Server{Listener: ln, Config: &http.Server{Handler: tt.handler}}
			srv.Start()
			defer srv.Close()
			if _, err := NewClient(dir).Status(context.Background(), true); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestServeErrors(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("x", maxSocketPath))
	for dir, want := range map[string]string{
		long:                                  "shorter path",
		filepath.Join(t.TempDir(), "missing"): "open admin socket",
	} {
		_, err := Listen(dir)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
