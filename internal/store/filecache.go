package store

import (
	"container/list"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// fileKey is one host file of an object.
type fileKey struct {
	id    uint64
	chunk uint32
}

// file is an open host file.
type file struct {
	fd      int
	key     fileKey
	users   int
	dropped bool          // no longer in the cache: the last user closes it
	idle    *list.Element // in fileCache.idle if nobody uses it
}

// fileCache keeps files open, at most max besides those in use.
type fileCache struct {
	max  int
	path func(fileKey) string

	mu    sync.Mutex
	files map[fileKey]*file
	idle  *list.List // of *file, least recently used first
	// forgotten counts calls of forget: a file that was opened before one and is cached after it could be the one that was removed.
	forgotten uint64
	err       error // of close
}

func newFileCache(max int, path func(fileKey) string) *fileCache {
	return &fileCache{max: max, path: path, files: map[fileKey]*file{}, idle: list.New()}
}

// get opens a file or finds it open; the caller gives it back with put.
func (c *fileCache) get(k fileKey, create bool) (*file, error) {
	flags := unix.O_RDWR | unix.O_CLOEXEC | unix.O_NOFOLLOW
	if create {
		flags |= unix.O_CREAT
	}
	for {
		c.mu.Lock()
		if f := c.files[k]; f != nil {
			c.useLocked(f)
			c.mu.Unlock()
			return f, nil
		}
		forgotten := c.forgotten
		c.mu.Unlock()

		fd, err := unix.Open(c.path(k), flags, 0o600)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("store: open object %x: %w", k.id, err)
		}
		if f := c.add(k, fd, forgotten); f != nil {
			return f, nil
		}
		unix.Close(fd)
	}
}

// add caches an opened file, unless another was faster or the file may have been removed meanwhile.
func (c *fileCache) add(k fileKey, fd int, forgotten uint64) *file {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.files[k] != nil || c.forgotten != forgotten {
		return nil
	}
	f := &file{fd: fd, key: k, users: 1}
	c.files[k] = f
	for len(c.files) > c.max && c.idle.Len() > 0 {
		c.dropLocked(c.idle.Front().Value.(*file))
	}
	return f
}

func (c *fileCache) useLocked(f *file) {
	f.users++
	if f.idle != nil {
		c.idle.Remove(f.idle)
		f.idle = nil
	}
}

// put gives a file back.
func (c *fileCache) put(f *file) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.users--
	switch {
	case f.users > 0:
	case f.dropped:
		c.closeLocked(f)
	case len(c.files) > c.max:
		c.dropLocked(f)
	default:
		f.idle = c.idle.PushBack(f)
	}
}

func (c *fileCache) dropLocked(f *file) {
	delete(c.files, f.key)
	f.dropped = true
	if f.idle != nil {
		c.idle.Remove(f.idle)
		f.idle = nil
	}
	if f.users == 0 {
		c.closeLocked(f)
	}
}

func (c *fileCache) closeLocked(f *file) {
	if err := unix.Close(f.fd); err != nil {
		c.err = errors.Join(c.err, fmt.Errorf("store: close object %x: %w", f.key.id, err))
	}
}

// forget drops a file whose name is gone.
func (c *fileCache) forget(k fileKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgotten++
	if f := c.files[k]; f != nil {
		c.dropLocked(f)
	}
}

func (c *fileCache) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.files {
		c.dropLocked(f)
	}
	return c.err
}
