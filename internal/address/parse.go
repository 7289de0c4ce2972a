package address

import (
	"encoding/binary"
	"net/netip"
)

// message is what a frame of ARP or of neighbour discovery says.
type message struct {
	mac   macAddr    // who speaks
	claim netip.Addr // the address that the speaker has; invalid if it names none
	asks  netip.Addr // the address that the speaker asks for, in a request or solicitation; invalid otherwise
	from  netip.Addr // who asks; unspecified for a probe
}

// Offsets in the frames, and the least length of a message of neighbour discovery.
const (
	etherHeader  = 14
	arpLength    = 28
	ipv6HeaderSz = 40
	neighbourMin = 24
)

// parseFrame reads an Ethernet frame; false: it is none that says who has an address or asks for one.
func parseFrame(f []byte) (message, bool) {
	if len(f) < etherHeader {
		return message{}, false
	}
	switch body := f[etherHeader:]; binary.BigEndian.Uint16(f[12:]) {
	case etherTypeARP:
		return parseARP(body)
	case etherTypeIPv6:
		return parseNeighbour(macAddr(f[6:12]), body)
	default:
		return message{}, false
	}
}

// parseARP reads an ARP packet. A request with a sender is a claim as a reply is (RFC 5227 section 2.4); one without is a probe.
func parseARP(p []byte) (message, bool) {
	if len(p) < arpLength || string(p[:6]) != "\x00\x01\x08\x00\x06\x04" {
		return message{}, false
	}
	m := message{mac: macAddr(p[8:14]), from: netip.AddrFrom4([4]byte(p[14:18]))}
	if !m.from.IsUnspecified() {
		m.claim = m.from
	}
	if target := netip.AddrFrom4([4]byte(p[24:28])); binary.BigEndian.Uint16(p[6:]) == arpRequest && target != m.from && !target.IsUnspecified() {
		m.asks = target
	}
	return m, m.claim.IsValid() || m.asks.IsValid()
}

// parseNeighbour reads an IPv6 packet that is a solicitation or an advertisement, with the checks that RFC 4861 section 7.1 demands.
func parseNeighbour(sender macAddr, p []byte) (message, bool) {
	if len(p) < ipv6HeaderSz+neighbourMin || p[0]>>4 != 6 || p[6] != protoICMPv6 || p[7] != 255 {
		return message{}, false
	}
	n := int(binary.BigEndian.Uint16(p[4:]))
	if n < neighbourMin || n > len(p)-ipv6HeaderSz || n%2 != 0 {
		return message{}, false
	}
	from, to := netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40]))
	icmp := p[ipv6HeaderSz : ipv6HeaderSz+n]
	if icmp[1] != 0 || checksum(pseudoHeader(from, to, protoICMPv6, n), icmp) != 0 {
		return message{}, false
	}
	target := netip.AddrFrom16([16]byte(icmp[8:24]))
	if target.IsMulticast() || target.IsUnspecified() {
		return message{}, false
	}
	switch icmp[0] {
	case icmpSolicitation:
		m := message{mac: linkOption(icmp[neighbourMin:], optSourceMAC, sender), asks: target, from: from}
		if !from.IsUnspecified() {
			m.claim = from
		}
		return m, true
	case icmpAdvertisement:
		return message{mac: linkOption(icmp[neighbourMin:], optTargetMAC, sender), claim: target}, true
	default:
		return message{}, false
	}
}

// linkOption returns the link address in the option of that kind, or otherwise.
func linkOption(options []byte, kind byte, otherwise macAddr) macAddr {
	for len(options) >= 8 && options[1] > 0 && int(options[1])*8 <= len(options) {
		if options[0] == kind {
			return macAddr(options[2:8])
		}
		options = options[int(options[1])*8:]
	}
	return otherwise
}
