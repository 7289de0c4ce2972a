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

// Save reads a backup from r, which holds nothing else, and makes a file of it, whose name it bears once it is whole, checked and on the disk. The folder must exist: one that does not
// may be on a disk that is not mounted. What backups left there that were killed is removed.
func (f Folder) Save(r io.Reader) (File, error) {
	return save(string(f), r, func(s *Summary) (string, error) {
		if name := s.Volume; name == "" || filepath.Base(name) != name || strings.HasPrefix(name, ".") {
			return "", fmt.Errorf("%w: it is of a volume named %q", ErrDamaged, name)
		}
		return filepath.Join(string(f), s.fileName()), nil
	})
}

// SaveFile is Save to a file of any name, in a folder that exists.
func SaveFile(path string, r io.Reader) (File, error) {
	return save(filepath.Dir(path), r, func(*Summary) (string, error) { return path, nil })
}

func save(folder string, r io.Reader, path func(*Summary) (string, error)) (file File, err error) {
	in, err := receive(folder)
	if err != nil {
		return file, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, in.discard())
		}
	}()
	stream := NewReader(io.TeeReader(r, in))
	if file.Summary, err = stream.verify(); err != nil {
		return file, err
	}
	if _, err := stream.Begin(); err != io.EOF {
		return file, fmt.Errorf("%w: something follows its end", ErrDamaged)
	}
	if file.Path, err = path(&file.Summary); err != nil {
		return file, err
	}
	return file, in.finish(file.Path)
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
