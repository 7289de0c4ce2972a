package store

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
)

// TestNamesOfKilledProcess kills a process, which leaves its changes in the page cache, and repeats them as Redo does: the folders must be synced all the same.
func TestNamesOfKilledProcess(t *testing.T) {
	dir := t.TempDir()
	changes := func(d *Disk) {
		check(t, d.WriteObject(1, 0, []byte("x")))
		check(t, d.WriteObject(2, chunkBytes, []byte("x")))
		check(t, d.WriteObject(3, 0, []byte("x")))
		check(t, d.RemoveObject(3))
		check(t, d.WriteObject(4, chunkBytes, []byte("x")))
		check(t, d.TruncateObject(4, 1))
	}
	d := openDisk(t, dir)
	changes(d)
	want := slices.Collect(maps.Keys(d.dirtyDirs))
	check(t, d.Close()) // syncs no object
	d = openDisk(t, dir)
	changes(d)
	for _, dir := range want {
		if _, ok := d.dirtyDirs[dir]; !ok {
			t.Errorf("%s would not be synced", dir)
		}
	}
	check(t, d.SyncObjects(context.Background()))
	if len(d.dirtyDirs) > 0 {
		t.Errorf("%d folders left to sync", len(d.dirtyDirs))
	}
	check(t, d.Close())
}

// TestFailedSyncIsFinal lets a sync fail while its caller gives up: what the page cache holds is unknown all the same, so no later sync may succeed.
func TestFailedSyncIsFinal(t *testing.T) {
	d := openDisk(t, t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	check(t, d.WriteObject(1, 0, []byte("x")))
	cancel()
	if err := d.SyncObjects(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a sync that is given up returns %v", err)
	}
	check(t, d.SyncObjects(context.Background()))
	check(t, d.WriteObject(1, 0, []byte("x")))
	d.markDir("no such name \x00")
	failure := d.SyncObjects(ctx)
	if failure == nil || errors.Is(failure, context.Canceled) {
		t.Errorf("a sync that fails while it is given up returns %v", failure)
	}
	if err := d.SyncObjects(context.Background()); !errors.Is(err, failure) {
		t.Errorf("the sync after it returns %v", err)
	}
	check(t, d.Close())
}
