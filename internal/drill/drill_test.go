package drill

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/internal/nfsclient"
)

// server is an NFS server in memory with one folder, and with faults to order.
type server struct {
	mu     sync.Mutex // guards what follows
	files  map[string][]byte
	locked string // the client that holds the lock
	mounts int
	open   int // clients and files that were not closed

	rootUID uint32
	deny    error // the answer to mounts
	refuse  error // the answer to making a file
	// away makes every call wait until it is closed.
	away chan struct{}
	// drop says which write, from 1, is acknowledged and forgotten; fail which one fails.
	drop, fail, writes int
}

func (s *server) call(ctx context.Context) error {
	s.mu.Lock()
	away := s.away
	s.mu.Unlock()
	if away == nil {
		// A disk takes its time.
		away = make(chan struct{})
		time.AfterFunc(time.Millisecond, func() { close(away) })
	}
	select {
	case <-away:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *server) mount(ctx context.Context, cfg nfsclient.Config) (Client, error) {
	if err := s.call(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deny != nil {
		return nil, s.deny
	}
	s.mounts++
	s.open++
	return &client{s: s, uid: cfg.Auth.UID, name: string(rune('a' + s.mounts))}, nil
}

// fails makes the server stop answering for d.
func (s *server) fails(d time.Duration) {
	away := make(chan struct{})
	s.mu.Lock()
	s.away = away
	s.mu.Unlock()
	time.Sleep(d)
	s.mu.Lock()
	s.away = nil
	s.mu.Unlock()
	close(away)
}

type client struct {
	s    *server
	uid  uint32
	name string
}

func (*client) Root() nfsclient.Handle { return "root" }

func (c *client) GetAttr(ctx context.Context, _ nfsclient.Handle) (nfsclient.Attr, error) {
	return nfsclient.Attr{UID: c.s.rootUID}, c.s.call(ctx)
}

func (c *client) OpenFile(ctx context.Context, _ nfsclient.Handle, name string, o nfsclient.OpenOptions) (File, error) {
	if err := c.s.call(ctx); err != nil {
		return nil, err
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.uid != c.s.rootUID {
		return nil, nfsclient.ErrAccess
	}
	if c.s.refuse != nil {
		return nil, c.s.refuse
	}
	if _, ok := c.s.files[name]; !ok {
		if o.Create == nfsclient.NoCreate {
			return nil, nfsclient.ErrNoEnt
		}
		c.s.files[name] = make([]byte, places*RecordBytes)
	}
	c.s.open++
	return &file{c: c, name: name}, nil
}

func (c *client) Remove(ctx context.Context, _ nfsclient.Handle, name string) error {
	if err := c.s.call(ctx); err != nil {
		return err
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	delete(c.s.files, name)
	return nil
}

func (*client) Stats() nfsclient.Stats { return nfsclient.Stats{Reconnects: 1} }

func (c *client) Close(ctx context.Context) error {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.open--
	return ctx.Err()
}

type file struct {
	nfsclient.File // what is not called
	c              *client
	name           string
}

func (f *file) Write(ctx context.Context, p []byte, off uint64, how nfsclient.Stability) error {
	if how != nfsclient.FileSync {
		return errors.New("not stable")
	}
	if err := f.c.s.call(ctx); err != nil {
		return err
	}
	f.c.s.mu.Lock()
	defer f.c.s.mu.Unlock()
	switch f.c.s.writes++; f.c.s.writes {
	case f.c.s.drop:
		return nil
	case f.c.s.fail:
		return nfsclient.ErrIO
	}
	copy(f.c.s.files[f.name][off:], p)
	return nil
}

func (f *file) Read(ctx context.Context, p []byte, off uint64) (int, bool, error) {
	if err := f.c.s.call(ctx); err != nil {
		return 0, false, err
	}
	f.c.s.mu.Lock()
	defer f.c.s.mu.Unlock()
	return copy(p, f.c.s.files[f.name][off:]), false, nil
}

func (f *file) Lock(ctx context.Context, _ string, _ nfsclient.LockType, _, _ uint64) error {
	f.c.s.mu.Lock()
	defer f.c.s.mu.Unlock()
	f.c.s.locked = f.c.name
	return ctx.Err()
}

func (f *file) TestLock(ctx context.Context, _ string, _ nfsclient.LockType, _, _ uint64) error {
	f.c.s.mu.Lock()
	defer f.c.s.mu.Unlock()
	if f.c.s.locked != "" && f.c.s.locked != f.c.name {
		return nfsclient.ErrDenied
	}
	return ctx.Err()
}

func (f *file) Unlock(context.Context, string, uint64, uint64) error {
	f.c.s.mu.Lock()
	defer f.c.s.mu.Unlock()
	if f.c.s.locked != f.c.name {
		return nfsclient.ErrBadStateID
	}
	f.c.s.locked = ""
	return nil
}

func (f *file) Close(context.Context) error {
	f.c.s.mu.Lock()
	defer f.c.s.mu.Unlock()
	f.c.s.open--
	return nil
}

func TestRun(t *testing.T) {
	const outage = 300 * time.Millisecond
	for _, tt := range []struct {
		name   string
		server *server
		move   func(s *server) error
		want   string // in the failures; none if empty
	}{
		{"nothing is lost", &server{rootUID: 1000}, nil, ""},
		{"write lost", &server{drop: 20}, nil, "write number 19 was acknowledged and is not there"},
		{"write fails", &server{fail: 20}, nil, "NFS status IO"},
		{"lock lost", &server{}, func(s *server) error { s.locked = ""; return nil }, "another client could take it"},
		{"never comes back", &server{}, func(s *server) error { s.away = make(chan struct{}); return nil }, "not acknowledged within 1m0s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := tt.server
				s.files = map[string][]byte{}
				move := func(context.Context) (string, string, error) {
					s.fails(outage)
					s.mu.Lock()
					defer s.mu.Unlock()
					if tt.move != nil {
						return "a", "b", tt.move(s)
					}
					return "a", "b", nil
				}
				// Few enough writes that none is overwritten.
				res, err := Run(t.Context(), Config{Address: "h:1", Export: "/data", Moves: []Move{move}, Calm: 50 * time.Millisecond, Mount: s.mount})
				if err != nil {
					t.Fatal(err)
				}
				all := strings.Join(res.Failures, "\n")
				if !strings.Contains(all, tt.want) || res.OK() != (tt.want == "") {
					t.Errorf("failures %q, want %q", res.Failures, tt.want)
				}
				if tt.want != "" {
					return
				}
				if len(res.Outages) != 1 || res.Outages[0].OutageMS < millis(outage-2*time.Millisecond) || res.Outages[0].OutageMS > millis(outage+10*time.Millisecond) {
					t.Errorf("outages %+v, want %v", res.Outages, outage)
				}
				if res.Writes < 50 || res.TypicalMS != 1 || res.Reconnects != 1 {
					t.Errorf("%+v", res)
				}
				if s.open != 0 || len(s.files) != 0 || s.locked != "" {
					t.Errorf("left behind: %d open, files %v, lock of %q", s.open, s.files, s.locked)
				}
			})
		})
	}
}

// TestCannot goes through what keeps a drill from taking place: it says what to do and leaves nothing behind.
func TestCannot(t *testing.T) {
	hangs := make(chan struct{})
	for _, tt := range []struct {
		name   string
		server *server
		move   error
		want   string
	}{
		{"not allowed", &server{deny: nfsclient.ErrNoEnt}, nil, "add its address to the export's clients"},
		{"read only", &server{refuse: nfsclient.ErrROFS}, nil, "the option rw"},
		{"squashed", &server{refuse: nfsclient.ErrAccess}, nil, "no_root_squash"},
		{"nobody answers", &server{away: hangs}, nil, "nobody answers NFS at h:1"},
		{"nobody to move to", &server{}, errors.New("no node is able"), "no node is able"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := tt.server
				s.files = map[string][]byte{}
				if s.away != nil {
					s.away = make(chan struct{}) // one of this bubble
				}
				move := func(context.Context) (string, string, error) { return "", "", tt.move }
				_, err := Run(t.Context(), Config{Address: "h:1", Export: "/data", Moves: []Move{move}, Mount: s.mount})
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v, want %q", err, tt.want)
				}
				if s.open != 0 || len(s.files) != 0 {
					t.Errorf("left behind: %d open, files %v", s.open, s.files)
				}
			})
		})
	}
}

func TestInterrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{files: map[string][]byte{}}
		ctx, cancel := context.WithCancel(t.Context())
		move := func(context.Context) (string, string, error) { cancel(); return "a", "b", nil }
		if _, err := Run(ctx, Config{Address: "h:1", Export: "/data", Moves: []Move{move}, Mount: s.mount}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if s.open != 0 || len(s.files) != 0 {
			t.Errorf("left behind: %d open, files %v", s.open, s.files)
		}
	})
}

func TestGap(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	var l ackLog
	for _, ms := range []int{0, 10, 20, 120, 130, 400} {
		l.add(at(ms-2), at(ms))
	}
	for _, tt := range []struct{ from, to, want int }{
		{0, 30, 100},    // the gap reaches out of the window
		{15, 130, 100},  // from 20 to 120
		{125, 500, 270}, // from 130 to 400
		{401, 450, 50},  // nothing since 400
	} {
		if got := l.gap(at(tt.from), at(tt.to)); got != time.Duration(tt.want)*time.Millisecond {
			t.Errorf("%d to %d: %v, want %d ms", tt.from, tt.to, got, tt.want)
		}
	}
	if l.median() != 2*time.Millisecond {
		t.Errorf("median %v", l.median())
	}
}
