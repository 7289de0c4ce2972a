// Package vfs is the only door through which Holdfast's storage touches files: a small set of operations with two
// implementations, the operating system's file system (OS) and a disk in memory (Sim) that loses what a power cut may lose and fails on
// demand, from a seed.
//
// What is durable when. File.Sync makes the content and the length of a file durable, but not its name: a name that was created, renamed
// or removed is durable once SyncDir of its folder has returned. Names in one folder become durable in the order in which they were
// changed. These are the promises of POSIX as Linux file systems keep them; code that relies on more works on a good day only.
package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
)

// ErrNoData is returned by SeekData and SeekHole when there is nothing of the kind at or after the offset.
var ErrNoData = errors.New("vfs: no data beyond this offset")

// FS is a file system. Names are slash-separated paths. Errors satisfy errors.Is with the values of package io/fs and with syscall's
// (ENOSPC, EIO). All methods may be called concurrently.
type FS interface {
	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)
	// Create creates a file, or empties the one that is there, and opens it for reading and writing.
	Create(name string) (File, error)
	// OpenOrCreate opens a file for reading and writing and creates it if it is not there.
	OpenOrCreate(name string) (File, error)
	// Rename gives a file another name, replacing a file that has it already.
	Rename(oldName, newName string) error
	// Remove removes a file or an empty folder.
	Remove(name string) error
	// MkdirAll creates a folder and the folders above it; those that are there are left alone.
	MkdirAll(dir string) error
	// List returns the names in a folder, sorted.
	List(dir string) ([]string, error)
	// Stat describes a file or folder.
	Stat(name string) (Info, error)
	// SyncDir makes the names in a folder durable.
	SyncDir(dir string) error
	// Space returns the free (to unprivileged users) and total bytes of the file system that holds dir.
	Space(dir string) (free, total uint64, err error)
}

// Info is what Stat tells.
type Info struct {
	Dir       bool
	Size      int64 // length in bytes
	Allocated int64 // bytes of disk space taken
}

// File is an open file. All methods may be called concurrently.
type File interface {
	// ReadAt is io.ReaderAt's.
	io.ReaderAt
	// WriteAt is io.WriterAt's; writing beyond the end extends the file.
	io.WriterAt
	// WriteVAt writes bufs one after the other from off, with as few system calls as possible. It leaves bufs as they are. A count below
	// their total comes with an error.
	WriteVAt(bufs [][]byte, off int64) (int64, error)
	// Sync makes content and length durable (fdatasync). After an error nothing is known about what was written since the last success, and
	// a second call that succeeds proves nothing.
	Sync() error
	// Truncate sets the length.
	Truncate(size int64) error
	// Preallocate reserves disk space for [off, off+length), where the file system can, without changing content. It extends the length to
	// off+length unless keepSize.
	Preallocate(off, length int64, keepSize bool) error
	// PunchHole makes [off, off+length) read as zeros and gives the space back where the file system can. The length stays.
	PunchHole(off, length int64) error
	// SeekData returns the first offset >= off that may hold data, or ErrNoData if only a hole follows.
	SeekData(off int64) (int64, error)
	// SeekHole returns the first offset >= off that is in a hole; the end of the file counts as one. ErrNoData if off is beyond the end.
	SeekHole(off int64) (int64, error)
	// Size returns the length in bytes.
	Size() (int64, error)
	// Close releases the file. It makes nothing durable.
	Close() error
}

// ReadFile returns the content of a file.
func ReadFile(fsys FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return nil, err
	}
	return b, nil
}

// WriteFile replaces the content of name atomically and durably: whatever happens, the file holds its old content or data. It uses
// name+".tmp" on the way.
func WriteFile(fsys FS, name string, data []byte) error {
	tmp := name + ".tmp"
	if err := writeNew(fsys, tmp, data); err != nil {
		return fmt.Errorf("write %s: %w", tmp, err)
	}
	if err := fsys.Rename(tmp, name); err != nil {
		return err
	}
	return fsys.SyncDir(path.Dir(name))
}

func writeNew(fsys FS, name string, data []byte) error {
	f, err := fsys.Create(name)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

// MkdirDurable creates a folder and those above it as MkdirAll does, and makes their names durable, all the way up: folders that are there may have
// been made by a process that died before it synced, or by one that never did.
func MkdirDurable(fsys FS, dir string) error {
	if err := fsys.MkdirAll(dir); err != nil {
		return err
	}
	var parents []string // innermost first
	for d := path.Clean(dir); d != path.Dir(d); d = path.Dir(d) {
		parents = append(parents, path.Dir(d))
	}
	for i := len(parents) - 1; i >= 0; i-- {
		// A folder that we may not even read has not got its names from us.
		if err := fsys.SyncDir(parents[i]); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}

// total returns the length of bufs together.
func total(bufs [][]byte) int64 {
	var n int64
	for _, b := range bufs {
		n += int64(len(b))
	}
	return n
}
