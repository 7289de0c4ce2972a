package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Kind is what the owner of a certificate is.
type Kind int

// The kinds of peers. A stranger is one that has shown no certificate.
const (
	KindStranger Kind = iota
	KindNode
	KindAdmin
)

// String returns the kind in a word.
func (k Kind) String() string {
	switch k {
	case KindNode:
		return "node"
	case KindAdmin:
		return "administrator"
	}
	return "stranger"
}

// Peer is who is at the other end of a connection, as its certificate says.
type Peer struct {
	Kind    Kind
	Cluster string // the cluster's identity
	Node    uint64 // the node's number; 0 if it is no node
	Name    string
	Serial  string // the certificate's serial number, in hexadecimal
	// Fingerprint is the SHA-256 of the certificate, in hexadecimal.
	Fingerprint string
}

// String says who the peer is, for logs and events.
func (p Peer) String() string {
	switch p.Kind {
	case KindNode:
		return fmt.Sprintf("node %d (%s)", p.Node, p.Name)
	case KindAdmin:
		return "administrator " + p.Name
	}
	return "a stranger"
}

// PeerOf returns who is at the other end of a connection that a configuration of Credentials made.
func PeerOf(s tls.ConnectionState) (Peer, error) {
	if !s.HandshakeComplete {
		return Peer{}, errors.New("the TLS handshake is not complete, so the other side is not known")
	}
	if len(s.PeerCertificates) == 0 {
		return Peer{}, nil
	}
	return PeerOfCertificate(s.PeerCertificates[0])
}

// PeerOfCertificate returns whom a certificate names. It verifies nothing.
func PeerOfCertificate(cert *x509.Certificate) (Peer, error) {
	sum := sha256.Sum256(cert.Raw)
	p := Peer{Name: cert.Subject.CommonName, Serial: cert.SerialNumber.Text(16), Fingerprint: hex.EncodeToString(sum[:])}
	cluster, kind, rest, err := parseURIs(cert.URIs)
	if err != nil {
		return Peer{}, err
	}
	p.Cluster = cluster
	switch kind {
	case "node":
		p.Kind = KindNode
		p.Node, err = strconv.ParseUint(rest, 10, 64)
		if err != nil || p.Node == 0 || strconv.FormatUint(p.Node, 10) != rest {
			return Peer{}, fmt.Errorf("%w: node number %q", ErrForeign, rest)
		}
	case "admin":
		p.Kind = KindAdmin
		if rest != p.Name || checkName(rest) != nil {
			return Peer{}, fmt.Errorf("%w: it names the administrators %q and %q", ErrForeign, rest, p.Name)
		}
	default:
		return Peer{}, fmt.Errorf("%w: it is for a %q", ErrForeign, kind)
	}
	return p, nil
}

const uriScheme = "holdfast"

func nodeURI(cluster string, number uint64) *url.URL {
	return &url.URL{Scheme: uriScheme, Host: cluster, Path: "/node/" + strconv.FormatUint(number, 10)}
}

func adminURI(cluster, name string) *url.URL {
	return &url.URL{Scheme: uriScheme, Host: cluster, Path: "/admin/" + name}
}

func caURI(cluster string) *url.URL {
	return &url.URL{Scheme: uriScheme, Host: cluster, Path: "/ca"}
}

func parseURIs(uris []*url.URL) (cluster, kind, rest string, err error) {
	if len(uris) != 1 || uris[0].Scheme != uriScheme || checkClusterID(uris[0].Host) != nil {
		return "", "", "", fmt.Errorf("%w: it has no name of a Holdfast cluster in it", ErrForeign)
	}
	kind, rest, _ = strings.Cut(strings.TrimPrefix(uris[0].Path, "/"), "/")
	return uris[0].Host, kind, rest, nil
}

func caCluster(cert *x509.Certificate) (string, error) {
	cluster, kind, _, err := parseURIs(cert.URIs)
	if err != nil {
		return "", err
	}
	if kind != "ca" || !cert.IsCA {
		return "", errors.New("the certificate is not that of a cluster's CA")
	}
	return cluster, nil
}

// maxNameBytes is how long a certificate's common name may be (RFC 5280, ub-common-name).
const maxNameBytes = 64

func checkName(name string) error {
	if name == "" || len(name) > maxNameBytes || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || r == '/' }) {
		return fmt.Errorf("the name %q is not possible: 1 to %d bytes of printable text without a slash are", name, maxNameBytes)
	}
	return nil
}

func shorten(name string) string {
	if len(name) > maxNameBytes {
		name = strings.ToValidUTF8(name[:maxNameBytes], "")
	}
	return name
}

func checkClusterID(id string) error {
	bad := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }
	if id == "" || len(id) > maxNameBytes || strings.ContainsFunc(id, bad) {
		return fmt.Errorf("the cluster's identity %q is not possible: 1 to %d small letters and digits are", id, maxNameBytes)
	}
	return nil
}

// text32 is base 32 in small letters, without what looks alike: safe to read aloud, to copy, and in file names.
var text32 = base32.NewEncoding("abcdefghjkmnpqrstvwxyz0123456789").WithPadding(base32.NoPadding)

func randomText(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	return text32.EncodeToString(b)
}
