package nfsclient

import (
	"testing"

	"holdfast/internal/xdr"
)

// FuzzResults feeds any bytes to what reads a server's answers: a client must survive its server.
func FuzzResults(f *testing.F) {
	e := xdr.NewEncoder(nil)
	e.Uint32(0)
	e.Uint32(0)
	e.Uint32(2)
	e.Uint32(opPutFH)
	e.Uint32(0)
	e.Uint32(opGetAttr)
	e.Uint32(0)
	mode, size, mtime := uint32(0o644), uint64(5), int64(-1)
	encodeSetAttr(e, &SetAttr{Mode: &mode, Size: &size})
	f.Add(e.Bytes())
	e = xdr.NewEncoder(nil)
	encodeSetAttr(e, &SetAttr{Mode: &mode, UID: &mode, Mtime: &mtime})
	f.Add(e.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		var a Attr
		r := parseCompound(b)
		if r.skip(opPutFH) == nil {
			_ = r.getAttr(&a)
		}
		decodeAttr(xdr.NewDecoder(b), &a, nil)
		_, _ = decodeEntries(xdr.NewDecoder(b))
		decodeFattr3(xdr.NewDecoder(b), &a)
		skipWCC(xdr.NewDecoder(b))
		file := V4File{}
		_ = file.parseOpen(parseCompound(b))
		s := session{slots: make([]slot, 1), transport: &transport{}}
		_, _ = s.sequenced(&s.slots[0], parseCompound(b), true)
	})
}
