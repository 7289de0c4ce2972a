package portmap

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/internal/rpc"
	"holdfast/internal/xdr"
)

var (
	addr4 = netip.MustParseAddr("10.94.0.100")
	addr6 = netip.MustParseAddr("fd00::64")
)

// testEntries is what a Server has of NFS(2049, 20048) at an address.
func testEntries(ip netip.Addr) []entry {
	s := New(Config{})
	s.Set([]Mapping{{Addr: ip, Services: NFS(2049, 20048)}})
	return s.entries(ip)
}

func call(prog, vers, proc uint32, args func(*xdr.Encoder)) []byte {
	e := xdr.NewEncoder(nil)
	rpc.AppendCall(e, 77, prog, vers, proc, &rpc.Auth{})
	if args != nil {
		args(e)
	}
	return e.Bytes()
}

func getPort(prog, vers, proto uint32) []byte {
	return call(rpc.ProgPortmap, versPortmap, procGet, func(e *xdr.Encoder) {
		for _, v := range []uint32{prog, vers, proto, 0} {
			e.Uint32(v)
		}
	})
}

func getAddr(rpcbVers, proc, prog, vers uint32, netID string) []byte {
	return call(rpc.ProgPortmap, rpcbVers, proc, func(e *xdr.Encoder) { appendRPCB(e, prog, vers, netID, "", "") })
}

// results executes a call and returns its results.
func results(t *testing.T, ip netip.Addr, proto uint32, record []byte) (*xdr.Decoder, error) {
	t.Helper()
	reply, err := answer(&question{record: record, local: ip, proto: proto, entries: testEntries(ip)})
	if err != nil {
		t.Fatal(err)
	}
	xid, res, err := rpc.ParseReply(reply)
	if xid != 77 {
		t.Errorf("xid %d", xid)
	}
	return xdr.NewDecoder(res), err
}

func TestGetPort(t *testing.T) {
	for _, c := range []struct{ prog, vers, proto, want uint32 }{
		{rpc.ProgNFS, 3, protoTCP, 2049},
		{rpc.ProgNFS, 4, protoTCP, 2049},
		{rpc.ProgNFS, 2, protoTCP, 2049}, // NFS itself says which versions it has
		{rpc.ProgNFS, 3, protoUDP, 0},
		{rpc.ProgMount, 3, protoTCP, 20048},
		{rpc.ProgPortmap, 2, protoUDP, 111},
		{rpc.ProgNLM, 4, protoTCP, 0},
	} {
		for _, by := range []uint32{protoTCP, protoUDP} {
			d, err := results(t, addr4, by, getPort(c.prog, c.vers, c.proto))
			if got := d.Uint32(); err != nil || got != c.want || d.Remaining() != 0 {
				t.Errorf("program %d version %d by %d: port %d, %v, want %d", c.prog, c.vers, c.proto, got, err, c.want)
			}
		}
	}
}

