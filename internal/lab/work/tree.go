package work

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	registry["tree"] = with(tree)
	registry["tree-unpack"] = with(treePart(unpack))
	registry["tree-compare"] = with(treePart(func(root string, archive []byte) error {
		return errors.Join(dropCaches(), compareTree(root, archive))
	}))
}

// treePart is one part of what tree does, for trees that are to stay.
func treePart(part func(root string, archive []byte) error) func(context.Context, TreeArgs, func(any)) (any, error) {
	return func(_ context.Context, args TreeArgs, _ func(any)) (any, error) {
		archive, err := makeTar(args.Files)
		if err != nil {
			return nil, err
		}
		return nil, part(filepath.Join(args.Dir, "tree"), archive)
	}
}

// TreeArgs says where a tree is to be unpacked, and how large it is.
type TreeArgs struct {
	Dir   string
	Files int
}

// TreeResult is how long each part took.
type TreeResult struct {
	UnpackMillis, CompareMillis, RemoveMillis int64
}

// tree unpacks an archive of many files, compares what the server then has with the archive, and removes it.
func tree(ctx context.Context, args TreeArgs, _ func(any)) (TreeResult, error) {
	var r TreeResult
	archive, err := makeTar(args.Files)
	if err != nil {
		return r, err
	}
	root := filepath.Join(args.Dir, "tree")
	timed := func(millis *int64, f func() error) error {
		start := time.Now()
		defer func() { *millis = time.Since(start).Milliseconds() }()
		return errors.Join(ctx.Err(), f())
	}
	if err := timed(&r.UnpackMillis, func() error { return unpack(root, archive) }); err != nil {
		return r, fmt.Errorf("unpack: %w", err)
	}
	if err := dropCaches(); err != nil {
		return r, err
	}
	if err := timed(&r.CompareMillis, func() error { return compareTree(root, archive) }); err != nil {
		return r, fmt.Errorf("compare: %w", err)
	}
	if err := timed(&r.RemoveMillis, func() error { return os.RemoveAll(root) }); err != nil {
		return r, fmt.Errorf("remove: %w", err)
	}
	if _, err := os.Lstat(root); !errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("after removal: %v", err)
	}
	return r, nil
}

// makeTar makes an archive like that of a source tree: folders of 20 files, mostly small, some symlinks and hard links.
func makeTar(files int) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	when := time.Unix(1_600_000_000, 0)
	for i := range files {
		dir := fmt.Sprintf("pkg%02d/sub%d", i/100, i/20%5)
		if i%20 == 0 {
			for _, d := range []string{filepath.Dir(dir), dir} {
				if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: d + "/", Mode: 0o755, ModTime: when}); err != nil {
					return nil, err
				}
			}
		}
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: fmt.Sprintf("%s/file%d.c", dir, i), Mode: 0o644,
			ModTime: when.Add(time.Duration(i) * time.Second), Uid: i % 3, Gid: i % 5,
		}
		var data []byte
		switch {
		case i%20 == 7:
			h.Typeflag, h.Linkname = tar.TypeSymlink, fmt.Sprintf("file%d.c", i-1)
		case i%20 == 13:
			h.Typeflag, h.Linkname = tar.TypeLink, fmt.Sprintf("%s/file%d.c", dir, i-1)
		default:
			data = pattern(uint64(i), i*i%16384) // 5 KiB in the middle
			if i%20 == 3 {
				h.Mode = 0o755
			}
		}
		h.Size = int64(len(data))
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return out.Bytes(), err
}

// eachEntry calls f for the entries of an archive.
func eachEntry(archive []byte, f func(h *tar.Header, data []byte) error) error {
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if err := f(h, data); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

// unpack does what tar does as root: create, write, set owner, mode and times.
func unpack(root string, archive []byte) error {
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	return eachEntry(archive, func(h *tar.Header, data []byte) error {
		path := filepath.Join(root, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			return nil
		case tar.TypeSymlink:
			return os.Symlink(h.Linkname, path)
		case tar.TypeLink:
			return os.Link(filepath.Join(root, h.Linkname), path)
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = f.Write(data)
		t := unix.NsecToTimespec(h.ModTime.UnixNano())
		return errors.Join(err,
			f.Chown(h.Uid, h.Gid),
			f.Chmod(os.FileMode(h.Mode)),
			unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{t, t}, 0),
			f.Close())
	})
}

func compareTree(root string, archive []byte) error {
	want := make(map[string]bool)
	err := eachEntry(archive, func(h *tar.Header, data []byte) error {
		path := filepath.Join(root, h.Name)
		want[filepath.Clean(h.Name)] = true
		switch h.Typeflag {
		case tar.TypeDir:
			return nil
		case tar.TypeSymlink:
			got, err := os.Readlink(path)
			if err == nil && got != h.Linkname {
				err = fmt.Errorf("points to %s, want %s", got, h.Linkname)
			}
			return err
		case tar.TypeLink:
			a, err := stat(path)
			if err != nil {
				return err
			}
			b, err := stat(filepath.Join(root, h.Linkname))
			if err == nil && (a.Ino != b.Ino || a.Nlink != 2) {
				err = fmt.Errorf("is not the same file as %s", h.Linkname)
			}
			return err
		}
		st, err := stat(path)
		if err != nil {
			return err
		}
		if int64(st.Mode) != unix.S_IFREG|h.Mode || int(st.Uid) != h.Uid || int(st.Gid) != h.Gid || st.Mtim.Sec != h.ModTime.Unix() {
			return fmt.Errorf("mode %o, owner %d:%d, time %d; want %o, %d:%d, %d",
				st.Mode, st.Uid, st.Gid, st.Mtim.Sec, h.Mode, h.Uid, h.Gid, h.ModTime.Unix())
		}
		return sameContent(path, data)
	})
	if err != nil {
		return err
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if rel, _ := filepath.Rel(root, path); rel != "." && !want[rel] {
			return fmt.Errorf("%s is there but was not unpacked", rel)
		}
		return nil
	})
}
