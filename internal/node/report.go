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
}

const (
	reportBytes          = 8 + 8 + 1 + 8 + 32
	reportBelow     byte = 1
	reportBusy      byte = 2
	reportDigesting byte = 4
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
	r.DigestIndex = binary.BigEndian.Uint64(b[17:])
	copy(r.Digest[:], b[25:])
	return r, true
}
