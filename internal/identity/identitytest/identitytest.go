// Package identitytest makes identities for tests.
package identitytest

import (
	"fmt"
	"testing"
	"time"

	"holdfast/internal/identity"
)

// Cluster is a cluster whose members have certificates.
type Cluster struct {
	CA *identity.CA
	t  testing.TB
}

// New returns a cluster with a CA of its own, a year old.
func New(t testing.TB) *Cluster {
	t.Helper()
	ca, err := identity.NewCA("test", identity.NewClusterID(), time.Now().AddDate(-1, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	return &Cluster{CA: ca, t: t}
}

// NodeAt returns the credentials of a node whose certificate was made at a time.
func (c *Cluster) NodeAt(number uint64, now time.Time) *identity.Credentials {
	c.t.Helper()
	return c.credentials(func(request []byte) ([]byte, error) {
		return c.CA.SignNode(request, identity.NodeInfo{Number: number, Name: fmt.Sprint("n", number)}, now)
	})
}

// Node returns the credentials of a node.
func (c *Cluster) Node(number uint64) *identity.Credentials {
	c.t.Helper()
	return c.NodeAt(number, time.Now())
}

// Admin returns the credentials of an administrator.
func (c *Cluster) Admin(name string) *identity.Credentials {
	c.t.Helper()
	return c.credentials(func(request []byte) ([]byte, error) { return c.CA.SignAdmin(request, name, time.Hour, time.Now()) })
}

func (c *Cluster) credentials(sign func(request []byte) ([]byte, error)) *identity.Credentials {
	c.t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		c.t.Fatal(err)
	}
	request, err := identity.NewRequest(key, "anyone")
	if err != nil {
		c.t.Fatal(err)
	}
	cert, err := sign(request)
	if err != nil {
		c.t.Fatal(err)
	}
	creds, err := identity.NewCredentials(cert, key, c.CA.CertificatePEM())
	if err != nil {
		c.t.Fatal(err)
	}
	return creds
}
