package replica

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/internal/vfs"
)

func TestMetaFile(t *testing.T) {
	f := MetaFile{FS: vfs.OS(), Name: filepath.Join(t.TempDir(), "replica.json")}
	if m, err := f.Load(); m != nil || err != nil {
		t.Fatalf("a file that is not there loads as %v, %v", m, err)
	}
	want := &Meta{Recover: 3, Conf: ConfState{Voters: []uint64{1, 2}, AutoLeave: true}, ConfIndex: 9, Installing: &SnapshotMeta{Index: 5, Term: 2, Conf: ConfState{Voters: []uint64{7}}}}
	if err := f.Save(want); err != nil {
		t.Fatal(err)
	}
	got, err := f.Load()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"", "{", `{"version":2,"conf":{"voters":[1]}}`, `{"version":1}`} {
		if err := os.WriteFile(f.Name, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Load(); !errors.Is(err, errBadMeta) {
			t.Errorf("%q loads with %v", bad, err)
		}
	}
}

func TestLogSizes(t *testing.T) {
	var s logSizes
	s.start(10)
	if got := s.before(1); got != 0 {
		t.Errorf("before anything was logged: %d", got)
	}
	for i := range uint64(100) {
		s.add(11+i, 512<<10)
	}
	// 50 MiB were logged, a mark each MiB.
	for _, tt := range []struct {
		mib  int64
		want uint64
	}{{60, 0}, {50, 10}, {10, 90}, {1, 108}} {
		if got := s.before(tt.mib << 20); got != tt.want {
			t.Errorf("%d MiB before the end lies %d, want %d", tt.mib, got, tt.want)
		}
	}
	s.add(50, 1) // entries from 50 on were replaced
	if got := s.before(1); got > 50 {
		t.Errorf("a mark of a replaced entry is left: %d", got)
	}
	s.forget(40)
	if got := s.before(1 << 40); got != 0 {
		t.Errorf("before(1 TiB) = %d", got)
	}
	s.reset(1000)
	if got := s.before(1); got != 0 {
		t.Errorf("after a reset: %d", got)
	}
}

// noticed is a context that tells when somebody waits for it.
type noticed struct {
	context.Context
	waiting chan struct{}
}

func (n noticed) Done() <-chan struct{} {
	close(n.waiting)
	return n.Context.Done()
}

// TestProposalsKeepToOneLeadership: a client may have had its answer from another leader by the time this one leads again, and gone on.
func TestProposalsKeepToOneLeadership(t *testing.T) {
	for range 20 { // who waits may also wake up between the two
		p := proposals{limit: 1, wake: func() {}, space: make(chan struct{})}
		p.open()
		if err := p.add(context.Background(), make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		ctx := noticed{context.Background(), make(chan struct{})}
		result := make(chan error)
		go func() { result <- p.add(ctx, make([]byte, 1)) }()
		<-ctx.waiting
		p.close(ErrNotLeader)
		p.open()
		if err := <-result; !errors.Is(err, ErrNotLeader) {
			t.Fatalf("a proposal of an earlier leadership: %v", err)
		}
	}
}

func TestProposalsWaitForRoom(t *testing.T) {
	p := proposals{limit: 10, wake: func() {}, space: make(chan struct{})}
	ctx := context.Background()
	if err := p.add(ctx, make([]byte, 1)); !errors.Is(err, ErrNotLeader) {
		t.Fatalf("closed from the start: %v", err)
	}
	p.open()
	if err := p.add(ctx, make([]byte, 20)); err != nil {
		t.Fatalf("one that is larger than the limit must pass an empty queue: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if err := p.add(short, make([]byte, 1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("full: %v", err)
	}
	result := make(chan error)
	go func() { result <- p.add(ctx, make([]byte, 1)) }()
	if n := len(p.take()); n != 1 {
		t.Fatalf("%d in the queue", n)
	}
	p.release(20)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	go func() { result <- p.add(ctx, make([]byte, 10)) }()
	p.close(ErrNotLeader)
	if err := <-result; !errors.Is(err, ErrNotLeader) {
		t.Fatalf("a waiter of a queue that closes gets %v", err)
	}
	if n := len(p.take()); n != 0 {
		t.Errorf("%d left after close", n)
	}
	p.close(ErrStopped)
	p.open()
	if err := p.add(ctx, nil); !errors.Is(err, ErrStopped) {
		t.Errorf("stopped for good: %v", err)
	}
}
