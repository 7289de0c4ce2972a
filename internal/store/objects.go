package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// objects is the part of Disk that is in host files. Object ID is the file objects/XX/ID (16 hex digits; XX are the last two); what
// lies beyond chunkBytes is in further files objects/XX/ID.d/N, as few host file systems have files of 8 EiB.
type objects struct {
	root  string // objects/
	files *fileCache
	trash *trash

	mu        sync.Mutex
	dirty     map[fileKey]struct{} // written since they were last synced
	dirtyDirs map[string]struct{}
	failed    error // of the first sync that failed: what the page cache holds after it is unknown
}

const (
	chunkBits   = 43
	chunkBytes  = 1 << chunkBits // 8 TiB; ext4 ends at 16
	chunkSuffix = ".d"
	shards      = 256
	syncWorkers = 4
	// allocateLeaves is the part of the host file system, one in so many bytes, that AllocateObject leaves alone.
	allocateLeaves = 10
)

func isNotExist(err error) bool { return errors.Is(err, os.ErrNotExist) }

func openObjects(dir string, openFiles int) (*objects, error) {
	o := &objects{
		root:      filepath.Join(dir, "objects"),
		dirty:     map[fileKey]struct{}{},
		dirtyDirs: map[string]struct{}{},
	}
	for i := range shards {
		if err := os.MkdirAll(filepath.Join(o.root, fmt.Sprintf("%02x", i)), 0o700); err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
	}
	if err := syncDir(o.root); err != nil {
		return nil, err
	}
	o.files = newFileCache(openFiles, o.path)
	var err error
	if o.trash, err = openTrash(filepath.Join(dir, "trash")); err != nil {
		return nil, err
	}
	// A process that was killed may have left names that it made, or took away, in the page cache only. When that is done again (package volume,
	// Redo), the file is there, or gone, already, and nothing would be marked.
	for i := range shards {
		o.markDir(filepath.Join(o.root, fmt.Sprintf("%02x", i)))
	}
	o.markDir(o.trash.dir)
	return o, nil
}

// path returns the host file of a chunk.
func (o *objects) path(k fileKey) string {
	base := o.base(k.id)
	if k.chunk == 0 {
		return base
	}
	return base + chunkSuffix + "/" + strconv.FormatUint(uint64(k.chunk), 10)
}

func (o *objects) base(id uint64) string {
	return fmt.Sprintf("%s/%02x/%016x", o.root, id%shards, id)
}

// open returns a file of the cache, creating it if asked to; nil if it does not exist.
func (o *objects) open(k fileKey, create bool) (*file, error) {
	f, err := o.files.get(k, false)
	if err == nil && create && k.chunk > 0 {
		o.markDir(filepath.Dir(o.path(k))) // chunk folders are not marked on start
	}
	if err == nil || !isNotExist(err) {
		return f, err
	}
	if !create {
		return nil, nil
	}
	path := o.path(k)
	if k.chunk > 0 {
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("store: %w", err)
		}
		o.markDir(filepath.Dir(filepath.Dir(path)))
	}
	if f, err = o.files.get(k, true); err == nil {
		o.markDir(filepath.Dir(path))
	}
	return f, err
}

func (o *objects) markDir(dir string) {
	o.mu.Lock()
	o.dirtyDirs[dir] = struct{}{}
	o.mu.Unlock()
}

// change runs fn on each chunk that [off, off+length) touches. A chunk is marked dirty once fn is done with it: a sync that comes earlier need not cover it.
func (o *objects) change(id uint64, off, length int64, create bool, fn func(f *file, off, length int64) error) error {
	for length > 0 {
		k := fileKey{id, uint32(off >> chunkBits)}
		at := off & (chunkBytes - 1)
		n := min(length, chunkBytes-at)
		f, err := o.open(k, create)
		if err != nil {
			return err
		}
		if f != nil {
			err = fn(f, at, n)
			o.files.put(f)
			o.mu.Lock()
			o.dirty[k] = struct{}{}
			o.mu.Unlock()
			if err != nil {
				return err
			}
		}
		off, length = off+n, length-n
	}
	return nil
}

// WriteObject implements Store.
func (o *objects) WriteObject(id uint64, off int64, data []byte) error {
	return o.change(id, off, int64(len(data)), true, func(f *file, at, n int64) error {
		part := data[:n]
		data = data[n:]
		for len(part) > 0 {
			k, err := unix.Pwrite(f.fd, part, at)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return fmt.Errorf("store: write object %x: %w", id, err)
			}
			part, at = part[k:], at+int64(k)
		}
		return nil
	})
}

