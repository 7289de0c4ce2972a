package loadgen

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"holdfast/internal/nfsclient"
)

// fakeServer is an NFS server in memory, without a network and with faults to order.
type fakeServer struct {
	mu      sync.Mutex // guards all below
	nodes   map[nfsclient.Handle]*fakeNode
	clients int
	calls   map[string]int // by operation and, where it has one, name

	// fault, if set, is asked about each call; nth counts the calls of that operation on that name, from 1.
	fault func(op, name string, nth int) fault
}

// fault is what a server may do wrong.
type fault uint8

const (
	none    fault = iota
	drop          // acknowledge and do nothing
	twice         // execute again, and answer as the second time: a retry that was not recognised
	corrupt       // of a write: flip a bit
	fail          // answer IO
	forget        // of any: release all locks
)

type fakeNode struct {
	typ     nfsclient.FileType
	name    string
	data    []byte
	entries map[string]nfsclient.Handle
	locks   map[uint64]string // start: owner
}

func newFakeServer() *fakeServer {
	root := &fakeNode{typ: nfsclient.TypeDir, entries: make(map[string]nfsclient.Handle)}
	return &fakeServer{nodes: map[nfsclient.Handle]*fakeNode{"root": root}, calls: make(map[string]int)}
}

func (s *fakeServer) mount(context.Context) (Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients++
	return &fakeClient{s: s, id: s.clients}, nil
}

// call executes fn under the server's lock, as often as the fault orders.
func (s *fakeServer) call(ctx context.Context, op, name string, fn func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := op + " " + name
	s.calls[key]++
	f := none
	if s.fault != nil {
		f = s.fault(op, name, s.calls[key])
	}
	switch f {
	case drop:
		return nil
	case twice:
		_ = fn()
	case fail:
		return &nfsclient.Error{Op: op, Status: nfsclient.ErrIO}
	case forget:
		for _, n := range s.nodes {
			clear(n.locks)
		}
	}
	return fn()
}

type fakeClient struct {
	s  *fakeServer
	id int
}

func (c *fakeClient) Version() string             { return "4.1" }
func (c *fakeClient) Root() nfsclient.Handle      { return "root" }
func (c *fakeClient) Stats() nfsclient.Stats      { return nfsclient.Stats{} }
func (c *fakeClient) Close(context.Context) error { return nil }

func (c *fakeClient) GetAttr(ctx context.Context, h nfsclient.Handle) (a nfsclient.Attr, err error) {
	err = c.s.call(ctx, "GETATTR", "", func() error {
		n := c.s.nodes[h]
		a = nfsclient.Attr{Type: n.typ, Size: uint64(len(n.data))}
		return nil
	})
	return a, err
}

func (c *fakeClient) SetAttr(context.Context, nfsclient.Handle, nfsclient.SetAttr) error { return nil }

func (c *fakeClient) Lookup(ctx context.Context, dir nfsclient.Handle, name string) (h nfsclient.Handle, a nfsclient.Attr, err error) {
	err = c.s.call(ctx, "LOOKUP", name, func() error {
		found, ok := c.s.nodes[dir].entries[name]
		if !ok {
			return &nfsclient.Error{Op: "LOOKUP", Status: nfsclient.ErrNoEnt}
		}
		h, a = found, nfsclient.Attr{Type: c.s.nodes[found].typ}
		return nil
	})
	return h, a, err
}

func (c *fakeClient) create(ctx context.Context, op string, dir nfsclient.Handle, name string, typ nfsclient.FileType, mode nfsclient.CreateMode) (h nfsclient.Handle, err error) {
	err = c.s.call(ctx, op, name, func() error {
		found, ok := c.s.nodes[dir].entries[name]
		switch {
		case ok && mode != nfsclient.NoCreate && mode != nfsclient.Unchecked:
			return &nfsclient.Error{Op: op, Status: nfsclient.ErrExist}
		case ok:
			h = found
			return nil
		case mode == nfsclient.NoCreate:
			return &nfsclient.Error{Op: op, Status: nfsclient.ErrNoEnt}
		}
		h = nfsclient.Handle(fmt.Sprint("h", len(c.s.nodes)))
		c.s.nodes[h] = &fakeNode{typ: typ, name: name, entries: make(map[string]nfsclient.Handle), locks: make(map[uint64]string)}
		c.s.nodes[dir].entries[name] = h
		return nil
	})
	return h, err
}

func (c *fakeClient) Open(ctx context.Context, dir nfsclient.Handle, name string, o nfsclient.OpenOptions) (nfsclient.File, error) {
	return c.OpenLocker(ctx, dir, name, o)
}

func (c *fakeClient) OpenLocker(ctx context.Context, dir nfsclient.Handle, name string, o nfsclient.OpenOptions) (Locker, error) {
	h, err := c.create(ctx, "OPEN", dir, name, nfsclient.TypeFile, o.Create)
	if err != nil {
		return nil, err
	}
	return &fakeFile{c: c, h: h}, nil
}

func (c *fakeClient) Mkdir(ctx context.Context, dir nfsclient.Handle, name string, _ uint32) (nfsclient.Handle, error) {
	return c.create(ctx, "MKDIR", dir, name, nfsclient.TypeDir, nfsclient.Guarded)
}

