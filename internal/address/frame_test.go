package address

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"strings"
	"testing"
)

var testMAC = net.HardwareAddr{0x02, 0x11, 0x22, 0x33, 0x44, 0x55}

// unhex reads bytes written in hexadecimal, with spaces for the eye.
func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The checksums in the bytes expected here and below were computed by another program.
func TestFrames(t *testing.T) {
	v4 := netip.MustParseAddr("10.94.0.100")
	v6 := netip.MustParseAddr("fd00::64")
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"gratuitous ARP request", arpFrame(testMAC, v4, arpRequest), `
			ffffffffffff 021122334455 0806
			0001 0800 06 04 0001 021122334455 0a5e0064 000000000000 0a5e0064
			000000000000000000000000000000000000`},
		{"gratuitous ARP reply", arpFrame(testMAC, v4, arpReply), `
			ffffffffffff 021122334455 0806
			0001 0800 06 04 0002 021122334455 0a5e0064 021122334455 0a5e0064
			000000000000000000000000000000000000`},
		{"unsolicited neighbour advertisement", advertisementFrame(testMAC, v6), `
			333300000001 021122334455 86dd
			60000000 0020 3a ff fd000000000000000000000000000064 ff020000000000000000000000000001
			88 00 f33c 20000000 fd000000000000000000000000000064 02 01 021122334455`},
		{"ARP probe", arpProbe(testMAC, v4), `
			ffffffffffff 021122334455 0806
			0001 0800 06 04 0001 021122334455 00000000 000000000000 0a5e0064
			000000000000000000000000000000000000`},
		{"ARP answer", answerFrame(testMAC, &message{mac: macAddr{2, 0, 0, 0, 0, 9}, asks: v4, from: netip.MustParseAddr("10.94.0.51")}), `
			020000000009 021122334455 0806
			0001 0800 06 04 0002 021122334455 0a5e0064 020000000009 0a5e0033
			000000000000000000000000000000000000`},
		{"solicitation without a source", solicitationFrame(testMAC, v6), `
			3333ff000064 021122334455 86dd
			60000000 0018 3a ff 00000000000000000000000000000000 ff0200000000000000000001ff000064
			87 00 7cdf 00000000 fd000000000000000000000000000064`},
		{"solicited neighbour advertisement", answerFrame(testMAC, &message{mac: macAddr{2, 0, 0, 0, 0, 9}, asks: v6, from: netip.MustParseAddr("fd00::33")}), `
			020000000009 021122334455 86dd
			60000000 0020 3a ff fd000000000000000000000000000064 fd000000000000000000000000000033
			88 00 b50c 60000000 fd000000000000000000000000000064 02 01 021122334455`},
	} {
		if want := unhex(t, c.want); !bytes.Equal(c.got, want) {
			t.Errorf("%s:\ngot  %x\nwant %x", c.name, c.got, want)
		}
	}
}

func TestTicklePacket(t *testing.T) {
	for _, c := range []struct{ server, client, want string }{
		{"10.94.0.100:2049", "10.94.0.51:801", `
			4500 0028 0000 4000 40 06 257e 0a5e0064 0a5e0033
			0801 0321 00000000 00000000 50 10 0400 8b60 0000`},
		{"[fd00::64]:2049", "[fd00::33]:801", `
			60000000 0014 06 40 fd000000000000000000000000000064 fd000000000000000000000000000033
			0801 0321 00000000 00000000 50 10 0400 a61a 0000`},
	} {
		got := tickle(netip.MustParseAddrPort(c.server), netip.MustParseAddrPort(c.client))
		if want := unhex(t, c.want); !bytes.Equal(got, want) {
			t.Errorf("%s to %s:\ngot  %x\nwant %x", c.server, c.client, got, want)
		}
	}
}

// TestChecksum is the example of RFC 1071 section 3, and the property that a receiver checks.
func TestChecksum(t *testing.T) {
	if got := checksum([]byte{0x00, 0x01, 0xf2, 0x03}, []byte{0xf4, 0xf5, 0xf6, 0xf7}); got != ^uint16(0xddf2) {
		t.Errorf("got %#x, want %#x", got, ^uint16(0xddf2))
	}
	if h := ipv4Header(netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.7"), protoTCP, 20); checksum(h) != 0 {
		t.Errorf("the header %x does not sum up to zero", h)
	}
}
