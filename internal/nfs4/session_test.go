package nfs4

import (
	"testing"

	"github.com/buildbarn/go-xdr/pkg/protocols/nfsv4"
)

func TestMountLikeLinux(t *testing.T) {
	s := newServer(t)
	c := s.newClient("linux")
	res := c.ok(putrootfh(), getfh(), getattr(attrSupportedAttrs, attrType, attrFSID, attrLeaseTime))
	if len(fhOf(res[1])) != 28 {
		t.Errorf("root handle %x", fhOf(res[1]))
	}
	c.ok(putrootfh(), &nfsv4.NfsArgop4_OP_SECINFO_NO_NAME{})
	fh := c.create("f", "hello")
	if got, eof := dataOf(c.ok(putfh(fh), read(nfsv4.Stateid4{}, 0, 100))[1]); got != "hello" || !eof {
		t.Errorf("read %q, eof %v", got, eof)
	}
}
