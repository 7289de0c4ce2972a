package cli

import (
	"strings"
	"testing"
)

// FuzzParseAdmin reads files that are said to hold a certificate.
func FuzzParseAdmin(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if creds, err := parseAdmin(text); (creds == nil) != (err != nil) {
			t.Errorf("%v, %v", creds, err)
		}
	})
}

// FuzzParseClient writes what it has read, and reads that again.
func FuzzParseClient(f *testing.F) {
	for _, seed := range []string{"10.0.0.0/24:rw,anonuid=5", "fd00::1:rw", "[fd00::1]", "*.example.com(ro)", "*"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseClient(text)
		if err != nil {
			return
		}
		again, err := parseClient(clientText(c))
		if err != nil || again.Match != c.Match || strings.Join(again.Options, ",") != strings.Join(c.Options, ",") {
			t.Errorf("%q is %+v, written as %q, which is %+v, %v", text, c, clientText(c), again, err)
		}
	})
}
