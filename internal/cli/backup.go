package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/internal/api"
	"holdfast/internal/backup"
	"holdfast/internal/config"
)

// saved is what a backup prints for programs.
type saved struct {
	Volume  string  `json:"volume"`
	File    string  `json:"file,omitempty"` // none: nothing has happened since the newest backup
	Index   uint64  `json:"index"`
	Since   uint64  `json:"since,omitempty"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

func newBackup(o *options) *cobra.Command {
	var incremental, mkdir bool
	cmd := &cobra.Command{
		Use:   "backup VOLUME FOLDER|FILE",
		Short: "Write a backup of a volume while it is in use",
		Long: `Write all of a volume, as it was at one moment, to a new file: in FOLDER, under a name with the volume and its log index in it, or to FILE. Clients notice nothing. Every
byte is checked before the file gets its name, so that a file with that name is whole. What a backup left that was killed, the next one in that folder removes.

A FOLDER that does not exist is refused, as its disk may not be mounted, and the backup would fill another one: name a folder inside of the backup disk, and make it once, with
--mkdir. What does not exist is meant to be a FILE, unless it ends with a slash.

With --incremental the file holds only what changed since the newest backup of the volume in FOLDER; where there is none yet, it is a full one. To restore, all files
from the full one on are needed.

Exit code: 0 when the backup is on the disk, 1 otherwise.`,
		Example: `  holdfast backup main /srv/backups/ --mkdir     # the first
  holdfast backup main /srv/backups/ --incremental
  holdfast backup main main.holdfast`,
		Args: cobra.ExactArgs(2),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return o.complete(volumeNames)(cmd, args, word)
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			volume, target := args[0], args[1]
			folder := isFolder(target)
			if incremental && !folder {
				return usagef("--incremental continues what is in a folder: name an existing one, or end the name with a slash")
			}
			if err := prepareTarget(target, folder, mkdir); err != nil {
				return err
			}
			var since uint64
			if incremental {
				var err error
				if since, err = newest(backup.Folder(target), volume); err != nil {
					return err
				}
			}
			c, err := o.client()
			if err != nil {
				return err
			}
			defer c.Close()
			if since != 0 {
				// Where nothing happens there is nothing to save, and a nightly job is not to fail.
				s, err := o.status(cmd.Context(), c)
				if err != nil {
					return err
				}
				if v := volumeStatus(&s, volume); v != nil && v.Applied == since {
					return o.print(saved{Volume: volume, Index: since, Since: since}, func() error {
						o.sayf("nothing has happened to volume %s since its newest backup, at index %d", volume, since)
						return nil
					})
				}
			}
			begin := time.Now()
			stream, err := c.Backup(cmd.Context(), volume, api.BackupOptions{Since: since})
			if err != nil {
				return err
			}
			defer stream.Close()
			p := o.progress()
			in := &meter{r: stream, say: p.say, what: "backup of volume " + volume, begin: begin}
			save := backup.SaveFile
			if folder {
				save = func(name string, r io.Reader) (backup.File, error) { return backup.Folder(name).Save(r) }
			}
			file, err := save(target, in)
			p.end()
			if err != nil {
				if in.err != nil {
					err = fmt.Errorf("the node ended the backup before it was whole; its log says why: %w", err)
				}
				return err
			}
			path, sum := file.Path, &file.Summary
			res := saved{Volume: volume, File: path, Index: sum.Index, Since: sum.Since, Bytes: sum.Bytes, Seconds: time.Since(begin).Seconds()}
			return o.print(res, func() error {
				kind := "all of it"
				if !sum.Full() {
					kind = fmt.Sprintf("what changed since index %d", sum.Since)
				}
				o.sayf("%s: volume %s at index %d, %s; %s in %s", path, volume, sum.Index, kind, bytesText(uint64(sum.Bytes)), spanText(time.Since(begin)))
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&incremental, "incremental", false, "only what changed since the newest backup in the folder")
	cmd.Flags().BoolVar(&mkdir, "mkdir", false, "make the folder if it does not exist")
	return cmd
}

// prepareTarget checks, before a node is asked, that there is where a backup is to be written.
func prepareTarget(target string, folder, mkdir bool) error {
	dir := target
	if !folder {
		if fileExists(target) {
			return usagef("%s is there already: remove it, or name another file or a folder", target)
		}
		dir = filepath.Dir(target)
	}
	if mkdir {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make the folder of the backup: %w", err)
		}
		return nil
	}
	info, err := os.Stat(filepath.Clean(dir)) // a slash at the end is of a folder only
	switch {
	case errors.Is(err, os.ErrNotExist):
		return usagef("there is no folder %s: if it is on a disk of its own, mount that; if it is really to be made, add --mkdir", dir)
	case err != nil:
		return fmt.Errorf("look for the folder of the backup: %w", err)
	case !info.IsDir():
		return usagef("%s is not a folder: name one, or a new file", dir)
	}
	return nil
}

func isFolder(target string) bool {
	info, err := os.Stat(target)
	return strings.HasSuffix(target, string(filepath.Separator)) || (err == nil && info.IsDir())
}

// newest returns the index of the newest backup of a volume in a folder, 0 if there is none.
func newest(folder backup.Folder, volume string) (uint64, error) {
	files, err := folder.List(volume)
	if err != nil || len(files) == 0 {
		return 0, err
	}
	// A chain with a gap is not worth continuing.
	chain, err := folder.Chain(volume, 0)
	if err != nil {
		return 0, fmt.Errorf("%w; without --incremental, a new full backup begins a new chain", err)
	}
	return chain[len(chain)-1].Index, nil
}

// meter counts what is read and tells of it.
type meter struct {
	r     io.Reader
	say   func(string)
	what  string
	begin time.Time
	total int64 // if known
	n     int64
	err   error // the first other than io.EOF
	last  time.Time
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	if err != nil && err != io.EOF && m.err == nil {
		m.err = err
	}
	if now := time.Now(); now.Sub(m.last) > defaultPoll {
		m.last = now
		m.say(m.text(now.Sub(m.begin)))
	}
	return n, err
}

func (m *meter) text(took time.Duration) string {
	text := m.what + ": " + bytesText(uint64(m.n))
	rate := float64(m.n) / max(took.Seconds(), 0.001)
	if m.total > 0 {
		text += " of " + bytesText(uint64(m.total))
	}
	text += ", " + bytesText(uint64(rate)) + "/s"
	if m.total > m.n && rate > 0 {
		text += ", " + spanText(time.Duration(float64(m.total-m.n)/rate*float64(time.Second))) + " left"
	}
	return text
}

func newRestore(o *options) *cobra.Command {
	var flags volumeFlags
	var from string
	var index uint64
	cmd := &cobra.Command{
		Use:   "restore VOLUME (FOLDER | FILE...) (--address IP/LENGTH | --listen IP:PORT)",
		Short: "Make a volume from backups",
		Long: `Make a new volume and fill it from backups: a full one, and those that continue it, in that order; from a FOLDER, the newest that there is, or the one at --index. The volume
must not exist yet. The backup has the files, but not the address and the exports: they are said here as for ` + "`holdfast volume create`" + `.

Exit code: 0 when the volume is served, 1 otherwise, 2 when what is asked for makes no sense.`,
		Example: `  holdfast restore main /srv/backups/ --address 10.0.0.50/24 --export /data --client '10.0.0.0/24:rw'
  holdfast restore lab /srv/backups/ --from main --address 10.0.0.59/24
  holdfast restore main full.holdfast monday.holdfast --address 10.0.0.50/24`,
		Args: cobra.MinimumNArgs(2),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			spec := config.NewVolume(args[0])
			if err := flags.apply(cmd, &spec); err != nil {
				return err
			}
			if from == "" {
				from = spec.Name
			}
			chain, err := chainOf(args[1:], from, index)
			if err != nil {
				return withCode(ExitUsage, err)
			}
			if err := o.restore(cmd, spec, chain); err != nil {
				return err
			}
			if err := o.awaitServed(cmd, spec.Name); err != nil {
				return err
			}
			return o.print(spec, func() error {
				last := chain[len(chain)-1]
				o.sayf("restored from %s, as of %s", last.Path, timeText(last.Ended))
				printMade(o, &spec)
				return nil
			})
		},
	}
	flags.register(o, cmd)
	cmd.Flags().StringVar(&flags.export, "export", "", "`path` of a first export")
	flags.clientFlag(cmd, "client", "who may use the export, as `WHO:OPTIONS`, see `holdfast export add`; may be repeated")
	cmd.Flags().StringVar(&from, "from", "", "`name` that the volume had when it was backed up, for a FOLDER (default: the same)")
	cmd.Flags().Uint64Var(&index, "index", 0, "the log index to restore from a FOLDER (default: the newest)")
	return cmd
}

// chainOf returns the backups to restore from, and checks that they continue each other.
func chainOf(names []string, volume string, index uint64) ([]backup.File, error) {
	if len(names) == 1 && isFolder(names[0]) {
		return backup.Folder(names[0]).Chain(volume, index)
	}
	if index != 0 {
		return nil, errors.New("--index chooses among the backups in a folder: name that, or leave --index out")
	}
	return backup.Files(names...)
}

// restore sends backups, one after the other.
func (o *options) restore(cmd *cobra.Command, spec config.VolumeSpec, chain []backup.File) error {
	c, err := o.client()
	if err != nil {
		return err
	}
	defer c.Close()
	var readers []io.Reader
	var total int64
	for _, file := range chain {
		f, err := os.Open(file.Path)
		if err != nil {
			return fmt.Errorf("read the backup: %w", err)
		}
		defer f.Close()
		readers = append(readers, f)
		total += file.Bytes
	}
	p := o.progress()
	defer p.end()
	in := &meter{r: io.MultiReader(readers...), say: p.say, what: "restoring volume " + spec.Name, begin: time.Now(), total: total}
	return c.Restore(cmd.Context(), spec, in)
}
