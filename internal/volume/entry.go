package volume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"holdfast/internal/rpc"
)

// EntryKind says what a log entry asks of the state machine.
type EntryKind uint8

// The kinds of entry.
const (
	EntryCall    EntryKind = 1 // an RPC call: header, then the record as it came off the wire
	EntryExports EntryKind = 2 // replaces the export table: payload of EncodeExports
	EntryCommand EntryKind = 3 // Program.Command: prog u32, vers u32, payload
	EntryClient  EntryKind = 4 // a client's connection opened (Client, payload 1) or closed (payload 0), for tickle ACKs
	EntryVersion EntryKind = 5 // raises the cluster version: payload u32
	EntrySpace   EntryKind = 6 // replicated space figures: payload total u64, free u64
	EntryMark    EntryKind = 7 // changes nothing: a point in the log that replicas compare themselves at
	EntryLimit   EntryKind = 8 // sets the volume's limit: payload of LimitPayload
	// EntryRestored says that the state is that of a backup; Restorer.Finish applies it: payload index of the backup u64.
	EntryRestored EntryKind = 9
)

// Entry is one command of the log. The encoded header is padded to a multiple of 8 bytes and has room in front of a record: see HeaderBytes.
type Entry struct {
	Kind EntryKind
	// Proposal identifies the proposer's waiter: node<<48 | counter. Replicas that did not propose it ignore it.
	Proposal uint64
	Time     int64
	Client   netip.AddrPort
	Full     bool
	SeqFlags uint32
	Random   uint64
	Rules    []Rule
	Payload  []byte // aliases the entry when decoded
}

// entry header: kind u8, flags u8, rules u16, header length u32, proposal u64, time i64, seqflags u32, port u16, zero u16, random u64, address 16 bytes; then 16 bytes a rule.
const (
	entryFixedBytes = 56
	ruleBytes       = 16
	flagFull        = 1
)

// HeaderBytes returns the length of the header that AppendHeader writes for n rules.
func HeaderBytes(n int) int { return entryFixedBytes + n*ruleBytes }

// AppendHeader appends the encoding of everything but the payload to b.
func (e *Entry) AppendHeader(b []byte) []byte {
	var flags byte
	if e.Full {
		flags |= flagFull
	}
	b = append(b, byte(e.Kind), flags)
	b = binary.BigEndian.AppendUint16(b, uint16(len(e.Rules)))
	b = binary.BigEndian.AppendUint32(b, uint32(HeaderBytes(len(e.Rules))))
	b = binary.BigEndian.AppendUint64(b, e.Proposal)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Time))
	b = binary.BigEndian.AppendUint32(b, e.SeqFlags)
	b = binary.BigEndian.AppendUint16(b, e.Client.Port())
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint64(b, e.Random)
	var addr [16]byte
	if e.Client.Addr().IsValid() {
		addr = e.Client.Addr().As16()
	}
	b = append(b, addr[:]...)
	for _, r := range e.Rules {
		b = binary.BigEndian.AppendUint32(b, r.Export)
		var ro byte
		if r.ReadOnly {
			ro = 1
		}
		b = append(b, ro, byte(r.Squash), 0, 0)
		b = binary.BigEndian.AppendUint32(b, r.AnonUID)
		b = binary.BigEndian.AppendUint32(b, r.AnonGID)
	}
	return b
}

// Encode returns the whole entry in a new slice.
func (e *Entry) Encode() []byte {
	b := make([]byte, 0, HeaderBytes(len(e.Rules))+len(e.Payload))
	return append(e.AppendHeader(b), e.Payload...)
}

// ErrBadEntry is returned for a log entry that no release of Holdfast wrote.
var ErrBadEntry = errors.New("volume: log entry is malformed")

// DecodeEntry decodes b into e. Payload aliases b.
func DecodeEntry(b []byte, e *Entry) error {
	if len(b) < entryFixedBytes {
		return fmt.Errorf("%w: %d bytes", ErrBadEntry, len(b))
	}
	rules := int(binary.BigEndian.Uint16(b[2:]))
	header := int(binary.BigEndian.Uint32(b[4:]))
	if header != HeaderBytes(rules) || header > len(b) {
		return fmt.Errorf("%w: header of %d bytes for %d rules", ErrBadEntry, header, rules)
	}
	*e = Entry{
		Kind:     EntryKind(b[0]),
		Full:     b[1]&flagFull != 0,
		Proposal: binary.BigEndian.Uint64(b[8:]),
		Time:     int64(binary.BigEndian.Uint64(b[16:])),
		SeqFlags: binary.BigEndian.Uint32(b[24:]),
		Random:   binary.BigEndian.Uint64(b[32:]),
		Payload:  b[header:],
	}
	addr := netip.AddrFrom16([16]byte(b[40:56])).Unmap()
	e.Client = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[28:]))
	if rules > 0 {
		e.Rules = make([]Rule, rules)
	}
	for i := range e.Rules {
		r := b[entryFixedBytes+i*ruleBytes:]
		e.Rules[i] = Rule{
			Export:   binary.BigEndian.Uint32(r),
			ReadOnly: r[4] != 0,
			Squash:   SquashMode(r[5]),
			AnonUID:  binary.BigEndian.Uint32(r[8:]),
			AnonGID:  binary.BigEndian.Uint32(r[12:]),
		}
	}
	return nil
}

// Request returns the call of an EntryCall as an interpreter takes it.
func (e *Entry) Request(index uint64, req *Request) error {
	*req = Request{Client: e.Client, Time: e.Time, Index: index, Rules: e.Rules, Full: e.Full, SeqFlags: e.SeqFlags, Random: e.Random}
	return rpc.ParseCall(e.Payload, &req.Call)
}
