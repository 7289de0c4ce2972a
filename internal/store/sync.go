package store

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// SyncObjects implements Store.
func (o *objects) SyncObjects(ctx context.Context) error {
	o.mu.Lock()
	if o.failed != nil {
		defer o.mu.Unlock()
		return o.failed
	}
	files, dirs := o.dirty, o.dirtyDirs
	o.dirty, o.dirtyDirs = map[fileKey]struct{}{}, map[string]struct{}{}
	o.mu.Unlock()

	type outcome struct{ failed, givenUp error }
	jobs := make(chan func() error)
	outcomes := make(chan outcome, syncWorkers)
	for range syncWorkers {
		go func() {
			var out outcome
			for job := range jobs {
				if out.failed != nil {
					continue
				}
				if err := job(); errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
					out.givenUp = err
				} else {
					out.failed = err
				}
			}
			outcomes <- out
		}()
	}
	for k := range files {
		jobs <- func() error { return o.syncFile(ctx, k) }
	}
	for dir := range dirs {
		jobs <- func() error {
			err := syncDir(dir)
			if isNotExist(err) { // chunk folder that is gone
				return nil
			}
			return err
		}
	}
	close(jobs)
	var failed, givenUp error
	for range syncWorkers {
		out := <-outcomes
		failed, givenUp = errors.Join(failed, out.failed), errors.Join(givenUp, out.givenUp)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if failed != nil { // even if others were given up: another try might seem to succeed
		o.failed = failed
		return failed
	}
	if givenUp != nil { // the next sync has it all to do again
		for k := range files {
			o.dirty[k] = struct{}{}
		}
		for dir := range dirs {
			o.dirtyDirs[dir] = struct{}{}
		}
	}
	return givenUp
}

func (o *objects) syncFile(ctx context.Context, k fileKey) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("store: sync objects: %w", err)
	}
	f, err := o.open(k, false)
	if err != nil || f == nil { // gone: removed meanwhile
		return err
	}
	defer o.files.put(f)
	if err := ignoringEINTR(func() error { return unix.Fdatasync(f.fd) }); err != nil {
		return fmt.Errorf("store: sync object %x: %w", k.id, err)
	}
	return nil
}
