package identity

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"strings"
	"testing"
	"time"
)

var birth = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func testCA(t testing.TB) *CA {
	t.Helper()
	ca, err := NewCA("test", NewClusterID(), birth)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func testKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func testRequest(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	request, err := NewRequest(key, "whoever")
	if err != nil {
		t.Fatal(err)
	}
	return request
}

func parse(t testing.TB, certPEM []byte, err error) *x509.Certificate {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ParseCertificate(certPEM)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestCertificatesSayWhoTheirOwnerIs(t *testing.T) {
	ca := testCA(t)
	key := testKey(t)
	request := testRequest(t, key)
	now := birth.Add(time.Hour)

	der, err := ca.SignNode(request, NodeInfo{Number: 1<<32 + 7, Name: "kiln"}, now)
	cert := parse(t, der, err)
	p, err := PeerOfCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	if p.Kind != KindNode || p.Node != 1<<32+7 || p.Name != "kiln" || p.Cluster != ca.ClusterID() || len(p.Serial) != 32 || len(p.Fingerprint) != 64 {
		t.Errorf("the node is %+v", p)
	}
	if !cert.NotBefore.Equal(now.Add(-time.Hour)) || !cert.NotAfter.Equal(now.Add(NodeValidity)) {
		t.Errorf("valid from %v to %v", cert.NotBefore, cert.NotAfter)
	}
	if left := cert.NotAfter.Sub(RenewAt(cert)); left < 29*24*time.Hour || left > 31*24*time.Hour {
		t.Errorf("renewed %v before the end", left)
	}

	for _, name := range []string{"ada", "Ada Lovelace", "ада", "50%?#&"} {
		der, err := ca.SignAdmin(request, name, time.Hour, now)
		p, err := PeerOfCertificate(parse(t, der, err))
		if err != nil || p.Kind != KindAdmin || p.Name != name || p.Node != 0 {
			t.Errorf("administrator %q is %+v, %v", name, p, err)
		}
	}

	// Nothing outlives the CA.
	der, err = ca.SignNode(request, NodeInfo{Number: 1, Name: "n"}, birth.Add(CAValidity-time.Hour))
	if cert := parse(t, der, err); cert.NotAfter.After(ca.Certificate.NotAfter) {
		t.Errorf("valid until %v, the CA until %v", cert.NotAfter, ca.Certificate.NotAfter)
	}
}

// A signer whose clock is wrong makes certificates that others can live with, or none.
func TestSignersClock(t *testing.T) {
	ca := testCA(t)
	key := testKey(t)
	request, caPEM := testRequest(t, key), ca.CertificatePEM()
	for name, test := range map[string]struct {
		now  time.Time
		ok   bool
		left time.Duration // of what is signed, after the cluster was made
	}{
		"right":             {birth.Add(time.Hour), true, NodeValidity + time.Hour},
		"dead":              {time.Unix(0, 0), true, NodeValidity},
		"a minute behind":   {birth.Add(-time.Minute), true, NodeValidity},
		"years ahead":       {birth.AddDate(10, 0, 0), true, birth.AddDate(10, 0, 0).Sub(birth) + NodeValidity},
		"after the CA":      {birth.Add(CAValidity), false, 0},
		"long after the CA": {birth.AddDate(100, 0, 0), false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			signed, err := ca.SignNode(request, NodeInfo{Number: 1, Name: "n"}, test.now)
			if !test.ok {
				if err == nil || !strings.Contains(err.Error(), "clock") {
					t.Fatalf("signed, or without a hint: %v", err)
				}
				return
			}
			cert := parse(t, signed, err)
			if _, err := NewCredentials(signed, key, caPEM); err != nil {
				t.Errorf("the owner cannot use it: %v", err)
			}
			if left := cert.NotAfter.Sub(birth); left != test.left {
				t.Errorf("valid for %v after the cluster was made, want %v", left, test.left)
			}
		})
	}
}

func TestRequestsThatAreNotSigned(t *testing.T) {
	ca := testCA(t)
	good := testRequest(t, testKey(t))
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, _, err := decodePEM(good, pemRequest)
	if err != nil {
		t.Fatal(err)
	}
	forged := bytes.Clone(der)
	forged[len(forged)-1] ^= 1
	tests := map[string]struct {
		request []byte
		info    NodeInfo
	}{
		"no number":        {good, NodeInfo{Name: "n"}},
		"no name":          {good, NodeInfo{Number: 1}},
		"long name":        {good, NodeInfo{Number: 1, Name: strings.Repeat("n", 65)}},
		"name with slash":  {good, NodeInfo{Number: 1, Name: "a/b"}},
		"name with return": {good, NodeInfo{Number: 1, Name: "a\nb"}},
		"empty":            {nil, NodeInfo{Number: 1, Name: "n"}},
		"no PEM":           {[]byte("hello"), NodeInfo{Number: 1, Name: "n"}},
		"a certificate":    {ca.CertificatePEM(), NodeInfo{Number: 1, Name: "n"}},
		"forged signature": {encodePEM(pemRequest, forged), NodeInfo{Number: 1, Name: "n"}},
		"RSA":              {testRequest(t, rsaKey), NodeInfo{Number: 1, Name: "n"}},
	}
	for name, test := range tests {
		if _, err := ca.SignNode(test.request, test.info, birth); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	if _, err := ca.SignAdmin(good, "ada", 0, birth); err == nil {
		t.Error("a certificate for no time is signed")
	}
	for _, id := range []string{"", "a/b", "A", strings.Repeat("a", 65)} {
		if _, err := NewCA("test", id, birth); err == nil {
			t.Errorf("a CA for cluster %q is made", id)
		}
	}
}

func TestSealing(t *testing.T) {
	ca, other := testCA(t), testCA(t)
	key := NewClusterKey()
	sealed, err := ca.Seal(key)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := OpenCA(ca.CertificatePEM(), sealed, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := opened.SignNode(testRequest(t, testKey(t)), NodeInfo{Number: 1, Name: "n"}, birth)
	if err := parse(t, der, err).CheckSignatureFrom(ca.Certificate); err != nil {
		t.Error(err)
	}
	if again, err := ca.Seal(key); err != nil || bytes.Equal(again, sealed) {
		t.Errorf("sealing twice gives the same, or %v", err)
	}
	damaged := bytes.Clone(sealed)
	damaged[len(damaged)/2] ^= 1
	for name, test := range map[string]struct{ cert, sealed, key []byte }{
		"another key":         {ca.CertificatePEM(), sealed, NewClusterKey()},
		"short key":           {ca.CertificatePEM(), sealed, key[1:]},
		"another certificate": {other.CertificatePEM(), sealed, key},
		"damaged":             {ca.CertificatePEM(), damaged, key},
		"cut off":             {ca.CertificatePEM(), sealed[:10], key},
		"empty":               {ca.CertificatePEM(), nil, key},
		"unknown version":     {ca.CertificatePEM(), append([]byte{9}, sealed[1:]...), key},
	} {
		if _, err := OpenCA(test.cert, test.sealed, test.key); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

func TestNotCA(t *testing.T) {
	ca, other := testCA(t), testCA(t)
	if _, err := newCA(other.Certificate.Raw, ca.key); err == nil {
		t.Error("another CA's key is taken")
	}
	leafPEM, err := ca.SignNode(testRequest(t, ca.key), NodeInfo{Number: 1, Name: "n"}, birth)
	leaf := parse(t, leafPEM, err)
	if _, err := newCA(leaf.Raw, ca.key); err == nil {
		t.Error("a node's certificate is taken for a CA's")
	}
}

func TestBundle(t *testing.T) {
	ca, other := testCA(t), testCA(t)
	both, err := ParseCertificates(append(ca.CertificatePEM(), other.CertificatePEM()...))
	if err != nil || len(both) != 2 {
		t.Errorf("a bundle of two: %d, %v", len(both), err)
	}
	if _, err := ParseCertificates(append(ca.CertificatePEM(), "rubbish"...)); err == nil {
		t.Error("rubbish in a bundle is taken")
	}
}

// Any name that a certificate has either is one that the CA makes, or an error.
func FuzzPeerOfCertificate(f *testing.F) {
	f.Add("holdfast://abc/node/1", "n")
	f.Add("holdfast://abc/admin/ada", "ada")
	f.Add("holdfast://abc/node/01", "n")
	f.Add("holdfast://abc/admin", "")
	f.Add("https://example.com", "n")
	f.Fuzz(func(t *testing.T, uri, name string) {
		u, err := url.Parse(uri)
		if err != nil {
			return
		}
		p, err := PeerOfCertificate(&x509.Certificate{URIs: []*url.URL{u}, Subject: pkix.Name{CommonName: name}, SerialNumber: newSerial()})
		if err != nil {
			return
		}
		want := nodeURI(p.Cluster, p.Node)
		if p.Kind == KindAdmin {
			want = adminURI(p.Cluster, p.Name)
		}
		if p.Kind == KindStranger || want.Path != u.Path || want.Host != u.Host {
			t.Errorf("%s is taken for %+v", uri, p)
		}
	})
}