func (c *fakeClient) Remove(ctx context.Context, dir nfsclient.Handle, name string) error {
	return c.s.call(ctx, "REMOVE", name, func() error {
		if _, ok := c.s.nodes[dir].entries[name]; !ok {
			return &nfsclient.Error{Op: "REMOVE", Status: nfsclient.ErrNoEnt}
		}
		delete(c.s.nodes[dir].entries, name)
		return nil
	})
}

func (c *fakeClient) Rmdir(ctx context.Context, dir nfsclient.Handle, name string) error {
	return c.Remove(ctx, dir, name)
}

func (c *fakeClient) Rename(ctx context.Context, from nfsclient.Handle, oldName string, to nfsclient.Handle, newName string) error {
	return c.s.call(ctx, "RENAME", newName, func() error {
		h, ok := c.s.nodes[from].entries[oldName]
		if !ok {
			return &nfsclient.Error{Op: "RENAME", Status: nfsclient.ErrNoEnt}
		}
		delete(c.s.nodes[from].entries, oldName)
		c.s.nodes[to].entries[newName] = h
		return nil
	})
}

func (c *fakeClient) ReadDir(ctx context.Context, dir nfsclient.Handle, _ bool, fn func(nfsclient.DirEntry) error) error {
	var names []string
	err := c.s.call(ctx, "READDIR", "", func() error {
		for name := range c.s.nodes[dir].entries {
			names = append(names, name)
		}
		return nil
	})
	for _, name := range names {
		if err != nil {
			return err
		}
		err = fn(nfsclient.DirEntry{Name: name})
	}
	return err
}

type fakeFile struct {
	c *fakeClient
	h nfsclient.Handle
}

func (f *fakeFile) Handle() nfsclient.Handle         { return f.h }
func (f *fakeFile) Close(context.Context) error      { return nil }
func (f *fakeFile) Commit(ctx context.Context) error { return ctx.Err() }

// node returns the file; the server's lock must be held, or the name alone be used.
func (f *fakeFile) node() *fakeNode { return f.c.s.nodes[f.h] }

func (f *fakeFile) name() string {
	f.c.s.mu.Lock()
	defer f.c.s.mu.Unlock()
	return f.node().name
}

func (f *fakeFile) Read(ctx context.Context, p []byte, off uint64) (n int, eof bool, err error) {
	err = f.c.s.call(ctx, "READ", f.name(), func() error {
		data := f.node().data
		if off < uint64(len(data)) {
			n = copy(p, data[off:])
		}
		eof = off+uint64(n) >= uint64(len(data))
		return nil
	})
	return n, eof, err
}

func (f *fakeFile) Write(ctx context.Context, p []byte, off uint64, _ nfsclient.Stability) error {
	name := f.name()
	return f.c.s.call(ctx, "WRITE", name, func() error {
		n := f.node()
		if need := int(off) + len(p); need > len(n.data) {
			n.data = append(n.data, make([]byte, need-len(n.data))...)
		}
		copy(n.data[off:], p)
		if f.c.s.fault != nil && f.c.s.fault("WRITE", name, f.c.s.calls["WRITE "+name]) == corrupt {
			n.data[int(off)+len(p)/2] ^= 1
		}
		return nil
	})
}

func (f *fakeFile) owner(owner string) string { return fmt.Sprint(f.c.id, "/", owner) }

// heldByOther reports whether another owner has a lock that starts in the range: all that the workload needs.
func (f *fakeFile) heldByOther(owner string, off, length uint64) bool {
	for at, who := range f.node().locks {
		if at >= off && at < off+length && who != f.owner(owner) {
			return true
		}
	}
	return false
}

func (f *fakeFile) Lock(ctx context.Context, owner string, _ nfsclient.LockType, off, length uint64) error {
	return f.c.s.call(ctx, "LOCK", f.name(), func() error {
		if f.heldByOther(owner, off, length) {
			return &nfsclient.Error{Op: "LOCK", Status: nfsclient.ErrDenied}
		}
		f.node().locks[off] = f.owner(owner)
		return nil
	})
}

func (f *fakeFile) TestLock(ctx context.Context, owner string, _ nfsclient.LockType, off, length uint64) error {
	return f.c.s.call(ctx, "LOCKT", f.name(), func() error {
		if f.heldByOther(owner, off, length) {
			return &nfsclient.Error{Op: "LOCKT", Status: nfsclient.ErrDenied}
		}
		return nil
	})
}

func (f *fakeFile) Unlock(ctx context.Context, owner string, off, _ uint64) error {
	return f.c.s.call(ctx, "LOCKU", f.name(), func() error {
		if f.node().locks[off] == f.owner(owner) {
			delete(f.node().locks, off)
		}
		return nil
	})
}

// on returns a fault that happens at the nth call of an operation on a name, or on names with a prefix that ends in "*".
func on(op, name string, nth int, f fault) func(string, string, int) fault {
	return func(gotOp, gotName string, n int) fault {
		match := gotName == name
		if prefix, ok := strings.CutSuffix(name, "*"); ok {
			match = strings.HasPrefix(gotName, prefix)
		}
		if gotOp == op && match && n == nth {
			return f
		}
		return none
	}
}
