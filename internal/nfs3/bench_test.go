package nfs3

import (
	"fmt"
	"io"
	"testing"

	"github.com/buildbarn/go-xdr/pkg/protocols/nfsv3"

	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

// request parses a call that s makes with args.
func (s *server) request(proc uint32, args io.WriterTo) *volume.Request {
	s.t.Helper()
	s.xid++
	entry := volume.Entry{Kind: volume.EntryCall, Client: s.client, Rules: s.rules, Payload: s.record(s.xid, proc, encode(s.t, args))}
	req := new(volume.Request)
	if err := entry.Request(0, req); err != nil {
		s.t.Fatal(err)
	}
	return req
}

// TestAllocations keeps the calls that clients make most from allocating: a Tx is all they may cost.
func TestAllocations(t *testing.T) {
	s := newServer(t)
	file := s.create(s.root("/data"), "f", attrs{})
	s.write(file, 0, pattern(64<<10))
	for _, c := range []struct {
		name string
		req  *volume.Request
		max  float64
	}{
		{"GETATTR", s.request(procGetAttr, &nfsv3.Getattr3args{Object: file}), 1},
		{"LOOKUP", s.request(procLookup, &nfsv3.Lookup3args{What: in(s.root("/data"), "f")}), 6},
		{"READ", s.request(procRead, &nfsv3.Read3args{File: file, Count: 64 << 10}), 2},
	} {
		reply := xdr.NewEncoder(make([]byte, 0, 128<<10))
		allocs := testing.AllocsPerRun(100, func() {
			reply.Truncate(0)
			s.v.Read(c.req, reply)
		})
		if allocs > c.max {
			t.Errorf("%s: %.0f allocations, at most %.0f are expected", c.name, allocs, c.max)
		}
	}
}

func benchmarkRead(b *testing.B, s *server, req *volume.Request) {
	b.Helper()
	reply := xdr.NewEncoder(make([]byte, 0, 2<<20))
	b.ReportAllocs()
	for b.Loop() {
		reply.Truncate(0)
		s.v.Read(req, reply)
	}
}

func BenchmarkGetAttr(b *testing.B) {
	s := newServer(b)
	file := s.create(s.root("/data"), "f", attrs{})
	benchmarkRead(b, s, s.request(procGetAttr, &nfsv3.Getattr3args{Object: file}))
}

func BenchmarkLookup(b *testing.B) {
	s := newServer(b)
	s.create(s.root("/data"), "f", attrs{})
	benchmarkRead(b, s, s.request(procLookup, &nfsv3.Lookup3args{What: in(s.root("/data"), "f")}))
}

func BenchmarkRead(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			s := newServer(b)
			file := s.create(s.root("/data"), "f", attrs{})
			s.write(file, 0, pattern(size))
			b.SetBytes(int64(size))
			benchmarkRead(b, s, s.request(procRead, &nfsv3.Read3args{File: file, Count: uint32(size)}))
		})
	}
}

func BenchmarkReaddirplus(b *testing.B) {
	s := newServer(b)
	for i := range 200 {
		s.create(s.root("/data"), fmt.Sprint(i), attrs{})
	}
	benchmarkRead(b, s, s.request(procReaddirplus, &nfsv3.Readdirplus3args{Dir: s.root("/data"), Dircount: 1 << 20, Maxcount: 1 << 20}))
}

// BenchmarkWrite measures applying: what every replica does for a WRITE, besides the log.
func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			s := newServer(b)
			file := s.create(s.root("/data"), "f", attrs{})
			s.write(file, 0, pattern(size))
			record := s.record(0, procWrite, encode(b, &nfsv3.Write3args{File: file, Count: uint32(size), Data: pattern(size)}))
			entry := (&volume.Entry{Kind: volume.EntryCall, Client: s.client, Rules: s.rules, Payload: record}).Encode()
			xid := entry[len(entry)-len(record):]
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				s.index++
				xid[0], xid[1], xid[2], xid[3] = byte(s.index>>24), byte(s.index>>16), byte(s.index>>8), byte(s.index)
				if _, err := s.v.Apply(s.index, entry); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
