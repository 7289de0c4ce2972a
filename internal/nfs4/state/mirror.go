package state

import (
	"encoding/binary"

	"holdfast/internal/rangelock"
	"holdfast/internal/volume"
)

// Keys are one byte for the table and big-endian fields, so that a scan in key order meets every record after those it refers to, and in
// the order in which they were made.
const (
	keyMeta      = 'a' // nothing more
	keyReclaimer = 'b' // client owner
	keyClient    = 'c' // client id
	keySession   = 'd' // session id
	keySlot      = 'e' // session id, slot
	keyOpen      = 'f' // counter of the stateid
	keyLock      = 'g' // counter of the stateid
	keyRange     = 'h' // inode, lock owner, start
)

// formatVersion is in the meta record. Another format needs another number, and a new cluster version.
const formatVersion = 1

// graceVersion is the format of a meta record during a grace period, in which only volumes of cluster version 2 can be.
const graceVersion = 2

func (t *Tables) metaKey() []byte {
	t.key = append(t.key[:0], keyMeta)
	return t.key
}

func (t *Tables) reclaimerKey(owner string) []byte {
	t.key = append(append(t.key[:0], keyReclaimer), owner...)
	return t.key
}

func (t *Tables) numberKey(table byte, n uint64) []byte {
	t.key = binary.BigEndian.AppendUint64(append(t.key[:0], table), n)
	return t.key
}

func (t *Tables) clientKey(id ClientID) []byte { return t.numberKey(keyClient, uint64(id)) }
func (t *Tables) openKey(id uint64) []byte     { return t.numberKey(keyOpen, id) }
func (t *Tables) lockKey(id uint64) []byte     { return t.numberKey(keyLock, id) }

func (t *Tables) sessionKey(id SessionID) []byte {
	t.key = append(append(t.key[:0], keySession), id[:]...)
	return t.key
}

func (t *Tables) slotKey(id SessionID, slot uint32) []byte {
	t.key = append(append(t.key[:0], keySlot), id[:]...)
	t.key = binary.BigEndian.AppendUint32(t.key, slot)
	return t.key
}

func (t *Tables) rangeKey(ino volume.Ino, owner, start uint64) []byte {
	t.numberKey(keyRange, uint64(ino))
	t.key = binary.BigEndian.AppendUint64(t.key, owner)
	t.key = binary.BigEndian.AppendUint64(t.key, start)
	return t.key
}

func (t *Tables) putMeta(kv KV) {
	e := &t.value
	e.Reset(e.Bytes()[:0])
	version := uint32(formatVersion)
	if t.grace {
		version = graceVersion
	}
	e.Uint32(version)
	e.Uint32(t.instance)
	e.Uint32(t.nextClient)
	e.Uint64(t.next)
	e.Bool(t.grace)
	if t.grace {
		e.Int64(t.graceUntil)
	}
	kv.Put(t.metaKey(), e.Bytes())
}

func (t *Tables) putClient(kv KV, c *client) {
	e := &t.value
	e.Reset(e.Bytes()[:0])
	e.String(c.owner)
	e.Fixed(c.verifier[:])
	e.Uint32(c.principal.Flavor)
	e.Uint32(c.principal.UID)
	e.String(c.principal.Name)
	e.String(c.addr)
	e.String(c.impl)
	e.Bool(c.confirmed)
	e.Bool(c.reclaimComplete)
	e.Uint32(c.createSeq)
	e.Bool(c.createUsed)
	e.Opaque(c.createResult)
	kv.Put(t.clientKey(c.id), e.Bytes())
}

func (t *Tables) putChannel(a *ChannelAttrs) {
	for _, v := range [...]uint32{a.HeaderPad, a.MaxRequest, a.MaxResponse, a.MaxCached, a.MaxOps, a.MaxRequests} {
		t.value.Uint32(v)
	}
}

func (t *Tables) putSession(kv KV, s *session) {
	e := &t.value
	e.Reset(e.Bytes()[:0])
	e.Uint32(s.flags)
	t.putChannel(&s.fore)
	t.putChannel(&s.back)
	e.Uint32(s.cbProgram)
	e.Opaque(s.cbSec)
	kv.Put(t.sessionKey(s.id), e.Bytes())
}

func (t *Tables) putOpen(kv KV, o *open) {
	e := &t.value
	e.Reset(e.Bytes()[:0])
	e.Uint64(uint64(o.client.id))
	e.Uint64(uint64(o.file.ino))
	e.Uint32(o.seqid)
	e.Uint32(uint32(o.combos))
	e.String(o.owner)
	kv.Put(t.openKey(o.id), e.Bytes())
}

func (t *Tables) putLockState(kv KV, l *lockState) {
	e := &t.value
	e.Reset(e.Bytes()[:0])
	e.Uint64(l.open.id)
	e.Uint64(l.owner.id)
	e.Uint32(l.seqid)
	e.String(l.owner.owner)
	kv.Put(t.lockKey(l.id), e.Bytes())
}

func (t *Tables) putRange(kv KV, ino volume.Ino, l rangelock.Lock[*lockOwner]) {
	e := &t.value
	e.Reset(e.Bytes()[:0])
	e.Uint64(l.End)
	e.Bool(l.Write)
	kv.Put(t.rangeKey(ino, l.Owner.id, l.Start), e.Bytes())
}
