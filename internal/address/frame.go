package address

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// Protocol numbers that frames and packets carry.
const (
	etherTypeARP  = 0x0806
	etherTypeIPv6 = 0x86dd
	protoTCP      = 6
	protoICMPv6   = 58
)

// Messages and options of neighbour discovery (RFC 4861 section 4).
const (
	icmpSolicitation  = 135
	icmpAdvertisement = 136
	optSourceMAC      = 1
	optTargetMAC      = 2
)

// Operations of ARP (RFC 826).
const (
	arpRequest = 1
	arpReply   = 2
)

// minFrame is the length of the shortest Ethernet frame, without its checksum.
const minFrame = 60

// macAddr is a link address of Ethernet, as a key.
type macAddr [6]byte

func (a macAddr) String() string { return net.HardwareAddr(a[:]).String() }

var (
	broadcast   = macAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodes    = netip.MustParseAddr("ff02::1")
	allNodesMAC = macAddr{0x33, 0x33, 0, 0, 0, 1}
)

// arpFrame announces that ip is at mac, to everyone (RFC 5227 section 3 and RFC 2002 section 4.6): sender and target
// address are the same. Some stacks heed requests only and some replies only, so both are sent.
func arpFrame(mac net.HardwareAddr, ip netip.Addr, op uint16) []byte {
	target := make(net.HardwareAddr, 6)
	if op == arpReply {
		target = mac
	}
	return arp(broadcast, op, mac, ip, target, ip)
}

// arpProbe asks who has ip, without saying that anybody else has an address (RFC 5227 section 2.1.1).
func arpProbe(mac net.HardwareAddr, ip netip.Addr) []byte {
	return arp(broadcast, arpRequest, mac, netip.IPv4Unspecified(), make(net.HardwareAddr, 6), ip)
}

// arp is an ARP frame (RFC 826).
func arp(to macAddr, op uint16, senderMAC net.HardwareAddr, sender netip.Addr, targetMAC net.HardwareAddr, target netip.Addr) []byte {
	f := make([]byte, 0, minFrame)
	f = append(f, to[:]...)
	f = append(f, senderMAC...)
	f = binary.BigEndian.AppendUint16(f, etherTypeARP)
	f = append(f, 0, 1, 8, 0, 6, 4) // Ethernet, IPv4, lengths of their addresses
	f = binary.BigEndian.AppendUint16(f, op)
	f = append(f, senderMAC...)
	f = append(f, sender.AsSlice()...)
	f = append(f, targetMAC...)
	f = append(f, target.AsSlice()...)
	return f[:minFrame]
}

// Flags of a neighbour advertisement (RFC 4861 section 4.4).
const (
	flagSolicited = 0x40
	flagOverride  = 0x20
)

// advertisementFrame is an unsolicited neighbour advertisement to all nodes that overrides what they knew (RFC 4861
// sections 4.4 and 7.2.6).
func advertisementFrame(mac net.HardwareAddr, ip netip.Addr) []byte {
	return advertisement(mac, ip, allNodesMAC, allNodes, flagOverride)
}

// answerFrame answers a request or solicitation for m.asks with mac (RFC 826, RFC 4861 section 7.2.4). Who solicits without an address, as for
// duplicate address detection, is told together with all others.
func answerFrame(mac net.HardwareAddr, m *message) []byte {
	if m.asks.Is4() {
		return arp(m.mac, arpReply, mac, m.asks, m.mac[:], m.from)
	}
	if m.from.IsUnspecified() {
		return advertisementFrame(mac, m.asks)
	}
	return advertisement(mac, m.asks, m.mac, m.from, flagSolicited|flagOverride)
}

func advertisement(mac net.HardwareAddr, ip netip.Addr, toMAC macAddr, to netip.Addr, flags byte) []byte {
	icmp := []byte{icmpAdvertisement, 0, 0, 0, flags, 0, 0, 0}
	icmp = append(icmp, ip.AsSlice()...)
	icmp = append(icmp, optTargetMAC, 1) // 8 bytes long
	icmp = append(icmp, mac...)
	return neighbourFrame(mac, ip, toMAC, to, icmp)
}

