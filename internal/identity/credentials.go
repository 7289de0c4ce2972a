package identity

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// Why a certificate is refused, for errors.Is.
var (
	ErrForeign   = errors.New("the certificate is not one of this cluster")
	ErrExpired   = errors.New("the certificate has expired")
	ErrWrongNode = errors.New("the certificate is that of another node")
	ErrNotNode   = errors.New("the certificate is not that of a node")
	ErrRevoked   = errors.New("the certificate is revoked")
	ErrProtocol  = errors.New("the connection is for no protocol that is spoken here")
)

// Access is who may use a protocol.
type Access int

// Kinds of access. Anyone is not even asked for a certificate.
const (
	Nobody Access = iota
	Nodes
	Members // nodes and administrators
	Anyone
)

// Credentials are what somebody proves who they are with, and how they verify others. They can be replaced while connections are made.
type Credentials struct {
	// Revoked, if not nil, is asked about every peer, in every handshake. Set it before the first connection.
	Revoked func(Peer) bool
	// Now returns the time that certificates are compared with; nil stands for time.Now. Set it before the first connection.
	Now func() time.Time

	state atomic.Pointer[credentials]
}

type credentials struct {
	self Peer
	cert tls.Certificate
	// chain is cert with the CAs after it, for those who know a CA only by its hash.
	chain tls.Certificate
	roots *x509.CertPool
}

// NewCredentials returns the credentials of whoever has the certificate and its key. caPEM is a bundle of the CAs that others' certificates may come from.
func NewCredentials(certPEM []byte, key crypto.Signer, caPEM []byte) (*Credentials, error) {
	s, err := newState(certPEM, key, caPEM)
	if err != nil {
		return nil, err
	}
	c := &Credentials{}
	c.state.Store(s)
	return c, nil
}

func newState(certPEM []byte, key crypto.Signer, caPEM []byte) (*credentials, error) {
	leaf, err := ParseCertificate(certPEM)
	if err != nil {
		return nil, fmt.Errorf("the certificate: %w", err)
	}
	if !samePublicKey(leaf.PublicKey, key.Public()) {
		return nil, errors.New("the key does not belong to the certificate")
	}
	self, err := PeerOfCertificate(leaf)
	if err != nil {
		return nil, err
	}
	cas, err := ParseCertificates(caPEM)
	if err != nil {
		return nil, fmt.Errorf("the CA's certificate: %w", err)
	}
	s := &credentials{self: self, roots: x509.NewCertPool()}
	s.cert = tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	s.chain = s.cert
	s.chain.Certificate = slices.Clone(s.cert.Certificate)
	for _, ca := range cas {
		cluster, err := caCluster(ca)
		if err != nil {
			return nil, fmt.Errorf("the CA's certificate: %w", err)
		}
		if cluster != self.Cluster {
			return nil, fmt.Errorf("%w: the CA's is of the cluster %s, the certificate of the cluster %s", ErrForeign, cluster, self.Cluster)
		}
		s.roots.AddCert(ca)
		s.chain.Certificate = append(s.chain.Certificate, ca.Raw)
	}
	if err := issued(leaf, s.roots, x509.ExtKeyUsageAny); err != nil {
		return nil, err
	}
	return s, nil
}

// Update replaces the certificate, which must be for the same owner and key, and the bundle of CAs, for all handshakes from now on.
func (c *Credentials) Update(certPEM, caPEM []byte) error {
	old := c.state.Load()
	s, err := newState(certPEM, old.cert.PrivateKey.(crypto.Signer), caPEM)
	if err != nil {
		return err
	}
	if s.self.Kind != old.self.Kind || s.self.Cluster != old.self.Cluster || s.self.Node != old.self.Node || s.self.Name != old.self.Name {
		return fmt.Errorf("%w: it is that of %v, this is %v", ErrWrongNode, s.self, old.self)
	}
	c.state.Store(s)
	return nil
}

// Self returns who the credentials say that we are.
func (c *Credentials) Self() Peer { return c.state.Load().self }

// Certificate returns our certificate.
func (c *Credentials) Certificate() *x509.Certificate { return c.state.Load().cert.Leaf }

// Key returns our private key, to request a new certificate for.
func (c *Credentials) Key() crypto.Signer { return c.state.Load().cert.PrivateKey.(crypto.Signer) }

func (c *Credentials) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

// Server returns the configuration of the accepting side. allowed says who may use a protocol (ALPN); it is asked in every handshake.
func (c *Credentials) Server(allowed func(proto string) Access) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if len(hello.SupportedProtos) == 0 {
				return nil, fmt.Errorf("%w: it names none", ErrProtocol)
			}
			for _, proto := range hello.SupportedProtos {
				if a := allowed(proto); a != Nobody {
					return c.server(proto, a), nil
				}
			}
			// The handshake ends with the alert that says so, as there is no such protocol in the hello.
			return c.server("holdfast", Nobody), nil
		},
	}
}

