package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"holdfast/internal/rangelock"
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

// ErrCorrupt is returned by Load for keys or values that no Tables wrote.
var ErrCorrupt = errors.New("state: mirrored protocol state is malformed")

// maxOpaque bounds strings when they are read back; what was written is within the limits of its day.
const maxOpaque = 1 << 20

// Load replaces the tables by what a KV holds. scan calls its argument for every key and value, in key order; the slices need not
// outlive the call. Waiters are not among it: they are advisory. After an error the tables are empty.
func (t *Tables) Load(scan func(fn func(key, value []byte) error) error) error {
	*t = *NewTables(t.limits)
	l := loader{t: t, owners: make(map[uint64]*lockOwner)}
	if err := scan(l.record); err != nil {
		*t = *NewTables(t.limits)
		return fmt.Errorf("load NFSv4 state: %w", err)
	}
	return nil
}

// loader is what Load needs besides the tables.
type loader struct {
	t      *Tables
	owners map[uint64]*lockOwner // by id
	last   []byte                // the key before
}

func corrupt(key []byte, why string) error { return fmt.Errorf("%w: key %x: %s", ErrCorrupt, key, why) }

// keyBytes are the lengths of keys by their first byte; reclaimers' vary.
var keyBytes = map[byte]int{keyMeta: 1, keyClient: 9, keySession: 17, keySlot: 21, keyOpen: 9, keyLock: 9, keyRange: 25}

// record takes one key and value in.
func (l *loader) record(key, value []byte) error {
	if bytes.Compare(key, l.last) <= 0 {
		return corrupt(key, "out of order")
	}
	l.last = append(l.last[:0], key...)
	if want, ok := keyBytes[key[0]]; ok && len(key) != want {
		return corrupt(key, "wrong length")
	}
	d := xdr.NewDecoder(value)
	var err error
	switch key[0] {
	case keyMeta:
		err = l.meta(key, d)
	case keyReclaimer:
		l.t.reclaimers[string(key[1:])] = true
	case keyClient:
		l.client(key, d)
	case keySession:
		err = l.session(key, d)
	case keySlot:
		return l.slot(key, value)
	case keyOpen:
		err = l.open(key, d)
	case keyLock:
		err = l.lock(key, d)
	case keyRange:
		err = l.lockRange(key, d)
	default:
		return corrupt(key, "unknown table")
	}
	if err != nil {
		return err
	}
	if err := d.Err(); err != nil {
		return corrupt(key, err.Error())
	}
	if d.Remaining() > 0 {
		return corrupt(key, "trailing bytes")
	}
	return nil
}

func (l *loader) meta(key []byte, d *xdr.Decoder) error {
	v := d.Uint32()
	if v != formatVersion && v != graceVersion {
		return corrupt(key, fmt.Sprintf("format %d", v))
	}
	l.t.instance = d.Uint32()
	l.t.nextClient = d.Uint32()
	l.t.next = d.Uint64()
	l.t.grace = d.Bool()
	if v == graceVersion {
		l.t.graceUntil = d.Int64()
	}
	return nil
}

func (l *loader) client(key []byte, d *xdr.Decoder) {
	c := &client{id: ClientID(binary.BigEndian.Uint64(key[1:]))}
	c.owner = d.String(maxOpaque)
	copy(c.verifier[:], d.Fixed(len(c.verifier)))
	c.principal.Flavor = d.Uint32()
	c.principal.UID = d.Uint32()
	c.principal.Name = d.String(maxOpaque)
	c.addr = d.String(maxOpaque)
	c.impl = d.String(maxOpaque)
	c.confirmed = d.Bool()
	c.reclaimComplete = d.Bool()
	c.createSeq = d.Uint32()
	c.createUsed = d.Bool()
	c.createResult = slices.Clone(d.Opaque(maxOpaque))
	l.t.addClient(c)
}

func channel(d *xdr.Decoder) (a ChannelAttrs) {
	for _, v := range [...]*uint32{&a.HeaderPad, &a.MaxRequest, &a.MaxResponse, &a.MaxCached, &a.MaxOps, &a.MaxRequests} {
		*v = d.Uint32()
	}
	return a
}

func (l *loader) session(key []byte, d *xdr.Decoder) error {
	s := &session{id: SessionID(key[1:])}
	s.client = l.t.clients[s.id.Client()]
	s.flags = d.Uint32()
	s.fore = channel(d)
	s.back = channel(d)
	s.cbProgram = d.Uint32()
	s.cbSec = slices.Clone(d.Opaque(maxOpaque))
	if s.client == nil || s.fore.MaxRequests > l.t.limits.Slots {
		return corrupt(key, "no client, or too many slots")
	}
	l.t.addSession(s)
	return nil
}

func (l *loader) slot(key, value []byte) error {
	s := l.t.sessions[SessionID(key[1:17])]
	n := binary.BigEndian.Uint32(key[17:])
	if s == nil || uint64(n) >= uint64(len(s.slots)) || len(value) < slotHeaderBytes {
		return corrupt(key, "no session, no such slot, or short value")
	}
	s.slots[n] = slices.Clone(value)
	l.t.countReply(s.client, len(s.slots[n].reply()))
	return nil
}

func (l *loader) open(key []byte, d *xdr.Decoder) error {
	c := l.t.clients[ClientID(d.Uint64())]
	ino := volume.Ino(d.Uint64())
	o := &open{id: binary.BigEndian.Uint64(key[1:]), client: c, seqid: d.Uint32(), combos: uint16(d.Uint32())}
	o.owner = d.String(maxOpaque)
	if c == nil || d.Err() != nil {
		return corrupt(key, "no client, or bad value")
	}
	l.t.addOpen(o, ino)
	return nil
}

func (l *loader) lock(key []byte, d *xdr.Decoder) error {
	o := l.t.opens[d.Uint64()]
	ownerID := d.Uint64()
	ls := &lockState{id: binary.BigEndian.Uint64(key[1:]), open: o, seqid: d.Uint32()}
	name := d.String(maxOpaque)
	if o == nil || d.Err() != nil {
		return corrupt(key, "no open, or bad value")
	}
	ls.owner = l.owners[ownerID]
	if ls.owner == nil {
		ls.owner = &lockOwner{id: ownerID, client: o.client, owner: name}
		l.owners[ownerID] = ls.owner
	}
	l.t.addLockState(ls)
	return nil
}

func (l *loader) lockRange(key []byte, d *xdr.Decoder) error {
	f := l.t.files[volume.Ino(binary.BigEndian.Uint64(key[1:]))]
	owner := l.owners[binary.BigEndian.Uint64(key[9:])]
	r := rangelock.Range{Start: binary.BigEndian.Uint64(key[17:]), End: d.Uint64()}
	write := d.Bool()
	if f == nil || owner == nil || r.End < r.Start {
		return corrupt(key, "no file, no lock owner, or bad range")
	}
	before := f.locks.Len()
	f.locks.Lock(owner, r, write, nil)
	if f.locks.Len() != before+1 {
		return corrupt(key, "overlapping ranges")
	}
	l.t.countRanges(owner.client, 1)
	return nil
}
