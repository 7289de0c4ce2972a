package nfs4

import (
	"encoding/binary"
	"testing"

	"github.com/buildbarn/go-xdr/pkg/protocols/nfsv4"

	"holdfast/internal/rpc"
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

// benchRead measures a compound on the read path, from the parsed call to the encoded reply.
func benchRead(b *testing.B, bytes int64, ops func(c *client, fh []byte) []nfsv4.NfsArgop4) {
	c, req := benchRequest(b, ops)
	var e xdr.Encoder
	e.Reset(make([]byte, 0, 2<<20))
	buf := e.Bytes()
	b.SetBytes(bytes)
	b.ReportAllocs()
	for b.Loop() {
		e.Reset(buf)
		if c.p.Mutates(req) {
			b.Fatal("mutates")
		}
		c.v.Read(req, &e)
	}
	checkBenchReply(b, e.Bytes())
}

func benchRequest(b *testing.B, ops func(c *client, fh []byte) []nfsv4.NfsArgop4) (*client, *volume.Request) {
	b.Helper()
	s := newServer(b)
	c := s.newClient("bench")
	fh := c.create("f", string(make([]byte, 1<<20)))
	args := encodeCompound(b, 2, append([]nfsv4.NfsArgop4{c.sequence()}, ops(c, fh)...))
	req := &volume.Request{Client: testClient, Time: s.now, Rules: s.rules}
	if err := rpc.ParseCall(s.record(1, args), &req.Call); err != nil {
		b.Fatal(err)
	}
	return c, req
}

func checkBenchReply(b *testing.B, reply []byte) {
	b.Helper()
	_, results, err := rpc.ParseReply(reply)
	if err != nil || binary.BigEndian.Uint32(results) != 0 {
		b.Fatalf("reply %x: %v", results[:min(len(results), 100)], err)
	}
}

func BenchmarkGetattr(b *testing.B) {
	benchRead(b, 0, func(_ *client, fh []byte) []nfsv4.NfsArgop4 {
		return []nfsv4.NfsArgop4{putfh(fh), getattr(attrType, attrChange, attrSize, attrFSID, attrFileID, attrMode, attrNumLinks, attrOwner, attrOwnerGroup, attrSpaceUsed, attrTimeAccess, attrTimeMetadata, attrTimeModify, attrMountedOnFileID)}
	})
}

func BenchmarkLookup(b *testing.B) {
	benchRead(b, 0, func(c *client, _ []byte) []nfsv4.NfsArgop4 {
		return []nfsv4.NfsArgop4{putfh(c.data()), lookup("f"), getfh(), getattr(attrType, attrChange, attrSize, attrFSID, attrFileID, attrMode)}
	})
}

func BenchmarkRead4K(b *testing.B) { benchReadBytes(b, 4<<10) }
func BenchmarkRead1M(b *testing.B) { benchReadBytes(b, 1<<20) }

func benchReadBytes(b *testing.B, n uint32) {
	benchRead(b, int64(n), func(_ *client, fh []byte) []nfsv4.NfsArgop4 {
		return []nfsv4.NfsArgop4{putfh(fh), read(nfsv4.Stateid4{}, 0, n)}
	})
}

// BenchmarkWrite4K measures classification and apply of a log entry.
func BenchmarkWrite4K(b *testing.B) {
	c, req := benchRequest(b, func(_ *client, fh []byte) []nfsv4.NfsArgop4 {
		return []nfsv4.NfsArgop4{putfh(fh), write(nfsv4.Stateid4{}, 0, string(make([]byte, 4096))), getattr(attrChange, attrSize, attrTimeMetadata, attrTimeModify)}
	})
	seqAt := len(encodeCompound(b, 2, nil)) + 4 + 16 // operation number, session id
	e := volume.Entry{Kind: volume.EntryCall, Client: testClient, Rules: c.rules, Time: c.now, Payload: c.record(1, req.Call.Args)}
	entry := e.Encode()
	args := entry[len(entry)-len(req.Call.Args):]
	index := c.v.Applied()
	b.SetBytes(4096)
	b.ReportAllocs()
	var reply []byte
	for b.Loop() {
		c.seq++
		binary.BigEndian.PutUint32(args[seqAt:], c.seq)
		if !c.p.Mutates(req) {
			b.Fatal("does not mutate")
		}
		index++
		var err error
		if reply, err = c.v.Apply(index, entry); err != nil {
			b.Fatal(err)
		}
	}
	checkBenchReply(b, reply)
}
