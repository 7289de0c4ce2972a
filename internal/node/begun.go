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

	mu sync.Mutex
	// groups holds, by number, the index of the cluster's state as of which the group was begun here: a state that is older does not know of it.
	groups map[string]uint64
}

func loadBegun(data string) (*begun, error) {
	b := &begun{file: filepath.Join(data, "groups.json"), groups: map[string]uint64{}}
	text, err := os.ReadFile(b.file)
	if errors.Is(err, os.ErrNotExist) {
		return b, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &b.groups)
	}
	if err != nil {
		return nil, fmt.Errorf("read which volumes this node has: %w", err)
	}
	return b, nil
}

// has reports whether a group was begun here, and as of which index of the cluster's state.
func (b *begun) has(group uint64) (since uint64, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	since, ok = b.groups[strconv.FormatUint(group, 10)]
	return since, ok
}

// add notes durably that a group is begun.
func (b *begun) add(group, since uint64) error {
	if _, ok := b.has(group); ok {
		return nil
	}
	return b.change(func() { b.groups[strconv.FormatUint(group, 10)] = since })
}

// remove forgets a group whose files are gone for good.
func (b *begun) remove(group uint64) error {
	if _, ok := b.has(group); !ok {
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
