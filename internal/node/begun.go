package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"holdfast/internal/vfs"
)

// begun is what this node durably knows of the raft groups that it ever took part in and has not been released from. A group that is not in it may begin without
// asking the others what this node has forgotten (replica.Config.Fresh); one that is in it, and whose files are gone, may not.
type begun struct {
	file string
	// missing: there is no such file, as on a node that has never run.
	missing bool

	mu     sync.Mutex
	groups map[string]part // by number
}

// part is this node's part in a group.
type part struct {
	// Since is the index of the cluster's state as of which it was begun: a state that is older does not know of it.
	Since uint64 `json:"since"`
	// Part is the number that it has there (cluster.Volume.Parts).
	Part uint32 `json:"part"`
	// Incarnation is how often it has come back there without its files (replica.IncarnationStore).
	Incarnation uint64 `json:"incarnation,omitempty"`
}

// UnmarshalJSON takes what the first release wrote as well: the index alone.
func (p *part) UnmarshalJSON(b []byte) error {
	type plain part
	if *p = (part{}); json.Unmarshal(b, &p.Since) == nil {
		return nil
	}
	return json.Unmarshal(b, (*plain)(p))
}

func loadBegun(data string) (*begun, error) {
	b := &begun{file: filepath.Join(data, "groups.json"), groups: map[string]part{}}
	text, err := os.ReadFile(b.file)
	if errors.Is(err, os.ErrNotExist) {
		b.missing = true
		return b, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &b.groups)
	}
	if err != nil {
		return nil, fmt.Errorf("%s, which says in which volumes this node has a part, cannot be read: %w. Without it the node does not know what it has promised the others: "+
			"restore the file, or take a new machine in this one's place with `holdfast node replace`", b.file, err)
	}
	return b, nil
}

// errMissing is why a node does not start that has run and has no such file: it is written before anything that the cluster says is.
func (b *begun) errMissing() error {
	return fmt.Errorf("%s, which says in which volumes this node has a part, is missing, although the node has been running: the data folder is not whole. Without it the node does not know what it has promised the others: "+
		"restore the file, or take a new machine in this one's place with `holdfast node replace`", b.file)
}

// get returns this node's part in a group, if it has one.
func (b *begun) get(group uint64) (p part, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok = b.groups[strconv.FormatUint(group, 10)]
	return p, ok
}

// add notes durably that a group is begun.
func (b *begun) add(group uint64, p part) error {
	if _, ok := b.get(group); ok {
		return nil
	}
	return b.change(func() { b.groups[strconv.FormatUint(group, 10)] = p })
}

// incarnations is the replica.IncarnationStore of a group.
type incarnations struct {
	begun *begun
	group uint64
}

func (i incarnations) Incarnation() uint64 {
	p, _ := i.begun.get(i.group)
	return p.Incarnation
}

// SetIncarnation leaves a group alone that is not begun: the next start notes it.
func (i incarnations) SetIncarnation(n uint64) error {
	p, ok := i.begun.get(i.group)
	if !ok {
		return nil
	}
	p.Incarnation = n
	return i.begun.change(func() { i.begun.groups[strconv.FormatUint(i.group, 10)] = p })
}

// remove forgets a group whose files are gone for good.
func (b *begun) remove(group uint64) error {
	if _, ok := b.get(group); !ok {
		return nil
	}
	return b.change(func() { delete(b.groups, strconv.FormatUint(group, 10)) })
}

// list returns the groups.
func (b *begun) list() []uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []uint64
	for text := range b.groups {
		if n, err := strconv.ParseUint(text, 10, 64); err == nil {
			all = append(all, n)
		}
	}
	return all
}

func (b *begun) change(f func()) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
	text, err := json.Marshal(b.groups)
	if err == nil {
		err = vfs.WriteFile(vfs.OS(), b.file, append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write down which volumes this node has: %w", err)
	}
	return nil
}
