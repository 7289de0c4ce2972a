package identity

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
)

func TestToken(t *testing.T) {
	ca := testCA(t)
	token, other := NewToken(ca.Certificate), NewToken(ca.Certificate)
	if token.ID == other.ID || token.Secret == other.Secret {
		t.Error("two tokens are alike")
	}
	if token.Pin != sha256.Sum256(ca.Certificate.Raw) {
		t.Error("the pin is not the CA's")
	}
	s := token.String()
	if !strings.HasPrefix(s, "hf1-") || strings.ContainsAny(s, " \n=/+") {
		t.Errorf("the token is written as %q", s)
	}
	for _, written := range []string{s, " " + s + "\n", strings.ToUpper(s)} {
		if again, err := ParseToken(written); err != nil || again != token {
			t.Errorf("%q is read as %+v, %v", written, again, err)
		}
	}
	if bytes.Equal(token.Hash(), other.Hash()) {
		t.Error("two tokens have one hash")
	}
}

func TestBadTokens(t *testing.T) {
	s := NewToken(testCA(t).Certificate).String()
	changed := []byte(s)
	if changed[40]++; changed[40] == 'i' || changed[40] == 'l' || changed[40] == 'o' || changed[40] == 'u' || changed[40] == '{' || changed[40] == ':' {
		changed[40] = 'a'
	}
	for name, test := range map[string]struct{ token, want string }{
		"empty":          {" ", "empty"},
		"something else": {"swordfish", "does not begin"},
		"next release":   {"hf2-" + s[4:], "another release"},
		"cut off":        {s[:len(s)-1], "cut off"},
		"prefix only":    {"hf1-", "cut off"},
		"twice":          {s + s, "too many"},
		"changed":        {string(changed), "was changed"},
		"odd character":  {s[:40] + "!" + s[41:], "in no token"},
	} {
		_, err := ParseToken(test.token)
		if !errors.Is(err, ErrBadToken) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	s := NewToken(testCA(f).Certificate).String()
	f.Add(s)
	f.Add(s[:20])
	f.Add(strings.ToUpper(s) + " ")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseToken(s)
		if err != nil {
			if !errors.Is(err, ErrBadToken) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		if again, err := ParseToken(token.String()); err != nil || again != token || token.String() != strings.ToLower(strings.TrimSpace(s)) {
			t.Errorf("%q is read as %+v and written as %q, %v", s, token, token.String(), err)
		}
	})
}
