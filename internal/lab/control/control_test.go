package control

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
)

// serve starts an agent with one handler and returns how to connect to it.
func serve(t *testing.T, handle Handler) func() net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go Serve(l, handle)
	return func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}

func TestEventsAndResult(t *testing.T) {
	dial := serve(t, func(_ context.Context, req Request, emit func(any)) (any, error) {
		var n int
		if err := json.Unmarshal(req.Args, &n); err != nil {
			return nil, err
		}
		for i := range n {
			emit(i)
		}
		return req.Name, errors.New("and an error")
	})
	var events []string
	task, err := Start(t.Context(), dial(), "count", 3, func(e json.RawMessage) { events = append(events, string(e)) })
	if err != nil {
		t.Fatal(err)
	}
	var result string
	if err := task.Wait(&result); err == nil || !strings.Contains(err.Error(), "and an error") {
		t.Errorf("got error %v", err)
	}
	if result != "count" || !slices.Equal(events, []string{"0", "1", "2"}) {
		t.Errorf("got %q, %v", result, events)
	}
}

// TestStop: the work learns that it is to end, and its result still arrives.
func TestStop(t *testing.T) {
	dial := serve(t, func(ctx context.Context, _ Request, emit func(any)) (any, error) {
		emit("started")
		<-ctx.Done()
		return "ended", nil
	})
	started := make(chan struct{})
	task, err := Start(t.Context(), dial(), "wait", nil, func(json.RawMessage) { close(started) })
	if err != nil {
		t.Fatal(err)
	}
	<-started
	task.Stop()
	var result string
	if err := task.Wait(&result); err != nil || result != "ended" {
		t.Errorf("got %q, %v", result, err)
	}
}

// TestCancel: the end of the context breaks a task off that does not answer.
func TestCancel(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	dial := serve(t, func(context.Context, Request, func(any)) (any, error) {
		<-release
		return nil, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	task, err := Start(ctx, dial(), "hang", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := task.Wait(nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestAgentGoesAway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			c.Close()
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	task, err := Start(t.Context(), c, "x", nil, nil)
	if err != nil {
		return // the connection was closed that fast
	}
	if err := task.Wait(nil); err == nil {
		t.Error("no error from an agent that went away")
	}
}
