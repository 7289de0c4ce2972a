package node

import (
	"encoding/binary"

	"holdfast/internal/volume"
)

// report is what a replica tells the leader with its heartbeats.
type report struct {
	Free  uint64 // bytes
	Total uint64
	// Below tells that the replica is below its reserve.
	Below bool
	// Digest of the whole state at DigestIndex, the index of the last check.
	DigestIndex uint64
	Digest      volume.Digest
	// DigestBusy: file data changed while it was digested, so the digest means nothing.
	DigestBusy bool
	// Digesting: the digest is still to come.
	Digesting bool
	// Unreadable: there is no digest of DigestIndex, as the copy is damaged.
	Unreadable bool
	// Damaged: the copy is known to be damaged.
	Damaged bool
	// NoRoom: the replica was sent a copy that did not fit, and is not to be sent another one yet.
	NoRoom bool
}

const (
	reportBytes           = 8 + 8 + 1 + 8 + 32
	reportBelow      byte = 1
	reportBusy       byte = 2
	reportDigesting  byte = 4
	reportUnreadable byte = 8
	reportDamaged    byte = 16
	reportNoRoom     byte = 32
)

func (r *report) encode() []byte {
	b := make([]byte, 0, reportBytes)
	b = binary.BigEndian.AppendUint64(b, r.Free)
	b = binary.BigEndian.AppendUint64(b, r.Total)
	var flags byte
	if r.Below {
		flags |= reportBelow
	}
	if r.DigestBusy {
		flags |= reportBusy
	}
	if r.Digesting {
		flags |= reportDigesting
	}
	if r.Unreadable {
		flags |= reportUnreadable
	}
	if r.Damaged {
		flags |= reportDamaged
	}
	if r.NoRoom {
		flags |= reportNoRoom
	}
	b = append(b, flags)
	b = binary.BigEndian.AppendUint64(b, r.DigestIndex)
	return append(b, r.Digest[:]...)
}

// decodeReport reads a peer's report; ok is false for one of another release.
func decodeReport(b []byte) (r report, ok bool) {
	if len(b) != reportBytes {
		return r, false
	}
	r.Free = binary.BigEndian.Uint64(b)
	r.Total = binary.BigEndian.Uint64(b[8:])
	r.Below = b[16]&reportBelow != 0
	r.DigestBusy = b[16]&reportBusy != 0
	r.Digesting = b[16]&reportDigesting != 0
	r.Unreadable = b[16]&reportUnreadable != 0
	r.Damaged = b[16]&reportDamaged != 0
	r.NoRoom = b[16]&reportNoRoom != 0
	r.DigestIndex = binary.BigEndian.Uint64(b[17:])
	copy(r.Digest[:], b[25:])
	return r, true
}
