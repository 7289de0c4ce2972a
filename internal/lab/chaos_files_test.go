package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// filesGone kills a node and starts it again without the files of its copy, as when a file system is not mounted. In the end they are back: if the node has gone on without them it
// refuses them, and goes on with the newer ones.
func filesGone(ctx context.Context, _ *Cluster, n *Node) (func() error, error) {
	dirs, err := filepath.Glob(filepath.Join(n.Data, "volumes", "*"))
	if err != nil || len(dirs) != 1 {
		return nil, fmt.Errorf("folders of volumes: %v, %w", dirs, err)
	}
	f := copyFiles{n: n, dir: dirs[0], old: filepath.Join(n.Data, "old-files"), newer: filepath.Join(n.Data, "newer-files")}
	if err := n.Process.Kill(); err != nil {
		return nil, err
	}
	if err := os.Rename(f.dir, f.old); err != nil {
		return nil, err
	}
	return func() error { return f.bringBack(ctx) }, n.Start()
}

// copyFiles are those of a node's copy: dir is where they belong.
type copyFiles struct {
	n               *Node
	dir, old, newer string
}

// bringBack starts the node with its old files.
func (f copyFiles) bringBack(ctx context.Context) error {
	if err := f.swap(f.newer, f.old); err != nil {
		return err
	}
	outdated, err := f.outdated()
	if err != nil {
		return err
	}
	if err := f.n.Start(); err != nil {
		return err
	}
	if !outdated {
		return os.RemoveAll(f.newer)
	}
	if err := f.awaitRefusal(ctx); err != nil {
		return err
	}
	if err := f.swap(f.old, f.newer); err != nil {
		return err
	}
	return errors.Join(f.n.Start(), os.RemoveAll(f.old))
}

// swap ends the node, moves its files to one folder and takes those of another.
func (f copyFiles) swap(to, from string) error {
	if err := f.n.Process.Kill(); err != nil {
		return err
	}
	if err := os.Rename(f.dir, to); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Rename(from, f.dir)
}

// outdated reports whether the node has gone on without the files that are in place.
func (f copyFiles) outdated() (bool, error) {
	var parts map[string]struct{ Incarnation uint64 }
	var meta struct{ Incarnation uint64 }
	for file, v := range map[string]any{filepath.Join(f.n.Data, "groups.json"): &parts, filepath.Join(f.dir, "replica.json"): &meta} {
		text, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(text, v)
		}
		if err != nil {
			return false, fmt.Errorf("%s: %w", file, err)
		}
	}
	number := f.dir[strings.LastIndex(f.dir, "-")+1:]
	return meta.Incarnation < parts[number].Incarnation, nil
}

// awaitRefusal waits until the node's status says that the files are old.
func (f copyFiles) awaitRefusal(ctx context.Context) error {
	for {
		v, err := f.n.volume(ctx, clusterVolume)
		if err == nil && strings.Contains(strings.Join(v.Problems, "\n"), "its files are older than what it has promised since") {
			return nil
		}
		if paused := f.n.Process.pause(ctx, pollEvery); paused != nil {
			return fmt.Errorf("node %s does not say that its files are old: %w; %v, %v; its log:\n%s", f.n.Name, paused, v.Problems, err, f.n.Log(40))
		}
	}
}
