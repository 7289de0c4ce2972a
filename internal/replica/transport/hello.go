package transport

import (
	"encoding/binary"
	"errors"
	"io"
	"net"

	"holdfast/internal/link"
)

// The hello of a connection:
//
//	dialer:   magic "HFT", version u8, kind u8, zero u8 x3, from u64, to u64
//	acceptor: magic "HFT", version u8, refusal u8, zero u8 x3
//
// An acceptor that refuses closes then.
const (
	protocolVersion = 2

	helloBytes  = 8 + 16
	answerBytes = 8
)

var magic = [3]byte{'H', 'F', 'T'}

// kind is what a connection is for.
type kind byte

const (
	kindControl  kind = 1
	kindBulk     kind = 2
	kindSnapshot kind = 3
)

func (k kind) String() string {
	switch k {
	case kindControl:
		return "control"
	case kindBulk:
		return "bulk"
	case kindSnapshot:
		return "snapshot"
	}
	return "unknown"
}

// refusal is why an acceptor does not want a connection.
type refusal byte

const (
	accepted refusal = iota
	refusedVersion
	refusedIdentity
	refusedUnknown
)

func (r refusal) Error() string {
	switch r {
	case refusedVersion:
		return "transport: the other side speaks another version of the protocol"
	case refusedIdentity:
		return "transport: the other side has another idea of who is who"
	case refusedUnknown:
		return "transport: the other side does not know this node as one of its cluster, or not yet"
	}
	return "transport: refused"
}

// errBadHello is returned for bytes that are no hello.
var errBadHello = errors.New("transport: the other side does not speak the protocol of Holdfast nodes")

// hello is what a dialer says about itself.
type hello struct {
	kind     kind
	from, to uint64
}

func (h hello) encode() []byte {
	b := make([]byte, 0, helloBytes)
	b = append(b, magic[:]...)
	b = append(b, protocolVersion, byte(h.kind), 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, h.from)
	return binary.BigEndian.AppendUint64(b, h.to)
}

// decodeHello decodes a dialer's hello, of helloBytes.
func decodeHello(b []byte) (hello, error) {
	if [3]byte(b[:3]) != magic {
		return hello{}, errBadHello
	}
	if b[3] != protocolVersion {
		return hello{}, refusedVersion
	}
	h := hello{kind: kind(b[4]), from: binary.BigEndian.Uint64(b[8:]), to: binary.BigEndian.Uint64(b[16:])}
	if h.kind < kindControl || h.kind > kindSnapshot {
		return hello{}, errBadHello
	}
	return h, nil
}

// greet does the dialer's part of a hello on conn.
func greet(conn net.Conn, h hello) error {
	if _, err := conn.Write(h.encode()); err != nil {
		return err
	}
	var answer [answerBytes]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return err
	}
	switch {
	case [3]byte(answer[:3]) != magic:
		return errBadHello
	case answer[4] != byte(accepted):
		return refusal(answer[4])
	case answer[3] != protocolVersion:
		return refusedVersion
	}
	return nil
}

// welcome does the acceptor's part of a hello on conn. check says whether the dialer is who we expect.
func welcome(conn *link.Conn, check func(h hello) refusal) (hello, error) {
	var b [helloBytes]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		return hello{}, err
	}
	h, err := decodeHello(b[:])
	verdict := refusedVersion
	switch {
	case err == nil && conn.Peer().Node != h.from:
		verdict = refusedIdentity
	case err == nil:
		verdict = check(h)
	case !errors.Is(err, refusedVersion):
		return h, err
	}
	answer := [answerBytes]byte{magic[0], magic[1], magic[2], protocolVersion, byte(verdict)}
	if _, err := conn.Write(answer[:]); err != nil {
		return h, err
	}
	if verdict != accepted {
		return h, verdict
	}
	return h, nil
}
