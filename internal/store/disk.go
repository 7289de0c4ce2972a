package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// Options tune a Disk; a zero field takes its default.
type Options struct {
	CacheBytes    int64  // Pebble's block cache besides one memtable; 32 MiB
	MemTableBytes uint64 // of one memtable; 16 MiB. A second one, while the first is flushed, is taken from the cache
	OpenFiles     int    // object files kept open; 512
	// Damaged is told, once, if the store itself meets metadata that it cannot read any more, when it tidies up. It must neither wait nor use the store. The store tidies up no longer,
	// and takes changes until too much has piled up. Nil: nobody is told.
	Damaged func(error)
}

func (o Options) withDefaults() Options {
	if o.CacheBytes == 0 {
		o.CacheBytes = 32 << 20
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = 16 << 20
	}
	if o.OpenFiles == 0 {
		o.OpenFiles = 512
	}
	return o
}

// Disk is the Store in a folder: meta/ is Pebble's, objects/ holds a sparse file per object, trash/ what is being deleted.
type Disk struct {
	*metadata
	*objects
	dir string
}

var _ Store = (*Disk)(nil)

// Open opens the store in dir, creating it if need be. Only one process can have it open.
func Open(dir string, opt Options) (*Disk, error) {
	opt = opt.withDefaults()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	m, err := openMetadata(vfs.Default, filepath.Join(dir, "meta"), opt)
	if err != nil {
		return nil, err
	}
	o, err := openObjects(dir, opt.OpenFiles)
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	if err := syncDir(dir); err != nil {
		return nil, errors.Join(err, m.close(), o.close())
	}
	return &Disk{metadata: m, objects: o, dir: dir}, nil
}

// ObjectChecksum implements Store.
func (d *Disk) ObjectChecksum(ctx context.Context, id uint64, size int64) (uint32, error) {
	return checksumObject(ctx, d, id, size)
}

// Space implements Store.
func (d *Disk) Space() (free, total uint64, err error) { return space(d.dir) }

func space(dir string) (free, total uint64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, fmt.Errorf("store: statfs %s: %w", dir, err)
	}
	return s.Bavail * uint64(s.Frsize), s.Blocks * uint64(s.Frsize), nil
}

// Close flushes the metadata and closes the store. Snapshots must have been closed. It does not sync the objects: that is for a checkpoint to do before.
func (d *Disk) Close() error { return errors.Join(d.metadata.close(), d.objects.close()) }

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("store: sync %s: %w", dir, err)
	}
	return nil
}
