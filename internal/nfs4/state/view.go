package state

import "holdfast/internal/volume"

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
	Locks        int
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
func (t *Tables) Clients() []ClientView { panic("state: to come") }

// Opens returns all opens, by inode, then age.
func (t *Tables) Opens() []OpenView { panic("state: to come") }

// Locks returns all locks, by inode, then offset.
func (t *Tables) Locks() []LockView { panic("state: to come") }

// NextCounter returns the next number of the counter behind session ids and stateids.
func (t *Tables) NextCounter() uint64 { panic("state: to come") }