func (c *Credentials) server(proto string, access Access) *tls.Config {
	s := c.state.Load()
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{proto}, Time: c.now,
		// A resumed session would skip the certificate.
		SessionTicketsDisabled: true,
		// Connections carry much data or wait for small messages; neither is better off with small records at first.
		DynamicRecordSizingDisabled: true,
		Certificates:                []tls.Certificate{s.cert},
		ClientAuth:                  tls.RequireAnyClientCert, // verified below
		VerifyConnection: func(cs tls.ConnectionState) error {
			p, err := c.verify(s.roots, cs, x509.ExtKeyUsageClientAuth)
			if err == nil && p.Kind != KindNode && access != Members {
				err = fmt.Errorf("%w but of %v", ErrNotNode, p)
			}
			return err
		},
	}
	if access == Anyone {
		cfg.Certificates, cfg.ClientAuth, cfg.VerifyConnection = []tls.Certificate{s.chain}, tls.NoClientCert, nil
	}
	return cfg
}

// Client returns the configuration for connecting to a node, for a protocol. Node 0 stands for any node of the cluster.
func (c *Credentials) Client(node uint64, proto string) *tls.Config {
	s := c.state.Load()
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{proto}, Time: c.now,
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
		Certificates:                []tls.Certificate{s.cert},
		InsecureSkipVerify:          true, // as there are no host names; verified below
		VerifyConnection: func(cs tls.ConnectionState) error {
			p, err := c.verify(s.roots, cs, x509.ExtKeyUsageServerAuth)
			switch {
			case err != nil:
				return err
			case p.Kind != KindNode:
				return fmt.Errorf("%w but of %v", ErrNotNode, p)
			case node != 0 && p.Node != node:
				return fmt.Errorf("%w: %v answers where node %d is expected", ErrWrongNode, p, node)
			case cs.NegotiatedProtocol != proto:
				return fmt.Errorf("%w: %q", ErrProtocol, proto)
			}
			return nil
		},
	}
}

// JoinClient returns the configuration for a node that has no certificate yet: it accepts any node of the cluster whose CA has the hash (Token.Pin). now may be nil.
func JoinClient(pin [sha256.Size]byte, proto string, now func() time.Time) *tls.Config {
	c := &Credentials{Now: now}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{proto}, Time: c.now,
		SessionTicketsDisabled: true,
		InsecureSkipVerify:     true, // verified below
		VerifyConnection: func(cs tls.ConnectionState) error {
			i := slices.IndexFunc(cs.PeerCertificates, func(cert *x509.Certificate) bool { return Pin(cert) == pin })
			if i <= 0 {
				return fmt.Errorf("%w: the other side is not of the cluster that the token was made by", ErrForeign)
			}
			roots := x509.NewCertPool()
			roots.AddCert(cs.PeerCertificates[i])
			p, err := verify(cs.PeerCertificates[0], roots, c.now(), x509.ExtKeyUsageServerAuth)
			if err == nil && p.Kind != KindNode {
				err = fmt.Errorf("%w but of %v", ErrNotNode, p)
			}
			return err
		},
	}
}

// verify finds out who the other side is and whether to talk to it.
func (c *Credentials) verify(roots *x509.CertPool, cs tls.ConnectionState, usage x509.ExtKeyUsage) (Peer, error) {
	if len(cs.PeerCertificates) == 0 {
		return Peer{}, fmt.Errorf("%w: there is none", ErrForeign)
	}
	p, err := verify(cs.PeerCertificates[0], roots, c.now(), usage)
	if err != nil {
		return p, err
	}
	if self := c.Self(); p.Cluster != self.Cluster {
		return p, fmt.Errorf("%w: it is of the cluster %s", ErrForeign, p.Cluster)
	}
	if c.Revoked != nil && c.Revoked(p) {
		return p, fmt.Errorf("%w: %v was removed from the cluster, or its certificate withdrawn", ErrRevoked, p)
	}
	return p, nil
}

func verify(cert *x509.Certificate, roots *x509.CertPool, now time.Time, usage x509.ExtKeyUsage) (Peer, error) {
	p, err := PeerOfCertificate(cert)
	if err != nil {
		return p, err
	}
	if err := issued(cert, roots, usage); err != nil {
		return p, err
	}
	// A certificate whose time is still to come is none to refuse: the CA has signed it, so it exists, and the clock that says otherwise is behind, or that of
	// the signer was ahead. Without this a machine that starts with a dead clock stays away from its cluster, and one whose clock jumped ahead and renewed its
	// certificate meanwhile stays away after the clock is right again.
	if now.After(cert.NotAfter) {
		return p, fmt.Errorf("%w: that of %v on %s, and it is %s here; compare the clocks", ErrExpired, p, cert.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return p, nil
}

// issued verifies all of a certificate but the dates, of which verify has more to say.
func issued(cert *x509.Certificate, roots *x509.CertPool, usage x509.ExtKeyUsage) error {
	_, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: cert.NotBefore, KeyUsages: []x509.ExtKeyUsage{usage}})
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("%w: another CA has signed it", ErrForeign)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrForeign, err)
	}
	return nil
}