// solicitationFrame asks who has ip, without saying that anybody else has an address, as duplicate address detection does (RFC 4862
// section 5.4.2).
func solicitationFrame(mac net.HardwareAddr, ip netip.Addr) []byte {
	group := solicitedNode(ip).As16()
	icmp := append([]byte{icmpSolicitation, 0, 0, 0, 0, 0, 0, 0}, ip.AsSlice()...)
	toMAC := macAddr{0x33, 0x33, group[12], group[13], group[14], group[15]}
	return neighbourFrame(mac, netip.IPv6Unspecified(), toMAC, netip.AddrFrom16(group), icmp)
}

// solicitedNode is the multicast group that solicitations for ip go to (RFC 4291 section 2.7.1).
func solicitedNode(ip netip.Addr) netip.Addr {
	group, a := netip.MustParseAddr("ff02::1:ff00:0").As16(), ip.As16()
	copy(group[13:], a[13:])
	return netip.AddrFrom16(group)
}

// neighbourFrame puts a message of neighbour discovery, whose checksum is zero as yet, into a frame.
func neighbourFrame(mac net.HardwareAddr, from netip.Addr, toMAC macAddr, to netip.Addr, icmp []byte) []byte {
	binary.BigEndian.PutUint16(icmp[2:], checksum(pseudoHeader(from, to, protoICMPv6, len(icmp)), icmp))
	f := append(toMAC[:], mac...)
	f = binary.BigEndian.AppendUint16(f, etherTypeIPv6)
	f = append(f, ipv6Header(from, to, protoICMPv6, 255, len(icmp))...)
	return append(f, icmp...)
}

// tickle is a TCP segment from server to client with nothing but the ACK flag and a sequence number that fits nowhere, in
// an IP packet of its own.
func tickle(server, client netip.AddrPort) []byte {
	tcp := make([]byte, 20)
	binary.BigEndian.PutUint16(tcp[0:], server.Port())
	binary.BigEndian.PutUint16(tcp[2:], client.Port())
	tcp[12] = 5 << 4                           // length of the header, in words
	tcp[13] = 0x10                             // ACK
	binary.BigEndian.PutUint16(tcp[14:], 1024) // window
	from, to := server.Addr(), client.Addr()
	binary.BigEndian.PutUint16(tcp[16:], checksum(pseudoHeader(from, to, protoTCP, len(tcp)), tcp))
	if from.Is4() {
		return append(ipv4Header(from, to, protoTCP, len(tcp)), tcp...)
	}
	return append(ipv6Header(from, to, protoTCP, 64, len(tcp)), tcp...)
}

// ipv4Header is a header without options or fragmentation (RFC 791 section 3.1).
func ipv4Header(from, to netip.Addr, proto byte, payload int) []byte {
	src, dst := from.As4(), to.As4()
	h := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, proto, 0, 0}
	h = append(h, src[:]...)
	h = append(h, dst[:]...)
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+payload))
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return h
}

// ipv6Header is a header without extensions (RFC 8200 section 3).
func ipv6Header(from, to netip.Addr, proto, hopLimit byte, payload int) []byte {
	src, dst := from.As16(), to.As16()
	h := []byte{0x60, 0, 0, 0}
	h = binary.BigEndian.AppendUint16(h, uint16(payload))
	h = append(h, proto, hopLimit)
	h = append(h, src[:]...)
	return append(h, dst[:]...)
}

// pseudoHeader is what the checksum of TCP (RFC 9293 section 3.1) and ICMPv6 (RFC 8200 section 8.1) covers besides the
// payload. The form of IPv6 sums up to the right value for IPv4 too.
func pseudoHeader(from, to netip.Addr, proto byte, payload int) []byte {
	h := append(from.AsSlice(), to.AsSlice()...)
	h = binary.BigEndian.AppendUint32(h, uint32(payload))
	return append(h, 0, 0, 0, proto)
}

// checksum is the Internet checksum (RFC 1071) of pieces of even length, one after the other.
func checksum(pieces ...[]byte) uint16 {
	var sum uint32
	for _, p := range pieces {
		for i := 0; i+1 < len(p); i += 2 {
			sum += uint32(p[i])<<8 | uint32(p[i+1])
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
