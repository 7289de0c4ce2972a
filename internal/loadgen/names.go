package loadgen

import (
	"context"
	"fmt"

	"holdfast/internal/nfsclient"
)

const namesDir = "names"

// names creates, renames and removes files. Nobody else knows the names, so a creation that finds its name taken, or a rename or removal that
// does not find it, was executed before: a retry that the server did not recognise.
type names struct {
	w      *Workload
	client Client
	dir    nfsclient.Handle
	next   uint64
	there  map[string]bool
	order  []string // what is there, oldest first
}

func (w *Workload) newNames(ctx context.Context) (worker, error) {
	c, err := w.mount(ctx)
	if err != nil {
		return nil, err
	}
	n := &names{w: w, client: c, there: make(map[string]bool)}
	if n.dir, err = c.Mkdir(ctx, w.dir, namesDir, 0o755); err != nil {
		return nil, fmt.Errorf("making %s: %w", namesDir, err)
	}
	return n, nil
}

func (n *names) step(ctx context.Context) error {
	id := n.next
	n.next++
	name, renamed := fmt.Sprintf("new-%08d", id), fmt.Sprintf("name-%08d", id)
	f, err := n.client.Open(ctx, n.dir, name, nfsclient.OpenOptions{Create: nfsclient.Guarded, Write: true})
	switch {
	case isStatus(err, nfsclient.ErrExist):
		n.w.findings.doubled(1, "creation of %s: it exists", name)
		n.note(name) // it must be there now
		return nil
	case err != nil:
		return fmt.Errorf("creating %s: %w", name, err)
	}
	if err := f.Close(ctx); err != nil {
		return fmt.Errorf("closing %s: %w", name, err)
	}
	err = n.client.Rename(ctx, n.dir, name, n.dir, renamed)
	switch {
	case isStatus(err, nfsclient.ErrNoEnt):
		n.w.findings.doubled(1, "rename of %s: it does not exist", name)
	case err != nil:
		return fmt.Errorf("renaming %s: %w", name, err)
	}
	n.note(renamed)
	n.w.did(3, 0)
	if len(n.order) > n.w.cfg.Names {
		return n.removeOldest(ctx)
	}
	return nil
}

func (n *names) note(name string) {
	n.there[name] = true
	n.order = append(n.order, name)
}

func (n *names) removeOldest(ctx context.Context) error {
	name := n.order[0]
	err := n.client.Remove(ctx, n.dir, name)
	switch {
	case isStatus(err, nfsclient.ErrNoEnt):
		n.w.findings.doubled(1, "removal of %s: it does not exist", name)
	case err != nil:
		return fmt.Errorf("removing %s: %w", name, err)
	}
	n.order = n.order[1:]
	delete(n.there, name)
	n.w.did(1, 0)
	return nil
}

// verify compares the folder with what must be in it. Names of a step that failed may be there or not.
func (n *names) verify(ctx context.Context, fresh Client) error {
	found := make(map[string]bool)
	err := fresh.ReadDir(ctx, n.dir, false, func(e nfsclient.DirEntry) error {
		found[e.Name] = true
		return nil
	})
	if err != nil {
		return fmt.Errorf("listing %s: %w", namesDir, err)
	}
	for _, name := range n.order {
		if !found[name] {
			n.w.findings.lost(1, "%s is not in %s", name, namesDir)
		}
	}
	errors, _ := n.w.findings.counts()
	for name := range found {
		if !n.there[name] && errors == 0 {
			n.w.findings.doubled(1, "%s is in %s although it was renamed or removed", name, namesDir)
		}
	}
	return nil
}
