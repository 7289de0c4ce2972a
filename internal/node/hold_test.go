package node

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/internal/nfsclient"
)

func TestHold(t *testing.T) {
	var h hold
	held := func() bool {
		if h.mu.TryRLock() {
			h.mu.RUnlock()
			return false
		}
		return true
	}
	release := h.take(time.Hour)
	if !held() {
		t.Error("nothing is held")
	}
	release()
	release() // may be called again
	if held() {
		t.Error("it is held after the release")
	}
	// Not released: it ends by itself.
	stale := h.take(time.Millisecond)
	h.enter()
	h.leave()
	release = h.take(time.Hour)
	stale() // of what is over
	if !held() {
		t.Error("somebody else's hold was released")
	}
	release()
	// What has entered is waited for.
	h.enter()
	var left atomic.Bool
	taken := make(chan bool)
	go func() {
		release := h.take(time.Hour)
		taken <- left.Load()
		release()
	}()
	left.Store(true)
	h.leave()
	if !<-taken {
		t.Error("it was held before those had left who had entered")
	}
}

// TestCheckUnderLoad compares the copies while clients overwrite files without a pause.
func TestCheckUnderLoad(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{}).startAll()
	// What nobody changes makes sure that reading takes longer than there is between two writes.
	cl := c.mount("4.1", "/data")
	large, err := cl.Open(c.context(), cl.Root(), "large", nfsclient.OpenOptions{Create: nfsclient.Unchecked})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 48 {
		if err := large.Write(c.context(), make([]byte, 1<<20), uint64(i)<<20, nfsclient.FileSync); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var writers sync.WaitGroup
	var written sync.WaitGroup
	const files = 10
	for i := range files {
		cl := c.mount([]string{"4.1", "3"}[i%2], "/data")
		written.Add(1)
		writers.Go(func() {
			done := sync.OnceFunc(written.Done)
			defer done()
			f, err := cl.Open(ctx, cl.Root(), fmt.Sprint("f", i), nfsclient.OpenOptions{Create: nfsclient.Unchecked})
			if err != nil {
				t.Errorf("open: %v", err)
				return
			}
			content := make([]byte, 128<<10)
			for n := 0; ctx.Err() == nil; n++ {
				content[n%len(content)]++
				if err := f.Write(ctx, content, 0, nfsclient.FileSync); err != nil && ctx.Err() == nil {
					t.Errorf("write: %v", err)
					return
				}
				done()
			}
		})
	}
	written.Wait()
	res, err := c.leader().api().Check(c.context(), "v")
	stop()
	writers.Wait()
	if err != nil || !res.Equal || len(res.Replicas) != 3 {
		t.Errorf("%+v, %v", res, err)
	}
	c.equal()
}
