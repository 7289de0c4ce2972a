package backup

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Suffix is that of the files in a Folder.
const Suffix = ".holdfast"

// Folder is a folder with backups of volumes, one file each: VOLUME-INDEX-full.holdfast, or VOLUME-INDEX-since-INDEX.holdfast.
type Folder string

// File is a backup in a file.
type File struct {
	Path string
	Summary
}

func (s *Summary) fileName() string {
	if s.Full() {
		return fmt.Sprintf("%s-%020d-full%s", s.Volume, s.Index, Suffix)
	}
	return fmt.Sprintf("%s-%020d-since-%020d%s", s.Volume, s.Index, s.Since, Suffix)
}

// Save reads a backup from r, which holds nothing else, and makes a file of it, whose name it bears once it is whole, checked and on the disk.
func (f Folder) Save(r io.Reader) (file File, err error) {
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return file, fmt.Errorf("backup: %w", err)
	}
	tmp, err := os.CreateTemp(string(f), ".incoming-")
	if err != nil {
		return file, fmt.Errorf("backup: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreClosed(tmp.Close()), os.Remove(tmp.Name()))
		}
	}()
	in := NewReader(io.TeeReader(r, tmp))
	if file.Summary, err = in.verify(); err != nil {
		return file, err
	}
	if _, err := in.Begin(); err != io.EOF {
		return file, fmt.Errorf("%w: something follows its end", ErrDamaged)
	}
	if name := file.Volume; name == "" || filepath.Base(name) != name || strings.HasPrefix(name, ".") {
		return file, fmt.Errorf("%w: it is of a volume named %q", ErrDamaged, name)
	}
	if err := tmp.Sync(); err != nil {
		return file, fmt.Errorf("backup: sync: %w", err)
	}
	if err := tmp.Close(); err != nil {
		return file, fmt.Errorf("backup: %w", err)
	}
	file.Path = filepath.Join(string(f), file.fileName())
	if err := os.Rename(tmp.Name(), file.Path); err != nil {
		return file, fmt.Errorf("backup: %w", err)
	}
	return file, f.sync()
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

func (f Folder) sync() error {
	d, err := os.Open(string(f))
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("backup: sync %s: %w", f, err)
	}
	return nil
}

// List returns the backups of a volume, by index. A file that is not whole is an error.
func (f Folder) List(volume string) ([]File, error) {
	entries, err := os.ReadDir(string(f))
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	var files []File
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !strings.HasSuffix(e.Name(), Suffix) {
			continue
		}
		file := File{Path: filepath.Join(string(f), e.Name())}
		if file.Summary, err = inspectPath(file.Path); err != nil {
			return nil, fmt.Errorf("%s: %w", file.Path, err)
		}
		if file.Volume == volume {
			files = append(files, file)
		}
	}
	slices.SortFunc(files, func(a, b File) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.Since, b.Since))
	})
	return files, nil
}

func inspectPath(path string) (Summary, error) {
	f, err := os.Open(path)
	if err != nil {
		return Summary{}, fmt.Errorf("backup: %w", err)
	}
	defer func() { _ = f.Close() }() // read only
	st, err := f.Stat()
	if err != nil {
		return Summary{}, fmt.Errorf("backup: %w", err)
	}
	return Inspect(f, st.Size())
}

// Files returns the backups in the named files, a full one and those that continue it, in this order. It is ErrChain if they do not.
func Files(paths ...string) ([]File, error) {
	if len(paths) == 0 {
		return nil, fmt.Errorf("%w: no file is named", ErrChain)
	}
	var files []File
	var last Summary
	for _, path := range paths {
		s, err := inspectPath(path)
		if err == nil {
			err = follows(&last, &s.Header)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		files, last = append(files, File{Path: path, Summary: s}), s
	}
	return files, nil
}

// Chain returns the backups from which the volume can be restored as of index, the full one first; 0 stands for the newest. The last one's index is the Since of a backup that
// is to continue the chain.
func (f Folder) Chain(volume string, index uint64) ([]File, error) {
	files, err := f.List(volume)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%w: %s holds no backup of volume %s", ErrChain, f, volume)
	}
	if index == 0 {
		index = files[len(files)-1].Index
	}
	var chain []File
	for at := index; ; {
		// Where a full one is as new as one that continues others, it is all that is needed.
		i := slices.IndexFunc(files, func(file File) bool { return file.Index == at })
		if i < 0 {
			return nil, fmt.Errorf("%w: %s holds no backup of volume %s at %d, which is needed for %d", ErrChain, f, volume, at, index)
		}
		chain = append(chain, files[i])
		if files[i].Full() {
			slices.Reverse(chain)
			return chain, nil
		}
		at = files[i].Since
	}
}
