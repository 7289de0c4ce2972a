package nfs3

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"holdfast/internal/volume"
)

// The duplicate-request cache makes mutating calls happen exactly once: a client that lost its connection repeats the call with the same
// xid, maybe to another node, and gets the reply that was recorded. The cache is part of the replicated state: only calls that are applied
// look at it or change it, and what is evicted follows from the order of the log alone. Its limits are therefore part of
// the state machine too: changing one needs a new cluster version.
const (
	// drcEntries bounds the cache of a volume: some 10 MiB with its replies of at most some 300 bytes.
	drcEntries = 16384
	// drcClientEntries bounds what one client address may hold: all that a Linux client's 16 connections (nconnect) can have under way at a node with
	// rpc.DefaultMaxInflight calls each, so that after a failover even the oldest of them is recognised. WRITEs count too, and they come in such numbers.
	drcClientEntries = 4096
	// drcFairClients is up to how many clients the one with the most entries is looked for when the cache is full.
	drcFairClients = 256
	// drcProgram marks the cache's keys among the volume's protocol state.
	drcProgram = 3
)

// drcKey identifies a call. The client's port is left out: a client that reconnects may come from another one.
type drcKey struct {
	client [16]byte
	xid    uint32
	proc   uint32
	length uint32 // of the arguments
	sum    uint32 // CRC-32C of credentials and arguments
}

const drcKeyBytes = 32

// drcEntry is a recorded reply. All entries form a list in the order of the log, and so do those of one client.
type drcEntry struct {
	key        drcKey
	index      uint64 // of the log; the entry's key in the volume's metadata
	reply      []byte
	prev, next *drcEntry // of the whole cache
	younger    *drcEntry // the client's next entry
}

// drcClient is the list of one client's entries, oldest first.
type drcClient struct {
	oldest, youngest *drcEntry
	count            int
}

// replyCache is the duplicate-request cache of one volume.
type replyCache struct {
	entries          map[drcKey]*drcEntry
	clients          map[[16]byte]*drcClient
	oldest, youngest *drcEntry
}

func (rc *replyCache) reset() {
	*rc = replyCache{entries: make(map[drcKey]*drcEntry), clients: make(map[[16]byte]*drcClient)}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// keyOf returns the key of a request.
func keyOf(req *volume.Request) drcKey {
	call := &req.Call
	var id [12]byte
	binary.BigEndian.PutUint32(id[0:], call.Auth.Flavor)
	binary.BigEndian.PutUint32(id[4:], call.Auth.UID)
	binary.BigEndian.PutUint32(id[8:], call.Auth.GID)
	k := drcKey{
		xid:    call.XID,
		proc:   call.Proc,
		length: uint32(len(call.Args)),
		sum:    crc32.Update(crc32.Checksum(id[:], castagnoli), castagnoli, call.Args),
	}
	if addr := req.Client.Addr(); addr.IsValid() {
		k.client = addr.As16()
	}
	return k
}

// get returns the recorded reply of a call.
func (rc *replyCache) get(k *drcKey) ([]byte, bool) {
	if e, ok := rc.entries[*k]; ok {
		return e.reply, true
	}
	return nil, false
}

// add records the reply of the call that the entry at tx.Index holds.
func (rc *replyCache) add(tx *volume.Tx, k *drcKey, reply []byte) {
	value := make([]byte, 0, drcKeyBytes+len(reply))
	value = append(k.append(value), reply...)
	e := &drcEntry{key: *k, index: tx.Index(), reply: value[drcKeyBytes:]}
	rc.link(e)
	tx.Put(drcProgram, indexKey(e.index), value)
	for victim := rc.victim(k.client); victim != nil; victim = rc.victim(k.client) {
		rc.unlink(victim)
		tx.Del(drcProgram, indexKey(victim.index))
	}
}

// victim returns the entry that must go after client added one, or nil. When the whole cache is full, the client with the most entries pays,
// so that busy clients cannot push out what a silent one may still ask for.
func (rc *replyCache) victim(client [16]byte) *drcEntry {
	switch own := rc.clients[client]; {
	case own.count > drcClientEntries:
		return own.oldest
	case len(rc.entries) <= drcEntries:
		return nil
	case len(rc.clients) > drcFairClients:
		return rc.oldest
	}
	// The order of the map does not matter: no two clients have the same oldest entry.
	var most *drcClient
	for _, cl := range rc.clients {
		if most == nil || cl.count > most.count || cl.count == most.count && cl.oldest.index < most.oldest.index {
			most = cl
		}
	}
	return most.oldest
}

func (rc *replyCache) link(e *drcEntry) {
	rc.entries[e.key] = e
	if e.prev = rc.youngest; e.prev != nil {
		e.prev.next = e
	} else {
		rc.oldest = e
	}
	rc.youngest = e
	cl := rc.clients[e.key.client]
	if cl == nil {
		cl = &drcClient{oldest: e}
		rc.clients[e.key.client] = cl
	} else {
		cl.youngest.younger = e
	}
	cl.youngest = e
	cl.count++
}

// unlink removes an entry that is the oldest of its client, as every victim is.
func (rc *replyCache) unlink(e *drcEntry) {
	delete(rc.entries, e.key)
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		rc.oldest = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	} else {
		rc.youngest = e.prev
	}
	cl := rc.clients[e.key.client]
	cl.oldest = e.younger
	if cl.count--; cl.count == 0 {
		delete(rc.clients, e.key.client)
	}
}

// load replaces the cache by what the volume's metadata holds.
func (rc *replyCache) load(tx *volume.Tx) error {
	rc.reset()
	var last uint64
	return tx.ScanState(drcProgram, func(key, value []byte) error {
		if len(key) != 8 || len(value) < drcKeyBytes+statusBytes {
			return fmt.Errorf("nfs3: recorded reply %x is malformed", key)
		}
		index := binary.BigEndian.Uint64(key)
		if index <= last {
			return fmt.Errorf("nfs3: recorded reply %d follows %d", index, last)
		}
		last = index
		value = append([]byte(nil), value...)
		rc.link(&drcEntry{key: parseDRCKey(value), index: index, reply: value[drcKeyBytes:]})
		return nil
	})
}

// drop forgets all recorded replies.
func (rc *replyCache) drop(tx *volume.Tx) {
	for e := rc.oldest; e != nil; e = e.next {
		tx.Del(drcProgram, indexKey(e.index))
	}
	rc.reset()
}

func indexKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

func (k *drcKey) append(b []byte) []byte {
	b = append(b, k.client[:]...)
	b = binary.BigEndian.AppendUint32(b, k.xid)
	b = binary.BigEndian.AppendUint32(b, k.proc)
	b = binary.BigEndian.AppendUint32(b, k.length)
	return binary.BigEndian.AppendUint32(b, k.sum)
}

func parseDRCKey(b []byte) drcKey {
	return drcKey{
		client: [16]byte(b),
		xid:    binary.BigEndian.Uint32(b[16:]),
		proc:   binary.BigEndian.Uint32(b[20:]),
		length: binary.BigEndian.Uint32(b[24:]),
		sum:    binary.BigEndian.Uint32(b[28:]),
	}
}
