package doctor

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func repeat(d time.Duration, n int) (all []time.Duration) {
	for range n {
		all = append(all, d)
	}
	return all
}

// TestJudge checks what is made of the facts: the status, and a part of what is said.
func TestJudge(t *testing.T) {
	const ms = time.Millisecond
	peer := Peer{Name: "n2", Address: "n2:7420"}
	late := Peer{Name: "n2", ClockKnown: true, ClockOffset: -2 * time.Second}
	hour := Peer{Name: "n2", ClockKnown: true, ClockOffset: time.Hour}
	near := Peer{Name: "n2", ClockKnown: true, ClockOffset: 3 * ms}
	slow := Peer{Name: "n2", ClockKnown: true, ClockOffset: 1200 * ms, ClockUncertainty: 300 * ms}
	synced := clockState{synchronised: true, daemons: []string{"chronyd"}}
	one := func(f finding) []finding { return []finding{f} }
	tests := []struct {
		name string
		in   []finding
		want Status
		says string
	}{
		{"clock", judgeClock(synced, []Peer{peer, near}), OK, "chronyd"},
		{"clock by the hypervisor", judgeClock(clockState{synchronised: true}, nil), OK, "synchronised"},
		{"clock unsynchronised", judgeClock(clockState{daemons: []string{"ntpd"}}, nil), Warning, "although ntpd runs"},
		{"clock without a daemon", judgeClock(clockState{}, nil), Warning, "nothing runs"},
		{"clocks differ", judgeClock(synced, []Peer{near, late}), Warning, "2s behind this one"},
		{"clocks differ much", judgeClock(synced, []Peer{hour}), Problem, "1h0m0s ahead of this one"},
		{"a clock that could not be read well", judgeClock(synced, []Peer{slow}), OK, "chronyd"},
		{"clocks agree", []finding{judgeOffset(&near)}, OK, "to within 4ms"},
		{"clocks may agree", []finding{judgeOffset(&slow)}, OK, "to within 1.501s"},

		{"no pause", judgePauses(3*ms, 0), OK, "3ms"},
		{"pause", judgePauses(60*ms, 0), Warning, "60ms"},
		{"long pause", judgePauses(160*ms, 0), Problem, "160ms"},
		{"steal", judgePauses(ms, 30), Warning, "30 %"},

		{"ext4", judgeKind(unix.EXT4_SUPER_MAGIC), OK, "ext4"},
		{"xfs", judgeKind(unix.XFS_SUPER_MAGIC), OK, "xfs"},
		{"nfs", judgeKind(unix.NFS_SUPER_MAGIC), Problem, "another machine"},
		{"tmpfs", judgeKind(unix.TMPFS_MAGIC), Problem, "in memory"},
		{"overlay", judgeKind(unix.OVERLAYFS_SUPER_MAGIC), Problem, "container"},
		{"btrfs", judgeKind(unix.BTRFS_SUPER_MAGIC), Warning, "btrfs"},
		{"unknown file system", judgeKind(1), Warning, "0x1"},

		{"space", judgeSpace(50<<30, 100<<30, 1<<30), OK, "50.0 GiB of 100 GiB"},
		{"space near the reserve", judgeSpace(15<<30, 100<<30, 10<<30), Warning, "15.0 GiB"},
		{"space near the end", judgeSpace(9<<30, 100<<30, 1<<30), Warning, "9.0 GiB"},
		{"space below the reserve", judgeSpace(9<<30, 20<<30, 10<<30), Problem, "9.0 GiB"},
		{"inodes", judgeInodes(1e6, 2e6), OK, "1000000"},
		{"few inodes", judgeInodes(4e4, 1e6), Warning, "40000"},
		{"no inodes", judgeInodes(100, 1e6), Problem, "100"},
		{"inodes as needed", judgeInodes(0, 0), OK, "as they are needed"},

		{"fsync", judgeSync(repeat(500*time.Microsecond, 100), disk{name: "nvme0n1", cached: true}), OK, "500µs"},
		{"fsync of a platter", judgeSync(repeat(8*ms, 50), disk{name: "sda", rotational: true, cached: true}), OK, "rotating disk sda with a write cache"},
		{"fsync without a cache", judgeSync(repeat(12*time.Microsecond, 100), disk{name: "nvme0n1"}), OK, "12µs"},
		{"fsync too fast for a platter", judgeSync(repeat(9*time.Microsecond, 100), disk{name: "sda", rotational: true}), Problem, "acknowledges"},
		{"fsync too fast for a cache", judgeSync(repeat(9*time.Microsecond, 100), disk{name: "vda", virtual: true, cached: true}), Problem, "acknowledges"},
		{"fsync suspicious", judgeSync(repeat(9*time.Microsecond, 100), disk{name: "nvme0n1", cached: true}), Warning, "faster"},
		{"fsync of a platter with a controller", judgeSync(repeat(200*time.Microsecond, 100), disk{name: "sda", rotational: true}), Warning, "faster"},
		{"fsync slow", judgeSync(repeat(30*ms, 20), disk{}), Warning, "unknown disk"},
		{"fsync very slow", judgeSync(repeat(130*ms, 6), disk{}), Problem, "130ms"},
		{"fsync stalls", judgeSync(append(repeat(ms, 20), 600*ms), disk{}), Warning, "600ms"},

		{"memory", judgeMemory(parseMeminfo("MemTotal: 16000000 kB\nMemAvailable: 12000000 kB\nSwapTotal: 1000 kB\nSwapFree: 1000 kB\n")), OK, "15.3 GiB"},
		{"little memory", judgeMemory(parseMeminfo("MemTotal: 900000 kB\nMemAvailable: 500000 kB\n")), Warning, "879 MiB"},
		{"no memory left", judgeMemory(parseMeminfo("MemTotal: 16000000 kB\nMemAvailable: 100000 kB\n")), Problem, "97.7 MiB"},
		{"swapped", judgeMemory(parseMeminfo("MemTotal: 4000000 kB\nMemAvailable: 3000000 kB\nSwapTotal: 4000000 kB\nSwapFree: 2000000 kB")), Warning, "swapped out"},
		{"memory unknown", judgeMemory(nil), Skipped, ""},
		{"kernel", judgeKernel("6.1.0-41-amd64"), OK, "6.1.0"},
		{"old kernel", judgeKernel("4.18.0-553.el8"), Warning, "older than 5.4"},
		{"strange kernel", judgeKernel("GNU"), Skipped, "GNU"},
		{"files", judgeFiles(1 << 20), OK, ""},
		{"few files", judgeFiles(20000), Warning, "20000"},
		{"too few files", judgeFiles(1024), Problem, "1024"},

		{"capabilities", judgeCapabilities(1<<capNetAdmin|1<<capNetRaw|1<<capNetBindService, 1024, []wanted{{port: 111}}, true, nil), OK, ""},
		{"capabilities not needed", judgeCapabilities(0, 1024, []wanted{{port: 2049}}, false, nil), OK, ""},
		{"no net admin", judgeCapabilities(1<<capNetRaw, 1024, nil, true, nil), Problem, "CAP_NET_ADMIN"},
		{"no net raw", judgeCapabilities(1<<capNetAdmin, 1024, nil, true, nil), Problem, "CAP_NET_RAW"},
		{"no low port", judgeCapabilities(0, 1024, []wanted{{port: 111, what: "the port mapper"}}, false, nil), Problem, "port 111"},
		{"no tun", judgeCapabilities(1<<capNetAdmin|1<<capNetRaw, 1024, nil, true, os.ErrNotExist), Warning, "/dev/net/tun"},

		{"peer", judgePeer(peer, ms, nil), OK, "1ms"},
		{"peer far", judgePeer(peer, 30*ms, nil), Warning, "30ms"},
		{"peer too far", judgePeer(peer, 200*ms, nil), Problem, "200ms"},
		{"peer refuses", judgePeer(peer, 0, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}), Problem, "refuses"},
		{"peer silent", judgePeer(peer, 0, &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}), Problem, "does not answer"},
		{"peer unroutable", judgePeer(peer, 0, syscall.EHOSTUNREACH), Problem, "no way"},
		{"peer unknown", judgePeer(peer, 0, &net.DNSError{Err: "no such host", Name: "n2"}), Problem, "no such host"},
		{"peer otherwise", judgePeer(peer, 0, errors.New("odd")), Problem, "odd"},

		{"peer accepts NFS", one(judgeNFS(peer, "n2:2049", nil)), OK, "n2:2049"},
		{"peer refuses NFS", one(judgeNFS(peer, "n2:2049", syscall.ECONNREFUSED)), Warning, "n2:2049"},

		{"path", judgePath(peer, path{"eth0", 1500, 1500, true, true}), OK, "1500"},
		{"path narrow", judgePath(peer, path{"eth0", 9000, 1500, true, true}), Warning, "eth0 takes 9000"},
		{"path with a hole", judgePath(peer, path{"eth0", 9000, 9000, true, false}), Problem, "do not reach n2"},
		{"path unknown", judgePath(peer, path{"eth0", 1500, 1500, false, false}), Skipped, "does not say"},
		{"path of loopback", judgePath(peer, path{"lo", 65536, 65535, true, true}), OK, "65535"},
		{"devices differ", judgeDevices([]path{{device: "eth1", deviceMTU: 9000}, {device: "eth0", deviceMTU: 1500}, {device: "lo", deviceMTU: 65536}}), Warning, "eth0 1500, eth1 9000"},

		{"name", one(judgeName("n2", false, []netip.Addr{netip.MustParseAddr("192.0.2.1")}, ms, nil)), OK, "n2 is 192.0.2.1"},
		{"name slow", one(judgeName("n2", false, []netip.Addr{netip.MustParseAddr("192.0.2.1")}, time.Second, nil)), Warning, "took 1s"},
		{"name of another is here", one(judgeName("n2", false, []netip.Addr{netip.MustParseAddr("127.0.1.1")}, ms, nil)), Problem, "127.0.1.1"},
		{"own name", one(judgeName("n1", true, []netip.Addr{netip.MustParseAddr("127.0.1.1")}, ms, nil)), OK, "127.0.1.1"},
		{"own name unknown", one(judgeName("n1", true, nil, ms, errors.New("no such host"))), Warning, "no such host"},
		{"name unknown", one(judgeName("n2", false, nil, ms, errors.New("no such host"))), Problem, "no such host"},

		{"address occupied", one(judgeOccupied(Address{Prefix: netip.MustParsePrefix("192.0.2.1/24")}, "02:00:00:00:00:01", nil)), Problem, "02:00:00:00:00:01"},
		{"address free", one(judgeOccupied(Address{Prefix: netip.MustParsePrefix("192.0.2.1/24")}, "", nil)), OK, "Nobody"},
		{"address unknown", one(judgeOccupied(Address{Prefix: netip.MustParsePrefix("192.0.2.1/24")}, "", errors.New("odd"))), Skipped, "odd"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var r Result
			r.sum(tt.in)
			if r.Status != tt.want || !strings.Contains(r.Found, tt.says) {
				t.Errorf("it is %s: %q; want %s with %q", r.Status, r.Found, tt.want, tt.says)
			}
			if (r.Advice == "") != (r.Status == OK || r.Status == Skipped) {
				t.Errorf("advice of what is %s: %q", r.Status, r.Advice)
			}
		})
	}
}

