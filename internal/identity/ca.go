package identity

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"
)

// How long certificates are valid.
const (
	NodeValidity = 90 * 24 * time.Hour
	CAValidity   = 20 * 365 * 24 * time.Hour

	// clockSlack is how long before its making a certificate becomes valid, for clocks that are behind. Nobody here looks at that (see verify), but other programs may.
	clockSlack = time.Hour
)

// ClusterKeyBytes is the length of the key that seals the CA's key.
const ClusterKeyBytes = 32

// CA is a cluster's certificate authority.
type CA struct {
	// Certificate is the CA's own, signed by itself.
	Certificate *x509.Certificate

	key     crypto.Signer
	cluster string
}

// NewClusterID draws a cluster's identity: 26 letters and digits.
func NewClusterID() string { return randomText(16) }

// NewClusterKey draws a key for Seal.
func NewClusterKey() []byte {
	key := make([]byte, ClusterKeyBytes)
	_, _ = rand.Read(key) // never fails
	return key
}

// NewCA makes a certificate authority with a new key.
func NewCA(clusterName, clusterID string, now time.Time) (*CA, error) {
	if err := checkClusterID(clusterID); err != nil {
		return nil, err
	}
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: newSerial(),
		Subject:      pkix.Name{CommonName: shorten("Holdfast CA of " + clusterName)},
		URIs:         []*url.URL{caURI(clusterID)},
		NotBefore:    now.Add(-clockSlack), NotAfter: now.Add(CAValidity),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		IsCA:     true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the CA's certificate: %w", err)
	}
	return newCA(der, key)
}

func newCA(der []byte, key crypto.Signer) (*CA, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the CA's certificate: %w", err)
	}
	cluster, err := caCluster(cert)
	if err != nil {
		return nil, err
	}
	if !samePublicKey(cert.PublicKey, key.Public()) {
		return nil, errors.New("the CA's key does not belong to its certificate")
	}
	return &CA{Certificate: cert, key: key, cluster: cluster}, nil
}

// ClusterID returns the identity of the cluster that the CA belongs to.
func (ca *CA) ClusterID() string { return ca.cluster }

// CertificatePEM returns the CA's certificate.
func (ca *CA) CertificatePEM() []byte { return encodePEM(pemCertificate, ca.Certificate.Raw) }

// Seal encrypts the CA's key with the cluster key, of ClusterKeyBytes.
func (ca *CA) Seal(clusterKey []byte) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(ca.key)
	if err != nil {
		return nil, fmt.Errorf("encode the CA's key: %w", err)
	}
	aead, err := sealer(clusterKey)
	if err != nil {
		return nil, err
	}
	return aead.Seal([]byte{sealVersion}, nil, der, sealedFor(ca.Certificate)), nil
}

// OpenCA makes a CA of its certificate and what Seal returned.
func OpenCA(certPEM, sealed, clusterKey []byte) (*CA, error) {
	cert, err := ParseCertificate(certPEM)
	if err != nil {
		return nil, fmt.Errorf("the CA's certificate: %w", err)
	}
	if len(sealed) == 0 || sealed[0] != sealVersion {
		return nil, errors.New("the CA's sealed key has a form that this release does not know")
	}
	aead, err := sealer(clusterKey)
	if err != nil {
		return nil, err
	}
	der, err := aead.Open(nil, nil, sealed[1:], sealedFor(cert))
	if err != nil {
		return nil, errors.New("the CA's key cannot be unsealed: the cluster key of this node (cluster.key) is not the one that it was sealed with")
	}
	key, err := parsePKCS8(der)
	if err != nil {
		return nil, fmt.Errorf("the CA's key: %w", err)
	}
	return newCA(cert.Raw, key)
}

// A sealed key is a byte for the version, 12 of nonce, the ciphertext and 16 of tag. The hash of the CA's certificate is authenticated with it.
const sealVersion = 1

func sealer(clusterKey []byte) (cipher.AEAD, error) {
	if len(clusterKey) != ClusterKeyBytes {
		return nil, fmt.Errorf("the cluster key has %d bytes instead of %d", len(clusterKey), ClusterKeyBytes)
	}
	block, err := aes.NewCipher(clusterKey)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func sealedFor(cert *x509.Certificate) []byte {
	sum := sha256.Sum256(cert.Raw)
	return append([]byte("holdfast CA key "), sum[:]...)
}

// NodeInfo is what a node's certificate says.
type NodeInfo struct {
	Number uint64
	Name   string
}

// SignNode makes a node's certificate, in PEM. Of the request (NewRequest) only the key counts; who the node is says n.
func (ca *CA) SignNode(requestPEM []byte, n NodeInfo, now time.Time) ([]byte, error) {
	if n.Number == 0 {
		return nil, errors.New("a node's certificate needs the node's number")
	}
	usage := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	return ca.sign(requestPEM, n.Name, nodeURI(ca.cluster, n.Number), usage, now, NodeValidity)
}

// SignAdmin makes an administrator's certificate, in PEM.
func (ca *CA) SignAdmin(requestPEM []byte, name string, validity time.Duration, now time.Time) ([]byte, error) {
	if validity <= 0 {
		return nil, fmt.Errorf("a certificate cannot be valid for %v", validity)
	}
	return ca.sign(requestPEM, name, adminURI(ca.cluster, name), []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, now, validity)
}

func (ca *CA) sign(requestPEM []byte, name string, uri *url.URL, usage []x509.ExtKeyUsage, now time.Time, validity time.Duration) ([]byte, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	request, err := parseRequest(requestPEM)
	if err != nil {
		return nil, err
	}
	switch made, end := ca.Certificate.NotBefore.Add(clockSlack), ca.Certificate.NotAfter; {
	case now.Before(made): // The clock is behind: the CA exists.
		now = made
	case !now.Before(end):
		return nil, fmt.Errorf("the cluster's authority signs nothing any more, as it ended on %s and it is %s here: if that is wrong, set this machine's clock",
			end.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	notAfter := now.Add(validity)
	if notAfter.After(ca.Certificate.NotAfter) {
		notAfter = ca.Certificate.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: newSerial(),
		Subject:      pkix.Name{CommonName: name},
		URIs:         []*url.URL{uri},
		NotBefore:    now.Add(-clockSlack), NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usage,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Certificate, request.PublicKey, ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", name, err)
	}
	return encodePEM(pemCertificate, der), nil
}

// RenewAt returns when a certificate should be renewed: when a third of its validity is left.
func RenewAt(cert *x509.Certificate) time.Time {
	return cert.NotAfter.Add(-cert.NotAfter.Sub(cert.NotBefore) / 3)
}

// newSerial draws a serial number of 127 bits, as it must be positive and not longer than 20 bytes.
func newSerial() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b)
}
