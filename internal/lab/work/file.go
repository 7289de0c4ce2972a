package work

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

func init() { registry["file"] = with(fileStep) }

// FileStep is one thing that is done with a file.
type FileStep struct {
	Path string
	// Do is "write" (so many bytes, over what was there, and fsync), "digest" (of so many bytes, read past the cache), "size", "modified" (when), "remove"
	// or "space" (of the file system).
	Do string
	// Size is for write and digest; a digest of 0 is one of all of it.
	Size int64
}

// FileOutcome is how a step went.
type FileOutcome struct {
	// Errno is the name of the error, or empty.
	Errno string
	// Size is how many bytes were written or read, or the size.
	Size   int64
	Digest string
	// Modified is a time of modification, in seconds since 1970.
	Modified int64
	// Total and Free are of the file system, in bytes, for an ordinary user.
	Total, Free int64
}

// filePiece is how much is written at a time.
const filePiece = 64 << 10

func fileStep(_ context.Context, s FileStep, _ func(any)) (o FileOutcome, err error) {
	switch s.Do {
	case "write":
		o.Size, err = writeFile(s.Path, s.Size)
	case "digest":
		o.Size, o.Digest, err = digestFile(s.Path, s.Size)
	case "size":
		var st unix.Stat_t
		if st, err = stat(s.Path); err == nil {
			o.Size = st.Size
		}
	case "modified":
		var st unix.Stat_t
		if st, err = stat(s.Path); err == nil {
			o.Modified = st.Mtim.Sec
		}
	case "remove":
		err = os.Remove(s.Path)
	case "space":
		var st unix.Statfs_t
		err = unix.Statfs(s.Path, &st)
		o.Total, o.Free = int64(st.Blocks)*st.Bsize, int64(st.Bavail)*st.Bsize
	default:
		return o, fmt.Errorf("no file step %q", s.Do)
	}
	o.Errno, err = errnoName(err)
	return o, err
}

// writeFile returns how much was written, and is known to be stored unless there is an error.
func writeFile(path string, size int64) (written int64, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for written < size {
		n, err := f.Write(pattern(uint64(written), int(min(filePiece, size-written))))
		written += int64(n)
		if err != nil {
			return written, err
		}
	}
	return written, f.Sync()
}

func digestFile(path string, size int64) (read int64, digest string, err error) {
	if err := dropCaches(); err != nil {
		return 0, "", err
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	h := sha256.New()
	var r io.Reader = f
	if size > 0 {
		r = io.LimitReader(f, size)
	}
	read, err = io.Copy(h, r)
	return read, hex.EncodeToString(h.Sum(nil)), err
}