func TestJudgeAddress(t *testing.T) {
	networks := []network{
		{name: "lo", up: true, prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}},
		{name: "eth0", up: true, prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")}},
		{name: "eth1", prefixes: []netip.Prefix{netip.MustParsePrefix("2001:db8::10/64")}},
	}
	for _, tt := range []struct {
		prefix, device string
		want           Status
		says           string
	}{
		{"192.0.2.50/24", "", OK, "eth0"},
		{"192.0.2.50/24", "eth0", OK, "eth0"},
		{"198.51.100.1/24", "eth0", OK, "eth0"},
		{"198.51.100.1/24", "", Problem, "No device"},
		{"192.0.2.10/24", "", Problem, "No device"}, // it is the device's only one itself
		{"192.0.2.50/24", "eth7", Problem, "does not have"},
		{"2001:db8::50/64", "", Problem, "down"},
	} {
		got := judgeAddress(Address{Prefix: netip.MustParsePrefix(tt.prefix), Device: tt.device}, networks)
		if got.status != tt.want || !strings.Contains(got.found, tt.says) {
			t.Errorf("%s on %q: %+v, want %s with %q", tt.prefix, tt.device, got, tt.want, tt.says)
		}
	}
}

type proberFunc func(addr netip.Addr, device string) (string, error)

func (f proberFunc) Probe(_ context.Context, addr netip.Addr, device string) (string, error) {
	return f(addr, device)
}

// TestProbe checks that neighbours are asked for an address, unless the cluster has it already.
func TestProbe(t *testing.T) {
	asked := 0
	cfg := &Config{
		Addresses: []Address{{Prefix: netip.MustParsePrefix("127.0.0.99/8"), Device: "lo"}},
		Prober:    proberFunc(func(netip.Addr, string) (string, error) { asked++; return "02:00:00:00:00:01", nil }),
	}
	if got := checkAddresses(t.Context(), nil, cfg); got[0].status != Problem || asked != 1 {
		t.Errorf("asked %d times: %+v", asked, got)
	}
	cfg.Addresses[0].Held = true
	if got := checkAddresses(t.Context(), nil, cfg); got[0].status != OK || asked != 1 {
		t.Errorf("asked %d times: %+v", asked, got)
	}
}
