package state

import (
	"cmp"
	"slices"

	"holdfast/internal/volume"
)

// ClientView is one client for a status display.
type ClientView struct {
	ID              ClientID
	Owner           string
	Addr, Impl      string
	Principal       Principal
	Confirmed       bool
	ReclaimComplete bool
	Sessions        []SessionView
	Opens, Locks    int
}

// SessionView is one session.
type SessionView struct {
	ID         SessionID
	Slots      uint32
	ReplyBytes int // recorded
	BackChan   bool
}

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

// Clients returns all clients, by id.
func (t *Tables) Clients() []ClientView {
	out := make([]ClientView, 0, len(t.clients))
	for _, c := range t.sortedClients() {
		v := ClientView{
			ID: c.id, Owner: c.owner, Addr: c.addr, Impl: c.impl, Principal: c.principal,
			Confirmed: c.confirmed, ReclaimComplete: c.reclaimComplete, Opens: len(c.opens), Locks: c.ranges,
		}
		for _, s := range c.sessions {
			sv := SessionView{ID: s.id, Slots: uint32(len(s.slots)), BackChan: s.flags&SessionBackChan != 0}
			for _, sl := range s.slots {
				sv.ReplyBytes += len(sl.reply())
			}
			v.Sessions = append(v.Sessions, sv)
		}
		out = append(out, v)
	}
	return out
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

// Counts are the sizes of the tables, for metrics.
type Counts struct {
	Clients, Sessions, Files, Opens, LockStates int
}

// Counts returns the sizes of the tables.
func (t *Tables) Counts() Counts {
	return Counts{len(t.clients), len(t.sessions), len(t.files), len(t.opens), len(t.locks)}
}