// ReadObject implements Store.
func (o *objects) ReadObject(id uint64, off int64, buf []byte) error {
	for len(buf) > 0 {
		at := off & (chunkBytes - 1)
		n := min(int64(len(buf)), chunkBytes-at)
		if err := o.readChunk(fileKey{id, uint32(off >> chunkBits)}, at, buf[:n]); err != nil {
			return err
		}
		off, buf = off+n, buf[n:]
	}
	return nil
}

func (o *objects) readChunk(k fileKey, at int64, buf []byte) error {
	f, err := o.open(k, false)
	if err != nil {
		return unreadable("open an object", err)
	}
	if f == nil {
		clear(buf)
		return nil
	}
	defer o.files.put(f)
	for len(buf) > 0 {
		n, err := unix.Pread(f.fd, buf, at)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return unreadable(fmt.Sprintf("read object %x", k.id), err)
		}
		if n == 0 {
			clear(buf)
			return nil
		}
		buf, at = buf[n:], at+int64(n)
	}
	return nil
}

// TruncateObject implements Store.
func (o *objects) TruncateObject(id uint64, size int64) error {
	last := uint32(size >> chunkBits)
	chunks, err := o.furtherChunks(id)
	if err != nil {
		return err
	}
	for _, c := range chunks {
		if c > last {
			if err := o.discard(fileKey{id, c}); err != nil {
				return err
			}
		}
	}
	k := fileKey{id, last}
	f, err := o.open(k, size > 0)
	if err != nil || f == nil {
		return err
	}
	defer o.files.put(f)
	if err := ignoringEINTR(func() error { return unix.Ftruncate(f.fd, size&(chunkBytes-1)) }); err != nil {
		return fmt.Errorf("store: truncate object %x: %w", id, err)
	}
	o.mu.Lock()
	o.dirty[k] = struct{}{}
	o.mu.Unlock()
	return nil
}

func ignoringEINTR(fn func() error) error {
	for {
		if err := fn(); err != unix.EINTR {
			return err
		}
	}
}

// PunchObject implements Store. It looks at the chunks that exist only: a sparse file may have a million that do not.
func (o *objects) PunchObject(id uint64, off, length int64) error {
	chunks, err := o.furtherChunks(id)
	if err != nil {
		return err
	}
	for _, c := range append([]uint32{0}, chunks...) {
		base := int64(c) << chunkBits
		from, to := max(off-base, 0), min(off+length-base, chunkBytes)
		if from >= to {
			continue
		}
		if err := o.change(id, base+from, to-from, false, punch); err != nil {
			return err
		}
	}
	return nil
}

func punch(f *file, at, n int64) error {
	err := ignoringEINTR(func() error {
		return unix.Fallocate(f.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, n)
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = zero(f, at, n)
	}
	if err != nil {
		return fmt.Errorf("store: punch object %x: %w", f.key.id, err)
	}
	return nil
}

// zero writes zeros instead of a hole, for file systems that cannot punch.
func zero(f *file, at, n int64) error {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return err
	}
	zeros := make([]byte, 64<<10)
	for end := min(at+n, st.Size); at < end; {
		k, err := unix.Pwrite(f.fd, zeros[:min(end-at, int64(len(zeros)))], at)
		if err != nil && err != unix.EINTR {
			return err
		}
		at += int64(max(k, 0))
	}
	return nil
}

// AllocateObject implements Store. Where the host file system cannot reserve, or would have little space left for anything else, nothing is reserved: one request
// must not be able to stop all replicas, whose logs are on the same disks, and a write that finds no space stops the replica anyway.
func (o *objects) AllocateObject(id uint64, off, length int64) error {
	free, total, err := space(o.root)
	if err != nil {
		return err
	}
	if left := total / allocateLeaves; free < left || uint64(length) > free-left {
		return nil
	}
	return o.change(id, off, length, true, func(f *file, at, n int64) error {
		err := ignoringEINTR(func() error { return unix.Fallocate(f.fd, unix.FALLOC_FL_KEEP_SIZE, at, n) })
		switch {
		case err == nil, errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EFBIG):
			return nil
		}
		return fmt.Errorf("store: allocate object %x: %w", id, err)
	})
}