func TestGetAddr(t *testing.T) {
	for _, c := range []struct {
		ip         netip.Addr
		by         uint32
		proc       uint32
		prog, vers uint32
		netID      string
		want       string
	}{
		{addr4, protoTCP, procGet, rpc.ProgNFS, 3, "tcp", "10.94.0.100.8.1"},
		{addr4, protoTCP, procGet, rpc.ProgNFS, 3, "", "10.94.0.100.8.1"},
		{addr4, protoUDP, procGet, rpc.ProgNFS, 3, "tcp", "10.94.0.100.8.1"},
		{addr4, protoUDP, procGet, rpc.ProgNFS, 3, "", ""},
		{addr4, protoTCP, procGet, rpc.ProgNFS, 3, "tcp6", ""},
		{addr4, protoTCP, procGet, rpc.ProgMount, 1, "tcp", "10.94.0.100.78.80"},
		{addr4, protoTCP, procGetVersAddr, rpc.ProgMount, 1, "tcp", ""},
		{addr4, protoTCP, procGetVersAddr, rpc.ProgMount, 3, "tcp", "10.94.0.100.78.80"},
		{addr6, protoTCP, procGet, rpc.ProgNFS, 4, "tcp6", "fd00::64.8.1"},
		{addr6, protoTCP, procGet, rpc.ProgNFS, 4, "tcp", ""},
		{addr4, protoTCP, procGet, 300000, 1, "tcp", ""},
	} {
		d, err := results(t, c.ip, c.by, getAddr(versRPCBind4, c.proc, c.prog, c.vers, c.netID))
		if got := d.String(200); err != nil || got != c.want || d.Err() != nil || d.Remaining() != 0 {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
}

func TestDump(t *testing.T) {
	d, err := results(t, addr4, protoTCP, call(rpc.ProgPortmap, versPortmap, procDump, nil))
	if err != nil {
		t.Fatal(err)
	}
	var got []entry
	for d.Bool() {
		got = append(got, entry{d.Uint32(), d.Uint32(), d.Uint32(), uint16(d.Uint32())})
	}
	want := []entry{
		{rpc.ProgNFS, 3, protoTCP, 2049}, {rpc.ProgNFS, 4, protoTCP, 2049}, {rpc.ProgMount, 3, protoTCP, 20048},
		{rpc.ProgPortmap, 2, protoTCP, 111}, {rpc.ProgPortmap, 3, protoTCP, 111}, {rpc.ProgPortmap, 4, protoTCP, 111},
		{rpc.ProgPortmap, 2, protoUDP, 111}, {rpc.ProgPortmap, 3, protoUDP, 111}, {rpc.ProgPortmap, 4, protoUDP, 111},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(entry{})); diff != "" || d.Err() != nil || d.Remaining() != 0 {
		t.Errorf("%v, %s", d.Err(), diff)
	}
	d, err = results(t, addr6, protoTCP, call(rpc.ProgPortmap, versRPCBind3, procDump, nil))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for d.Bool() {
		prog, vers, id, addr := d.Uint32(), d.Uint32(), d.String(10), d.String(100)
		d.String(100)
		if n == 0 && (prog != rpc.ProgNFS || vers != 3 || id != "tcp6" || addr != "fd00::64.8.1") {
			t.Errorf("%d, %d, %s, %s", prog, vers, id, addr)
		}
		n++
	}
	if n != 7 || d.Err() != nil || d.Remaining() != 0 {
		t.Errorf("%d entries, %v", n, d.Err())
	}
}

func TestGetAddrList(t *testing.T) {
	d, err := results(t, addr6, protoTCP, getAddr(versRPCBind4, procGetAddrList, rpc.ProgMount, 3, ""))
	if err != nil {
		t.Fatal(err)
	}
	type item struct {
		Addr, NetID     string
		Semantics       uint32
		Family, Network string
	}
	var got []item
	for d.Bool() {
		got = append(got, item{d.String(100), d.String(10), d.Uint32(), d.String(10), d.String(10)})
	}
	if diff := cmp.Diff([]item{{"fd00::64.78.80", "tcp6", 3, "inet6", "tcp"}}, got); diff != "" || d.Err() != nil || d.Remaining() != 0 {
		t.Errorf("%v, %s", d.Err(), diff)
	}
}

// TestRefusals: what is not done, and how that is said.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		ip     netip.Addr
		proto  uint32
		record []byte
		want   rpc.ReplyError
	}{
		{"another program", addr4, protoTCP, call(rpc.ProgNFS, 3, 0, nil), rpc.ReplyError{Stat: rpc.ProgUnavail}},
		{"version 1", addr4, protoTCP, call(rpc.ProgPortmap, 1, 0, nil), rpc.ReplyError{Stat: rpc.ProgMismatch, Low: 2, High: 4}},
		{"version 2 for IPv6", addr6, protoTCP, call(rpc.ProgPortmap, 2, 0, nil), rpc.ReplyError{Stat: rpc.ProgMismatch, Low: 3, High: 4}},
		{"CALLIT", addr4, protoTCP, call(rpc.ProgPortmap, 2, procCallit, nil), rpc.ReplyError{Stat: rpc.ProcUnavail}},
		{"INDIRECT of version 3", addr4, protoTCP, call(rpc.ProgPortmap, 3, procIndirect, nil), rpc.ReplyError{Stat: rpc.ProcUnavail}},
		{"GETVERSADDR of version 3", addr4, protoTCP, getAddr(3, procGetVersAddr, 1, 1, ""), rpc.ReplyError{Stat: rpc.ProcUnavail}},
		{"no arguments", addr4, protoTCP, call(rpc.ProgPortmap, 2, procGet, nil), rpc.ReplyError{Stat: rpc.GarbageArgs}},
		{"half of the arguments", addr4, protoTCP, getAddr(4, procGet, 1, 1, "tcp")[:60], rpc.ReplyError{Stat: rpc.GarbageArgs}},
		{"DUMP by UDP", addr4, protoUDP, call(rpc.ProgPortmap, 2, procDump, nil), rpc.ReplyError{Stat: rpc.SystemErr}},
	} {
		_, err := results(t, c.ip, c.proto, c.record)
		var re *rpc.ReplyError
		if !errors.As(err, &re) || *re != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, &c.want)
		}
	}
	for _, proc := range []uint32{procSet, procUnset} {
		d, err := results(t, addr4, protoTCP, getAddr(4, proc, rpc.ProgNFS, 3, "tcp"))
		if err != nil || d.Bool() || d.Err() != nil {
			t.Errorf("procedure %d from a client: %v", proc, err)
		}
	}
	reply, err := answer(&question{record: call(rpc.ProgPortmap, 2, procCallit, nil), local: addr4, proto: protoUDP})
	if reply != nil || err != nil {
		t.Errorf("CALLIT by UDP: %x, %v", reply, err)
	}
}

