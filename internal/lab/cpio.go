package lab

import (
	"fmt"
	"io"
)

// File modes of the archive's entries, as in stat(2).
const (
	modeDir     = 0o040755
	modeFile    = 0o100644
	modeProgram = 0o100755
	modeCharDev = 0o020600
)

// archive writes a cpio archive in the "newc" format, the one that the kernel unpacks as an initramfs
// (Documentation/driver-api/early-userspace/buffer-format.rst).
type archive struct {
	w   io.Writer
	ino uint32
	err error
}

func (a *archive) dir(name string) { a.add(name, modeDir, 0, 0, nil) }

func (a *archive) charDev(name string, major, minor uint32) {
	a.add(name, modeCharDev, major, minor, nil)
}

func (a *archive) file(name string, mode uint32, data []byte) { a.add(name, mode, 0, 0, data) }

// add writes one entry; the first error sticks and is returned by close.
func (a *archive) add(name string, mode, major, minor uint32, data []byte) {
	if a.err != nil {
		return
	}
	a.ino++
	// magic, ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
	_, a.err = fmt.Fprintf(a.w, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		a.ino, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0, name)
	a.pad(110 + len(name) + 1)
	if a.err == nil {
		_, a.err = a.w.Write(data)
	}
	a.pad(len(data))
}

// pad aligns what follows n written bytes to 4.
func (a *archive) pad(n int) {
	if rest := n % 4; rest != 0 && a.err == nil {
		_, a.err = a.w.Write(make([]byte, 4-rest))
	}
}

func (a *archive) close() error {
	a.add("TRAILER!!!", 0, 0, 0, nil)
	return a.err
}
