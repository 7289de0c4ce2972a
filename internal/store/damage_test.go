package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// damageTables flips a bit in each block of data of all tables that hold the text. The store must be closed.
func damageTables(t *testing.T, dir string, text []byte) {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(dir, "meta", "db-*", "*.sst"))
	check(t, err)
	hit := 0
	for _, name := range tables {
		b, err := os.ReadFile(name)
		check(t, err)
		if at := bytes.Index(b, text); at >= 0 {
			b[at] ^= 1
			check(t, os.WriteFile(name, b, 0o600))
			hit++
		}
	}
	if hit == 0 {
		t.Fatalf("none of %d tables holds %q", len(tables), text)
	}
}

func damageKey(i int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(i)) }

// damageValue is random, so that it is stored as it is, and known.
func damageValue(i int) []byte {
	rnd := newRand(uint64(i))
	b := make([]byte, 200)
	for j := range b {
		b[j] = byte(rnd.Uint32())
	}
	return b
}

// TestDamagedMetadata lets a block of the metadata rot on the disk: whoever needs it hears ErrUnreadable, and everything else is given out as it was.
func TestDamagedMetadata(t *testing.T) {
	const keys, victim = 2000, 1000
	dir := t.TempDir()
	d := openDisk(t, dir)
	var b Batch
	for i := range keys {
		b.Set(damageKey(i), damageValue(i))
	}
	check(t, d.Commit(&b))
	check(t, d.FlushMeta(context.Background()))
	check(t, d.Close())
	damageTables(t, dir, damageValue(victim)[:64])
	d = openDisk(t, dir)
	unreadableKeys := 0
	for i := range keys {
		v, err := d.Get(damageKey(i))
		switch {
		case errors.Is(err, ErrUnreadable):
			unreadableKeys++
		case err != nil:
			t.Fatalf("key %d: %v", i, err)
		case !bytes.Equal(v, damageValue(i)):
			t.Fatalf("key %d: %x, want %x", i, v, damageValue(i))
		}
	}
	if _, err := d.Get(damageKey(victim)); !errors.Is(err, ErrUnreadable) || unreadableKeys > keys/10 {
		t.Errorf("the damaged key: %v; %d keys are unreadable", err, unreadableKeys)
	}
	seen := 0
	count := func(_, _ []byte) bool { seen++; return true }
	if err := d.Scan(nil, nil, count); !errors.Is(err, ErrUnreadable) || seen >= keys {
		t.Errorf("a scan over the damage: %v after %d of %d keys", err, seen, keys)
	}
	check(t, d.Scan(damageKey(0), damageKey(10), count))
	snap, err := d.SnapshotMeta()
	check(t, err)
	if _, err := snap.WriteTo(io.Discard); !errors.Is(err, ErrUnreadable) {
		t.Errorf("a snapshot of damaged metadata: %v", err)
	}
	failed := fmt.Errorf("the connection is gone")
	if _, err := snap.WriteTo(writerFunc(func([]byte) (int, error) { return 0, failed })); !errors.Is(err, failed) || errors.Is(err, ErrUnreadable) {
		t.Errorf("a receiver that is gone: %v", err)
	}
	check(t, snap.Close())
	// The rest may still be changed.
	b.Reset()
	b.Set(damageKey(1), []byte("x"))
	check(t, d.Commit(&b))
	check(t, d.FlushMeta(context.Background()))
	check(t, d.Close())
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestDamageInCompaction lets Pebble meet the damage by itself: the store says so, once, goes on, and ends before writers would have to wait for ever.
func TestDamageInCompaction(t *testing.T) {
	dir := t.TempDir()
	d := openDisk(t, dir)
	commit := func() error {
		var b Batch
		for i := range 200 {
			b.Set(damageKey(i), damageValue(i))
		}
		return d.Commit(&b)
	}
	check(t, commit())
	check(t, d.FlushMeta(context.Background()))
	check(t, d.Close())
	damageTables(t, dir, damageValue(100)[:64])
	told := make(chan error, 10)
	d, err := Open(dir, Options{Damaged: func(err error) { told <- err }})
	check(t, err)
	flushes := 0
	for ; err == nil && flushes < 50; flushes++ {
		if err = commit(); err == nil {
			check(t, d.FlushMeta(context.Background()))
		}
	}
	if !errors.Is(err, ErrUnreadable) || flushes < sublevelsMost/2 {
		t.Errorf("after %d flushes: %v", flushes, err)
	}
	if err := <-told; !errors.Is(err, ErrUnreadable) || len(told) > 0 {
		t.Errorf("told of %v, and %d more", err, len(told))
	}
	// It closes, whatever else is wrong with it.
	_ = d.Close()
}