// TestLimiter: a network gets its burst and then its rate, and others get theirs, up to the total.
func TestLimiter(t *testing.T) {
	l := newLimiter()
	now := time.Unix(1000, 0)
	burst := func(from string) int {
		n := 0
		for range 10 * networkBurst {
			if l.allow(netip.MustParseAddr(from), now) {
				n++
			}
		}
		return n
	}
	if n := burst("10.94.0.51"); n != networkBurst {
		t.Errorf("%d answers at once, want %d", n, networkBurst)
	}
	if n := burst("10.94.0.77"); n != 0 {
		t.Errorf("%d answers to the same network", n)
	}
	if n := burst("fd00:0:0:100::1"); n != networkBurst {
		t.Errorf("%d answers to another network", n)
	}
	now = now.Add(time.Second / 2)
	if n := burst("10.94.0.51"); n != networkRate/2 {
		t.Errorf("%d answers after half a second, want %d", n, networkRate/2)
	}
	now = now.Add(time.Hour)
	total := 0
	for i := range 200 {
		total += burst(netip.AddrFrom4([4]byte{10, byte(i), 0, 1}).String())
	}
	if total != totalBurst {
		t.Errorf("%d answers at once to everybody, want %d", total, totalBurst)
	}
}

// FuzzAnswer: any record is refused or answered with a reply that parses and, by UDP, is short.
func FuzzAnswer(f *testing.F) {
	f.Add(getPort(rpc.ProgNFS, 3, protoTCP), false, true)
	f.Add(getAddr(versRPCBind4, procGet, rpc.ProgNFS, 3, "tcp6"), true, false)
	f.Add(getAddr(versRPCBind4, procGetAddrList, rpc.ProgNFS, 3, "tcp6"), true, true)
	f.Add(call(rpc.ProgPortmap, versRPCBind3, procDump, nil), false, true)
	f.Add(call(rpc.ProgPortmap, 9, 9, nil), false, false)
	entries := map[netip.Addr][]entry{addr4: testEntries(addr4), addr6: testEntries(addr6)}
	f.Fuzz(func(t *testing.T, record []byte, v6, udp bool) {
		q := question{record: record, local: addr4, proto: protoTCP}
		if v6 {
			q.local = addr6
		}
		if udp {
			q.proto = protoUDP
		}
		q.entries = entries[q.local]
		reply, err := answer(&q)
		if err != nil || reply == nil {
			return
		}
		if udp && len(reply) > maxAmplification*len(record) {
			t.Fatalf("%d bytes are answered with %d", len(record), len(reply))
		}
		var re *rpc.ReplyError
		if _, _, err := rpc.ParseReply(reply); err != nil && !errors.As(err, &re) {
			t.Fatalf("%x is answered with %x: %v", record, reply, err)
		}
		if len(reply)%4 != 0 {
			t.Fatalf("a reply of %d bytes", len(reply))
		}
	})
}
