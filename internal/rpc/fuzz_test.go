package rpc

import (
	"bytes"
	"testing"

	"holdfast/internal/xdr"
)

// FuzzReadRecord feeds any bytes to a connection: no panic, no record beyond the limit, and what was framed correctly is read as it was.
func FuzzReadRecord(f *testing.F) {
	f.Add(fragments(callRecord(1, []byte("abcd")), 10))
	f.Add([]byte("GET / HTTP/1.0\r\n"))
	f.Add([]byte{0x80, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, rec := range readAll(t, in, ConnConfig{MaxRecord: 4096, Headroom: 16}) {
			if len(rec) > 4096 || len(rec) < 8 {
				t.Fatalf("record of %d bytes", len(rec))
			}
			framed := fragments(rec, 100)
			if again := readAll(t, framed, ConnConfig{MaxRecord: 4096}); len(again) != 1 || !bytes.Equal(again[0], rec) {
				t.Fatalf("%x is read as %x", framed, again)
			}
		}
	})
}

func FuzzParseCall(f *testing.F) {
	f.Add(callRecord(1, []byte("abcd")))
	e := xdr.NewEncoder(nil)
	AppendCall(e, 5, 1, 2, 3, &Auth{Flavor: AuthSys, UID: 1, GID: 2, Groups: []uint32{3, 4}, Machine: "m"})
	f.Add(e.Bytes())
	f.Fuzz(func(t *testing.T, record []byte) {
		var c Call
		if ParseCall(record, &c) != nil {
			return
		}
		e := xdr.NewEncoder(nil)
		AppendCall(e, c.XID, c.Prog, c.Vers, c.Proc, &c.Auth)
		e.Raw(c.Args)
		var again Call
		if err := ParseCall(e.Bytes(), &again); err != nil {
			t.Fatalf("re-encoded: %v", err)
		}
		if again.XID != c.XID || again.Prog != c.Prog || again.Proc != c.Proc || again.Auth.UID != c.Auth.UID ||
			again.Auth.Machine != c.Auth.Machine || len(again.Auth.Groups) != len(c.Auth.Groups) || !bytes.Equal(again.Args, c.Args) {
			t.Fatalf("%+v is re-encoded as %+v", c, again)
		}
	})
}

func FuzzParseReply(f *testing.F) {
	e := xdr.NewEncoder(nil)
	AppendAccepted(e, 1, Success)
	f.Add(e.Bytes())
	e = xdr.NewEncoder(nil)
	AppendRejected(e, &RejectError{XID: 1, AuthStat: AuthTooWeak})
	f.Add(e.Bytes())
	e = xdr.NewEncoder(nil)
	AppendRejected(e, &RejectError{XID: 1, Mismatch: true})
	f.Add(e.Bytes())
	f.Fuzz(func(t *testing.T, record []byte) {
		_, results, err := ParseReply(record)
		if err == nil && len(results) > len(record) {
			t.Fatal("results out of nowhere")
		}
		if err != nil && err.Error() == "" {
			t.Fatal("error without words")
		}
	})
}
