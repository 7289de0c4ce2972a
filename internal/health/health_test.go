package health

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func serve(t *testing.T, volumes func() []Volume) (addr string, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, ln, volumes, slog.New(slog.DiscardHandler)) }()
	stopped := false
	stop = func() {
		if cancel(); !stopped {
			stopped = true
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return ln.Addr().String(), stop
}

// late is a context whose end its listener notices before those do who asked to be called.
type late struct{ context.Context }

func (late) Value(any) any                             { return nil } // hides the one within from package context, which would call them
func (late) AfterFunc(func()) (stop func() (was bool)) { return func() bool { return true } }

// until is a listener that ends with a context.
type until struct {
	net.Listener
	done <-chan struct{}
}

func (u until) Accept() (net.Conn, error) {
	<-u.done
	return nil, net.ErrClosed
}

// TestStop: that the context has ended is no error, whoever notices first.
func TestStop(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	if err := Serve(late{ctx}, until{ln, ctx.Done()}, nil, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is still open: %v", err)
	}
}

func TestAnswers(t *testing.T) {
	home := Volume{ID: 1, Name: "home", Serving: true}
	scratch := Volume{ID: 2, Name: "scratch", Why: "node n2 serves it"}
	tests := []struct {
		volumes []Volume
		request string // method and target
		code    int
		body    string
	}{
		{[]Volume{home}, "GET /", 200, "serving"},
		{[]Volume{home}, "HEAD /", 200, ""},
		{[]Volume{home}, "OPTIONS /", 200, "serving"},
		{[]Volume{home}, "OPTIONS *", 200, "serving"},
		{[]Volume{home}, "GET /health", 200, "serving"},
		{[]Volume{home}, "GET /health/", 200, "serving"},
		{[]Volume{home, scratch}, "GET /", 200, "serving"},
		{[]Volume{home, scratch}, "GET /health/home", 200, "serving"},
		{[]Volume{home, scratch}, "GET /health/1?x=y", 200, "serving"},
		{[]Volume{home, scratch}, "GET /health/scratch", 503, "not serving: node n2 serves it"},
		{[]Volume{home, scratch}, "OPTIONS /health/2", 503, "not serving: node n2 serves it"},
		{[]Volume{home, scratch}, "GET /health/3", 404, "this node knows of no such volume"},
		{[]Volume{home, scratch}, "GET /health/../health/home", 404, "this node knows of no such volume"},
		{[]Volume{scratch}, "GET /", 503, "not serving: node n2 serves it"},
		{[]Volume{scratch}, "HEAD /", 503, ""},
		{[]Volume{scratch}, "OPTIONS *", 503, "not serving: node n2 serves it"},
		{[]Volume{scratch, scratch}, "GET /", 503, "not serving: none of 2 volumes"},
		{nil, "GET /", 503, "not serving: this node has no volume"},
		{[]Volume{home}, "GET /metrics", 404, "there is only /health and /health/VOLUME"},
		{[]Volume{home}, "POST /health", 405, "only GET, HEAD and OPTIONS are answered"},
	}
	var volumes []Volume
	addr, _ := serve(t, func() []Volume { return volumes })
	for _, tt := range tests {
		for _, version := range []string{"1.0", "1.1"} {
			volumes = tt.volumes
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			host := ""
			if version == "1.1" {
				host = "Host: x\r\n"
			}
			if _, err := fmt.Fprintf(nc, "%s HTTP/%s\r\n%s\r\n", tt.request, version, host); err != nil {
				t.Fatal(err)
			}
			method, _, _ := strings.Cut(tt.request, " ")
			resp, err := http.ReadResponse(bufio.NewReader(nc), &http.Request{Method: method})
			if err != nil {
				t.Fatalf("%s: %v", tt.request, err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != tt.code || strings.TrimSuffix(string(body), "\n") != tt.body {
				t.Errorf("%s HTTP/%s: %d %q, %v; want %d %q", tt.request, version, resp.StatusCode, body, err, tt.code, tt.body)
			}
			if n, err := nc.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("%s: the connection is kept: %d, %v", tt.request, n, err)
			}
			nc.Close()
		}
	}
}

// TestCrowd checks that more connections than there are places are all answered, also when those that have them are silent, and that the end does not
// wait for them.
func TestCrowd(t *testing.T) {
	addr, stop := serve(t, func() []Volume { return []Volume{{ID: 1, Name: "home", Serving: true}} })
	for range MaxConns {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
	}
	client := http.Client{Timeout: 10 * time.Second}
	for range 3 {
		resp, err := client.Get("http://" + addr)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("status %d", resp.StatusCode)
		}
	}
	for range MaxConns {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
	}
	stop()
}
