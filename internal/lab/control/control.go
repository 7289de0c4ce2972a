// Package control is the protocol between the test harness on the host and the agent inside a guest.
//
// One TCP connection carries one request: the harness sends a Request, the agent answers with any number of event Replies
// and then exactly one with Done set. The harness asks for an early, orderly end by closing its sending side; the agent
// then cancels the work and still sends the final Reply. All messages are JSON values, one after the other.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Port is the TCP port that the agent listens on, on every address of the guest.
const Port = 9999

// Request asks the agent to run one named piece of work.
type Request struct {
	Name string          `json:"name"`
	Args json.RawMessage `json:"args,omitempty"`
}

// Reply is an event on the way, or, with Done set, the outcome: Error is empty on success.
type Reply struct {
	Event  json.RawMessage `json:"event,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  string          `json:"error,omitempty"`
	Done   bool            `json:"done,omitempty"`
}

// Handler runs one request; emit sends an event and may be called from several goroutines until the handler returns.
// The context ends when the harness wants an early end; the handler then returns what it has.
type Handler func(ctx context.Context, req Request, emit func(event any)) (result any, err error)

// Serve answers requests from the listener until it fails.
func Serve(l net.Listener, handle Handler) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go serveConn(c, handle)
	}
}

func serveConn(c net.Conn, handle Handler) {
	defer c.Close()
	dec := json.NewDecoder(c)
	var req Request
	if err := dec.Decode(&req); err != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		// Nothing follows the request: any end of the stream is the wish to stop.
		io.Copy(io.Discard, c)
		cancel()
	}()
	var mu sync.Mutex
	enc := json.NewEncoder(c)
	send := func(r Reply) {
		mu.Lock()
		defer mu.Unlock()
		if err := enc.Encode(r); err != nil {
			cancel()
		}
	}
	result, err := handle(ctx, req, func(event any) {
		if raw, err := json.Marshal(event); err == nil {
			send(Reply{Event: raw})
		}
	})
	final := Reply{Done: true}
	if err != nil {
		final.Error = err.Error()
	}
	if result != nil {
		raw, err := json.Marshal(result)
		if err != nil {
			final.Error = "encode result: " + err.Error()
		}
		final.Result = raw
	}
	send(final)
}

// Task is one request under way, seen from the harness.
type Task struct {
	name   string
	conn   net.Conn
	done   chan struct{}
	result json.RawMessage
	err    error
}

// Start sends a request over a fresh connection, which the Task then owns. onEvent, if not nil, is called for each event,
// in order, from one goroutine. The end of ctx breaks the connection off.
func Start(ctx context.Context, c net.Conn, name string, args any, onEvent func(json.RawMessage)) (*Task, error) {
	raw, err := json.Marshal(args)
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("encode arguments of %s: %w", name, err)
	}
	if err := json.NewEncoder(c).Encode(Request{Name: name, Args: raw}); err != nil {
		c.Close()
		return nil, fmt.Errorf("send request %s: %w", name, err)
	}
	t := &Task{name: name, conn: c, done: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	go func() {
		defer close(t.done)
		defer c.Close()
		defer stop()
		t.receive(onEvent)
		if t.err != nil && ctx.Err() != nil {
			t.err = fmt.Errorf("%s: %w", name, ctx.Err())
		}
	}()
	return t, nil
}

func (t *Task) receive(onEvent func(json.RawMessage)) {
	dec := json.NewDecoder(t.conn)
	for {
		var r Reply
		if err := dec.Decode(&r); err != nil {
			t.err = fmt.Errorf("%s: agent went away: %w", t.name, err)
			return
		}
		if r.Done {
			t.result = r.Result
			if r.Error != "" {
				t.err = fmt.Errorf("%s: %s", t.name, r.Error)
			}
			return
		}
		if onEvent != nil {
			onEvent(r.Event)
		}
	}
}

// Done is closed when the outcome is there.
func (t *Task) Done() <-chan struct{} { return t.done }

// Stop asks the agent for an orderly end; Wait then returns what there is.
func (t *Task) Stop() {
	if c, ok := t.conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
	}
}

// Wait waits for the outcome and decodes the result into out unless that is nil. The result is decoded on failure too,
// as far as there is one.
func (t *Task) Wait(out any) error {
	<-t.done
	if out != nil && len(t.result) > 0 {
		if err := json.Unmarshal(t.result, out); err != nil {
			return errors.Join(t.err, fmt.Errorf("decode result of %s: %w", t.name, err))
		}
	}
	return t.err
}
