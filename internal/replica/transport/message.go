package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"go.etcd.io/raft/v3/raftpb"
)

// A frame is
//
//	length u32 (of what follows the checksum), checksum u32 (CRC-32C of that), and a message:
//
//	group u64, type u8, flags u8, context length u16, entries u32,
//	from u64, to u64, term u64, log term u64, index u64, commit u64, reject hint u64,
//	context, a descriptor for each entry, the entries' data back to back
//
//	descriptor: term u64, data length u32, type u8, zero u8 x3
//
// Integers are big-endian. Entry i has index+1+i.
const (
	frameHeaderBytes = 8
	messageBytes     = 8 + 8 + 7*8
	descriptorBytes  = 16

	flagReject = 1
)

// Limits of a message.
const (
	// MaxFrameBytes bounds a frame. It must hold a message's entries: raft's limit for one message, or one entry that is larger than that.
	MaxFrameBytes   = 32 << 20
	maxContextBytes = 1 << 10
	maxEntries      = 1 << 18
)

// ErrBadFrame is what errors.Is finds in every error about bytes that no peer of ours sends.
var ErrBadFrame = errors.New("transport: malformed frame")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AppendFrame appends a message as a frame to bufs: one buffer with all but the data, and the data of the entries where they lie. It returns
// the number of bytes as well.
func AppendFrame(bufs [][]byte, group uint64, m *raftpb.Message) ([][]byte, int, error) {
	if len(m.Context) > maxContextBytes || len(m.Entries) > maxEntries {
		return bufs, 0, fmt.Errorf("transport: message with %d bytes of context and %d entries", len(m.Context), len(m.Entries))
	}
	head := make([]byte, frameHeaderBytes, frameHeaderBytes+messageBytes+len(m.Context)+len(m.Entries)*descriptorBytes)
	head = appendMessage(head, group, m)
	size := len(head) - frameHeaderBytes
	sum := uint32(0)
	for i := range m.Entries {
		e := &m.Entries[i]
		if e.Index != m.Index+1+uint64(i) {
			return bufs, 0, fmt.Errorf("transport: entry %d follows entry %d", e.Index, m.Index+uint64(i))
		}
		head = binary.BigEndian.AppendUint64(head, e.Term)
		head = binary.BigEndian.AppendUint32(head, uint32(len(e.Data)))
		head = append(head, byte(e.Type), 0, 0, 0)
		size += descriptorBytes + len(e.Data)
	}
	if size > MaxFrameBytes {
		return bufs, 0, fmt.Errorf("transport: message of %d bytes", size)
	}
	sum = crc32.Update(sum, castagnoli, head[frameHeaderBytes:])
	bufs = append(bufs, head)
	for i := range m.Entries {
		if d := m.Entries[i].Data; len(d) > 0 {
			sum = crc32.Update(sum, castagnoli, d)
			bufs = append(bufs, d)
		}
	}
	binary.BigEndian.PutUint32(head, uint32(size))
	binary.BigEndian.PutUint32(head[4:], sum)
	return bufs, frameHeaderBytes + size, nil
}

func appendMessage(b []byte, group uint64, m *raftpb.Message) []byte {
	b = binary.BigEndian.AppendUint64(b, group)
	var flags byte
	if m.Reject {
		flags |= flagReject
	}
	b = append(b, byte(m.Type), flags)
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.Context)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(m.Entries)))
	for _, v := range [...]uint64{m.From, m.To, m.Term, m.LogTerm, m.Index, m.Commit, m.RejectHint} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return append(b, m.Context...)
}

// DecodeMessage decodes what a frame holds. Entries and context alias b.
func DecodeMessage(b []byte) (group uint64, m raftpb.Message, err error) {
	if len(b) < messageBytes {
		return 0, m, fmt.Errorf("%w: %d bytes", ErrBadFrame, len(b))
	}
	group = binary.BigEndian.Uint64(b)
	if b[9]&^flagReject != 0 {
		return 0, m, fmt.Errorf("%w: flags %#x", ErrBadFrame, b[9])
	}
	context, entries := int(binary.BigEndian.Uint16(b[10:])), binary.BigEndian.Uint32(b[12:])
	if context > maxContextBytes || entries > maxEntries {
		return 0, m, fmt.Errorf("%w: %d bytes of context, %d entries", ErrBadFrame, context, entries)
	}
	m = raftpb.Message{Type: raftpb.MessageType(b[8]), Reject: b[9]&flagReject != 0}
	for i, v := range [...]*uint64{&m.From, &m.To, &m.Term, &m.LogTerm, &m.Index, &m.Commit, &m.RejectHint} {
		*v = binary.BigEndian.Uint64(b[16+8*i:])
	}
	b = b[messageBytes:]
	if len(b) < context+int(entries)*descriptorBytes || m.Index > math.MaxUint64-maxEntries {
		return 0, m, fmt.Errorf("%w: truncated", ErrBadFrame)
	}
	if context > 0 {
		m.Context = b[:context:context]
	}
	return group, m, decodeEntries(&m, b[context:], int(entries))
}

func decodeEntries(m *raftpb.Message, b []byte, n int) error {
	data := b[n*descriptorBytes:]
	if n > 0 {
		m.Entries = make([]raftpb.Entry, n)
	}
	for i := range m.Entries {
		d := b[i*descriptorBytes:]
		length := binary.BigEndian.Uint32(d[8:])
		if uint64(length) > uint64(len(data)) || d[12] > byte(raftpb.EntryConfChangeV2) || d[13]|d[14]|d[15] != 0 {
			return fmt.Errorf("%w: entry %d", ErrBadFrame, i)
		}
		m.Entries[i] = raftpb.Entry{Term: binary.BigEndian.Uint64(d), Index: m.Index + 1 + uint64(i), Type: raftpb.EntryType(d[12])}
		if length > 0 {
			m.Entries[i].Data = data[:length:length]
		}
		data = data[length:]
	}
	if len(data) > 0 {
		return fmt.Errorf("%w: %d bytes too many", ErrBadFrame, len(data))
	}
	return nil
}