// SeekObject implements Store.
func (o *objects) SeekObject(id uint64, off int64, hole bool) (int64, error) {
	first := uint32(off >> chunkBits)
	chunks, err := o.furtherChunks(id)
	if err != nil {
		return 0, err
	}
	chunks = append([]uint32{0}, chunks...)
	whence := unix.SEEK_DATA
	if hole {
		whence = unix.SEEK_HOLE
	}
	for i, c := range chunks {
		if c < first {
			continue
		}
		base := int64(c) << chunkBits
		if off < base { // the chunks between are holes
			if hole {
				return off, nil
			}
			off = base
		}
		at, err := o.seekChunk(fileKey{id, c}, off-base, whence)
		if err != nil {
			return 0, err
		}
		last := i == len(chunks)-1
		switch {
		case at >= 0 && at < chunkBytes:
			return base + at, nil
		case hole && at < 0 && !last:
			return off, nil // beyond the end of this chunk's file, but not of the object
		case hole && at == chunkBytes && (last || chunks[i+1] != c+1):
			return base + chunkBytes, nil
		}
		off = base + chunkBytes
	}
	return 0, ErrNoData
}

// seekChunk returns -1 if there is nothing to be found.
func (o *objects) seekChunk(k fileKey, at int64, whence int) (int64, error) {
	f, err := o.open(k, false)
	if err != nil {
		return 0, unreadable("open an object", err)
	}
	if f == nil {
		return -1, nil
	}
	defer o.files.put(f)
	// lseek moves the file position, which nothing else uses.
	found, err := unix.Seek(f.fd, at, whence)
	if err == unix.ENXIO {
		return -1, nil
	}
	if err != nil {
		return 0, unreadable(fmt.Sprintf("seek in object %x", k.id), err)
	}
	return found, nil
}

// furtherChunks returns the chunks of an object that exist besides the first, in order.
func (o *objects) furtherChunks(id uint64) ([]uint32, error) {
	entries, err := os.ReadDir(o.base(id) + chunkSuffix)
	if isNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, unreadable(fmt.Sprintf("list the chunks of object %x", id), err)
	}
	chunks := make([]uint32, 0, len(entries))
	for _, e := range entries {
		c, err := strconv.ParseUint(e.Name(), 10, 32)
		if err != nil {
			return nil, fmt.Errorf("store: object %x has a strange file: %w", id, err)
		}
		chunks = append(chunks, uint32(c))
	}
	slices.Sort(chunks)
	return chunks, nil
}

// RemoveObject implements Store.
func (o *objects) RemoveObject(id uint64) error {
	if err := o.removeFurther(id); err != nil {
		return fmt.Errorf("store: remove object %x: %w", id, err)
	}
	return o.discard(fileKey{id, 0})
}

// removeFurther removes what lies beyond the first chunk. Hardly an object has that, so the usual cost is one call that finds nothing.
func (o *objects) removeFurther(id uint64) error {
	dir := o.base(id) + chunkSuffix
	err := unix.Rmdir(dir)
	if err == unix.ENOENT {
		return nil
	}
	o.markDir(filepath.Dir(dir))
	if err == nil {
		return nil
	}
	chunks, err := o.furtherChunks(id)
	if err != nil {
		return err
	}
	for _, c := range chunks {
		if err := o.discard(fileKey{id, c}); err != nil {
			return err
		}
	}
	return unix.Rmdir(dir)
}

// discard moves a file to the trash.
func (o *objects) discard(k fileKey) error {
	path := o.path(k)
	err := o.trash.take(path)
	if isNotExist(err) {
		if k.chunk > 0 {
			o.markDir(filepath.Dir(path)) // chunk folders are not marked on start
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("store: remove object %x: %w", k.id, err)
	}
	o.files.forget(k)
	o.mu.Lock()
	delete(o.dirty, k)
	o.dirtyDirs[filepath.Dir(path)] = struct{}{}
	o.dirtyDirs[o.trash.dir] = struct{}{}
	o.mu.Unlock()
	return nil
}

// ListObjects implements Store.
func (o *objects) ListObjects(fn func(id uint64) bool) error {
	for i := range shards {
		entries, err := os.ReadDir(filepath.Join(o.root, fmt.Sprintf("%02x", i)))
		if err != nil {
			return fmt.Errorf("store: list objects: %w", err)
		}
		last, seen := uint64(0), false
		for _, e := range entries { // sorted: ID comes before ID.d
			id, err := strconv.ParseUint(strings.TrimSuffix(e.Name(), chunkSuffix), 16, 64)
			if err != nil || seen && id == last {
				continue
			}
			if last, seen = id, true; !fn(id) {
				return nil
			}
		}
	}
	return nil
}

func (o *objects) close() error {
	o.trash.close()
	return o.files.close()
}
