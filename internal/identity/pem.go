package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
)

// Kinds of PEM blocks.
const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY"
	pemRequest     = "CERTIFICATE REQUEST"
)

// NewKey makes a private key (ECDSA, P-256).
func NewKey() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, nil
}

// NewRequest makes a certificate request for a key, in PEM. The name in it is for people who look at it; the CA decides on names itself.
func NewRequest(key crypto.Signer, name string) ([]byte, error) {
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: shorten(name)}}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return encodePEM(pemRequest, der), nil
}

func parseRequest(data []byte) (*x509.CertificateRequest, error) {
	der, _, err := decodePEM(data, pemRequest)
	if err != nil {
		return nil, fmt.Errorf("the certificate request: %w", err)
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("the certificate request: %w", err)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the certificate request is not signed with its own key: %w", err)
	}
	switch key := request.PublicKey.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if key.Curve.Params().BitSize < 256 {
			return nil, fmt.Errorf("the certificate request has a key on the weak curve %s", key.Curve.Params().Name)
		}
	default:
		return nil, fmt.Errorf("the certificate request has a key of the kind %T; ECDSA and Ed25519 are possible", key)
	}
	return request, nil
}

// MarshalKey returns a private key in PEM (PKCS #8).
func MarshalKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return encodePEM(pemKey, der), nil
}

// ParseKey reads what MarshalKey returned.
func ParseKey(data []byte) (crypto.Signer, error) {
	der, _, err := decodePEM(data, pemKey)
	if err != nil {
		return nil, err
	}
	return parsePKCS8(der)
}

func parsePKCS8(der []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of the kind %T cannot sign", key)
	}
	return signer, nil
}

// ParseCertificate reads one certificate in PEM.
func ParseCertificate(data []byte) (*x509.Certificate, error) {
	all, err := ParseCertificates(data)
	if err != nil {
		return nil, err
	}
	if len(all) != 1 {
		return nil, fmt.Errorf("%d certificates where one is expected", len(all))
	}
	return all[0], nil
}

// ParseCertificates reads a bundle of at least one certificate in PEM.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for first := true; first || len(bytes.TrimSpace(data)) > 0; first = false {
		der, rest, err := decodePEM(data, pemCertificate)
		if err != nil {
			return nil, err
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		all, data = append(all, cert), rest
	}
	return all, nil
}

// Pin returns the hash of a CA's certificate, by which a node that joins knows the cluster (Token.Pin).
func Pin(ca *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(ca.Raw) }

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func decodePEM(data []byte, kind string) (der, rest []byte, err error) {
	block, rest := pem.Decode(data)
	switch {
	case block == nil && len(bytes.TrimSpace(data)) == 0:
		return nil, nil, errors.New("it is empty")
	case block == nil:
		return nil, nil, errors.New("it is not in the PEM format")
	case block.Type != kind:
		return nil, nil, fmt.Errorf("it holds a %q where a %q is expected", block.Type, kind)
	}
	return block.Bytes, rest, nil
}

func samePublicKey(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}
