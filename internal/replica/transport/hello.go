package transport

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
)

// The hello of a connection:
//
//	dialer:   magic "HFT", version u8, kind u8, zero u8 x3, from u64, to u64, nonce 32 bytes, cluster length u8, cluster
//	acceptor: magic "HFT", version u8, refusal u8, zero u8 x3, nonce 32 bytes, proof 32 bytes
//	dialer:   proof 32 bytes
//	acceptor: refusal u8
//
// A proof is HMAC-SHA-256, keyed with the secret, of the side's name and everything that was said before it. An acceptor that refuses in its first answer closes then.
const (
	protocolVersion = 1

	helloBytes  = 8 + 16 + nonceBytes + 1
	answerBytes = 8 + nonceBytes + sha256.Size
	nonceBytes  = 32
	maxCluster  = 255
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
	refusedCluster
	refusedIdentity
	refusedProof
)

func (r refusal) Error() string {
	switch r {
	case refusedVersion:
		return "transport: the other side speaks another version of the protocol"
	case refusedCluster:
		return "transport: the other side belongs to another cluster"
	case refusedIdentity:
		return "transport: the other side has another idea of who is who"
	case refusedProof:
		return "transport: the secrets do not match"
	}
	return "transport: refused"
}

// errBadHello is returned for bytes that are no hello.
var errBadHello = errors.New("transport: the other side does not speak the protocol of Holdfast nodes")

// hello is what a dialer says about itself.
type hello struct {
	kind     kind
	from, to uint64
	nonce    [nonceBytes]byte
	cluster  string
}

func (h *hello) encode() []byte {
	b := make([]byte, 0, helloBytes+len(h.cluster))
	b = append(b, magic[:]...)
	b = append(b, protocolVersion, byte(h.kind), 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, h.from)
	b = binary.BigEndian.AppendUint64(b, h.to)
	b = append(b, h.nonce[:]...)
	b = append(b, byte(len(h.cluster)))
	return append(b, h.cluster...)
}

// readHello reads a dialer's hello and returns it with its bytes.
func readHello(r io.Reader) (hello, []byte, error) {
	b := make([]byte, helloBytes, helloBytes+maxCluster)
	if _, err := io.ReadFull(r, b); err != nil {
		return hello{}, nil, err
	}
	if [3]byte(b[:3]) != magic {
		return hello{}, nil, errBadHello
	}
	if b[3] != protocolVersion {
		return hello{}, b, refusedVersion
	}
	h := hello{kind: kind(b[4]), from: binary.BigEndian.Uint64(b[8:]), to: binary.BigEndian.Uint64(b[16:]), nonce: [nonceBytes]byte(b[24:])}
	if h.kind < kindControl || h.kind > kindSnapshot {
		return hello{}, nil, errBadHello
	}
	b = b[:helloBytes+int(b[helloBytes-1])]
	if _, err := io.ReadFull(r, b[helloBytes:]); err != nil {
		return hello{}, nil, err
	}
	h.cluster = string(b[helloBytes:])
	return h, b, nil
}

func proof(secret []byte, side string, said ...[]byte) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(side))
	for _, b := range said {
		mac.Write(b)
	}
	return mac.Sum(nil)
}

// greet does the dialer's part of a hello on conn.
func greet(conn net.Conn, secret []byte, h hello) error {
	if _, err := rand.Read(h.nonce[:]); err != nil {
		return fmt.Errorf("draw a nonce: %w", err)
	}
	first := h.encode()
	if _, err := conn.Write(first); err != nil {
		return err
	}
	answer := make([]byte, answerBytes)
	if _, err := io.ReadFull(conn, answer[:8]); err != nil {
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
	if _, err := io.ReadFull(conn, answer[8:]); err != nil {
		return err
	}
	said := answer[:8+nonceBytes]
	if !hmac.Equal(answer[8+nonceBytes:], proof(secret, "acceptor", first, said)) {
		return refusedProof
	}
	if _, err := conn.Write(proof(secret, "dialer", first, answer)); err != nil {
		return err
	}
	var last [1]byte
	if _, err := io.ReadFull(conn, last[:]); err != nil {
		return err
	}
	if last[0] != byte(accepted) {
		return refusal(last[0])
	}
	return nil
}

// welcome does the acceptor's part of a hello on conn. check says whether the dialer is who we expect.
func welcome(conn net.Conn, secret []byte, check func(h *hello) refusal) (hello, error) {
	h, first, err := readHello(conn)
	if err != nil && !errors.Is(err, refusedVersion) {
		return h, err
	}
	verdict := refusedVersion
	if err == nil {
		verdict = check(&h)
	}
	answer := slices.Concat(magic[:], []byte{protocolVersion, byte(verdict), 0, 0, 0})
	if verdict != accepted {
		_, err := conn.Write(answer)
		return h, errors.Join(verdict, err)
	}
	var nonce [nonceBytes]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return h, fmt.Errorf("draw a nonce: %w", err)
	}
	answer = append(answer, nonce[:]...)
	answer = append(answer, proof(secret, "acceptor", first, answer)...)
	if _, err := conn.Write(answer); err != nil {
		return h, err
	}
	theirs := make([]byte, sha256.Size)
	if _, err := io.ReadFull(conn, theirs); err != nil {
		return h, err
	}
	if !hmac.Equal(theirs, proof(secret, "dialer", first, answer)) {
		_, err := conn.Write([]byte{byte(refusedProof)})
		return h, errors.Join(refusedProof, err)
	}
	_, err = conn.Write([]byte{byte(accepted)})
	return h, err
}
