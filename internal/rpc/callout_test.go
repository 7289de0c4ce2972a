package rpc

import (
	"errors"
	"testing"

	"holdfast/internal/xdr"
)

func TestParseReply(t *testing.T) {
	accepted := func(s AcceptStat, more ...uint32) []byte {
		e := xdr.NewEncoder(nil)
		AppendAccepted(e, 77, s)
		for _, m := range more {
			e.Uint32(m)
		}
		return e.Bytes()
	}
	rejected := func(r RejectError) []byte {
		e := xdr.NewEncoder(nil)
		r.XID = 77
		AppendRejected(e, &r)
		return e.Bytes()
	}
	tests := []struct {
		name string
		in   []byte
		want ReplyError
	}{
		{"unavailable", accepted(ProgUnavail), ReplyError{Stat: ProgUnavail}},
		{"mismatch", accepted(ProgMismatch, 3, 4), ReplyError{Stat: ProgMismatch, Low: 3, High: 4}},
		{"garbage", accepted(GarbageArgs), ReplyError{Stat: GarbageArgs}},
		{"too weak", rejected(RejectError{AuthStat: AuthTooWeak}), ReplyError{Denied: true, AuthStat: AuthTooWeak}},
		{"rpc version", rejected(RejectError{Mismatch: true}), ReplyError{Denied: true, Low: 2, High: 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			xid, _, err := ParseReply(tt.in)
			var re *ReplyError
			if !errors.As(err, &re) || *re != tt.want || xid != 77 {
				t.Errorf("xid %d, error %#v, want %#v", xid, err, tt.want)
			}
			for n := range tt.in {
				if _, _, err := ParseReply(tt.in[:n]); err == nil {
					t.Errorf("the first %d bytes are taken for a reply", n)
				}
			}
		})
	}
	if xid, results, err := ParseReply(accepted(Success, 5)); err != nil || xid != 77 || len(results) != 4 {
		t.Errorf("success: %d, %x, %v", xid, results, err)
	}
	if _, _, err := ParseReply(callRecord(1, nil)); !errors.Is(err, ErrNotReply) {
		t.Errorf("a call: %v", err)
	}
}

func TestAppendCallCutsCredentials(t *testing.T) {
	long := make([]byte, 300)
	for i := range long {
		long[i] = 'x'
	}
	e := xdr.NewEncoder(nil)
	AppendCall(e, 1, 2, 3, 4, &Auth{Flavor: AuthSys, Machine: string(long), Groups: make([]uint32, 40)})
	var c Call
	if err := ParseCall(e.Bytes(), &c); err != nil {
		t.Fatal(err)
	}
	if len(c.Auth.Machine) != maxMachine || len(c.Auth.Groups) != maxGroups {
		t.Errorf("machine of %d bytes, %d groups", len(c.Auth.Machine), len(c.Auth.Groups))
	}
}
