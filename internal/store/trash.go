package store

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// trash deletes files in the background: a large one takes the host a while.
type trash struct {
	dir  string
	mu   sync.Mutex
	next int64

	wake chan struct{}
	stop chan struct{}
	done chan struct{}
}

// trashStep is how much of a large file is freed at once, so that the host's journal is not held up.
const trashStep = 1 << 30

func openTrash(dir string) (*trash, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	t := &trash{
		dir: dir,
		// Names must differ from those that an earlier run left.
		next: time.Now().UnixNano(),
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	t.wake <- struct{}{}
	go t.run()
	return t, nil
}

// take moves the file at path to the trash.
func (t *trash) take(path string) error {
	t.mu.Lock()
	t.next++
	name := filepath.Join(t.dir, strconv.FormatInt(t.next, 36))
	t.mu.Unlock()
	if err := os.Rename(path, name); err != nil {
		return err
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
	return nil
}

func (t *trash) close() {
	close(t.stop)
	<-t.done
}

func (t *trash) run() {
	defer close(t.done)
	for {
		select {
		case <-t.stop:
			return
		case <-t.wake:
		}
		t.empty()
	}
}

// empty deletes what is there. A file that cannot be deleted stays for the next start; its space is all that is lost.
func (t *trash) empty() {
	d, err := os.Open(t.dir)
	if err != nil {
		return
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(256)
		if err != nil {
			return
		}
		for _, name := range names {
			if !t.delete(filepath.Join(t.dir, name)) {
				return
			}
		}
	}
}

// delete frees a file step by step and reports whether to go on.
func (t *trash) delete(path string) bool {
	var st unix.Stat_t
	if unix.Lstat(path, &st) == nil && st.Blocks*512 > trashStep {
		for size := st.Size - trashStep; size > 0; size -= trashStep {
			select {
			case <-t.stop:
				return false
			default:
			}
			if os.Truncate(path, size) != nil {
				break
			}
		}
	}
	_ = os.Remove(path)
	select {
	case <-t.stop:
		return false
	default:
		return true
	}
}
