package forward

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// A stream begins with
//
//	magic    4 bytes, "hfnf"
//	version  1 byte, 1
//	length   2 bytes: of what follows
//	volume   8 bytes
//	client   address: 1 byte length (4 or 16), the bytes of it, 2 bytes port
//	local    address, in the same form
//
// all big-endian. Bytes beyond these are for later releases, and ignored. The answer is one byte, a status; after statusServing the stream is the
// client's.
const (
	magic         = "hfnf"
	headerVersion = 1
	prefixBytes   = len(magic) + 1 + 2
	maxBodyBytes  = 512
)

// status is the answer to a header.
type status byte

const (
	statusServing    status = 1
	statusNotServing status = 2 // another node serves the volume, or nobody, or there is none
	statusBadHeader  status = 3
	statusFull       status = 4 // too many connections
)

func (s status) String() string {
	switch s {
	case statusServing:
		return "serves the volume"
	case statusNotServing:
		return "does not serve the volume"
	case statusBadHeader:
		return "does not understand the header: is it of another release?"
	case statusFull:
		return "has too many connections"
	default:
		return fmt.Sprintf("answered with status %d, which this release does not know", byte(s))
	}
}

// Header is what a stream says of the client whose connection it carries.
type Header struct {
	// Volume is the number of the volume's raft group.
	Volume uint64
	// Client is the client's address and port.
	Client netip.AddrPort
	// Local is the address and port that the client connected to.
	Local netip.AddrPort
}

// errHeader is the reason for refusing a stream.
var errHeader = errors.New("not the header of a forwarded connection")

// AppendBinary appends the encoded header to b. Both addresses must be valid.
func (h Header) AppendBinary(b []byte) ([]byte, error) {
	if !h.Client.IsValid() || !h.Local.IsValid() {
		return b, fmt.Errorf("forward: header without an address (client %v, local %v)", h.Client, h.Local)
	}
	b = append(b, magic...)
	b = append(b, headerVersion)
	at := len(b)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint64(b, h.Volume)
	b = appendAddr(b, h.Client)
	b = appendAddr(b, h.Local)
	binary.BigEndian.PutUint16(b[at:], uint16(len(b)-at-2))
	return b, nil
}

func appendAddr(b []byte, a netip.AddrPort) []byte {
	ip := a.Addr().Unmap().AsSlice()
	b = append(b, byte(len(ip)))
	b = append(b, ip...)
	return binary.BigEndian.AppendUint16(b, a.Port())
}

// readHeader reads a header and nothing beyond it.
func readHeader(r io.Reader) (Header, error) {
	var buf [prefixBytes + maxBodyBytes]byte
	if _, err := io.ReadFull(r, buf[:prefixBytes]); err != nil {
		return Header{}, fmt.Errorf("forward: reading a header: %w", err)
	}
	version, n := buf[len(magic)], int(binary.BigEndian.Uint16(buf[len(magic)+1:]))
	switch {
	case string(buf[:len(magic)]) != magic:
		return Header{}, errHeader
	case version != headerVersion:
		return Header{}, fmt.Errorf("%w: version %d, known is %d", errHeader, version, headerVersion)
	case n > maxBodyBytes:
		return Header{}, fmt.Errorf("%w: %d bytes long", errHeader, n)
	}
	body := buf[prefixBytes : prefixBytes+n]
	if _, err := io.ReadFull(r, body); err != nil {
		return Header{}, fmt.Errorf("forward: reading a header: %w", err)
	}
	return parseBody(body)
}

func parseBody(b []byte) (h Header, err error) {
	if len(b) < 8 {
		return h, fmt.Errorf("%w: too short", errHeader)
	}
	h.Volume = binary.BigEndian.Uint64(b)
	if h.Client, b, err = cutAddr(b[8:]); err != nil {
		return Header{}, err
	}
	if h.Local, _, err = cutAddr(b); err != nil {
		return Header{}, err
	}
	return h, nil
}

func cutAddr(b []byte) (_ netip.AddrPort, rest []byte, err error) {
	if len(b) == 0 {
		return netip.AddrPort{}, nil, fmt.Errorf("%w: too short", errHeader)
	}
	n := int(b[0])
	if n != 4 && n != 16 {
		return netip.AddrPort{}, nil, fmt.Errorf("%w: an address of %d bytes", errHeader, n)
	}
	if len(b) < 1+n+2 {
		return netip.AddrPort{}, nil, fmt.Errorf("%w: too short", errHeader)
	}
	ip, _ := netip.AddrFromSlice(b[1 : 1+n])
	return netip.AddrPortFrom(ip.Unmap(), binary.BigEndian.Uint16(b[1+n:])), b[1+n+2:], nil
}
