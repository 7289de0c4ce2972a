package state

import (
	"cmp"
	"slices"

	"holdfast/internal/volume"
)

// OpenView is one open.
type OpenView struct {
	Client       ClientID
	Owner        string
	Ino          volume.Ino
	Access, Deny uint32
	LockStates   int
}

// LockView is one byte-range lock. Length is all ones for a lock to the end of file.
type LockView struct {
	Client         ClientID
	Owner          string
	Ino            volume.Ino
	Type           LockType
	Offset, Length uint64
}

func (t *Tables) sortedFiles() []*file {
	out := make([]*file, 0, len(t.files))
	for _, f := range t.files {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b *file) int { return cmp.Compare(a.ino, b.ino) })
	return out
}

// Opens returns all opens, by inode, then age.
func (t *Tables) Opens() []OpenView {
	out := make([]OpenView, 0, len(t.opens))
	for _, f := range t.sortedFiles() {
		for _, o := range f.opens {
			out = append(out, OpenView{o.client.id, o.owner, f.ino, o.access, o.deny, len(o.locks)})
		}
	}
	return out
}

// Locks returns all locks, by inode, then offset.
func (t *Tables) Locks() []LockView {
	var out []LockView
	for _, f := range t.sortedFiles() {
		first := len(out)
		for l := range f.locks.All() {
			d := denied(l)
			out = append(out, LockView{d.Client, d.Owner, f.ino, d.Type, d.Offset, d.Length})
		}
		slices.SortStableFunc(out[first:], func(a, b LockView) int { return cmp.Compare(a.Offset, b.Offset) })
	}
	return out
}

// Counts are the sizes of the tables.
type Counts struct {
	Clients, Sessions, Files, Opens, LockStates int
}

// Counts returns the sizes of the tables.
func (t *Tables) Counts() Counts {
	return Counts{len(t.clients), len(t.sessions), len(t.files), len(t.opens), len(t.locks)}
}

// OpenAccess returns the share access of the open behind an open or lock stateid of the file.
func (t *Tables) OpenAccess(client ClientID, ino volume.Ino, sid StateID) (access uint32, st Status) {
	o, _, st := t.resolve(client, ino, sid)
	if st != OK {
		return 0, st
	}
	return o.access, OK
}
