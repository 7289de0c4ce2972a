package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

// Token is what a node asks with to be let into a cluster. Whoever has it can join as long as the cluster accepts it.
type Token struct {
	// ID names the token; it is no secret.
	ID string
	// Secret proves that its bearer was given the token. The cluster keeps only Hash.
	Secret [16]byte
	// Pin is the hash of the cluster's CA (Pin), by which the bearer knows the cluster.
	Pin [sha256.Size]byte
}

// A token's printed form is the prefix and, in base 32, 5 bytes of ID, the secret, the pin and a checksum: the first 4 bytes of the SHA-256 of all before it.
const (
	tokenPrefix   = "hf1-"
	tokenIDBytes  = 5
	tokenSumBytes = 4
	tokenBytes    = tokenIDBytes + 16 + sha256.Size + tokenSumBytes
)

var tokenChars = len(tokenPrefix) + text32.EncodedLen(tokenBytes)

// NewToken draws a token for the cluster with the CA.
func NewToken(ca *x509.Certificate) Token {
	t := Token{ID: randomText(tokenIDBytes), Pin: Pin(ca)}
	_, _ = rand.Read(t.Secret[:]) // never fails
	return t
}

// String returns the token as one word.
func (t Token) String() string {
	id, err := text32.DecodeString(t.ID)
	if err != nil || len(id) != tokenIDBytes {
		return "invalid token"
	}
	b := make([]byte, 0, tokenBytes)
	b = append(b, id...)
	b = append(b, t.Secret[:]...)
	b = append(b, t.Pin[:]...)
	sum := sha256.Sum256(b)
	return tokenPrefix + text32.EncodeToString(append(b, sum[:tokenSumBytes]...))
}

// ErrBadToken is what errors.Is finds in every error of ParseToken.
var ErrBadToken = errors.New("the token cannot be used")

// ParseToken reads a token as String wrote it, with capitals and spaces around it.
func ParseToken(s string) (Token, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	switch {
	case s == "":
		return Token{}, fmt.Errorf("%w: it is empty", ErrBadToken)
	case !strings.HasPrefix(s, tokenPrefix):
		return Token{}, fmt.Errorf("%w: it does not begin with %q, so it is something else or comes from another release", ErrBadToken, tokenPrefix)
	case len(s) < tokenChars:
		return Token{}, fmt.Errorf("%w: it is cut off, as it has %d of %d characters; copy all of it", ErrBadToken, len(s), tokenChars)
	case len(s) > tokenChars:
		return Token{}, fmt.Errorf("%w: it has %d characters too many; copy the token alone", ErrBadToken, len(s)-tokenChars)
	}
	b, err := text32.DecodeString(s[len(tokenPrefix):])
	if err != nil || len(b) != tokenBytes {
		return Token{}, fmt.Errorf("%w: it has characters that are in no token; copy it again", ErrBadToken)
	}
	sum := sha256.Sum256(b[:tokenBytes-tokenSumBytes])
	if [tokenSumBytes]byte(b[tokenBytes-tokenSumBytes:]) != [tokenSumBytes]byte(sum[:]) {
		return Token{}, fmt.Errorf("%w: a character of it was changed; copy it again", ErrBadToken)
	}
	t := Token{ID: text32.EncodeToString(b[:tokenIDBytes])}
	b = b[tokenIDBytes:]
	copy(t.Secret[:], b)
	copy(t.Pin[:], b[len(t.Secret):])
	if t.String() != s { // the last character has bits that stand for nothing
		return Token{}, fmt.Errorf("%w: a character of it was changed; copy it again", ErrBadToken)
	}
	return t, nil
}

// Hash returns what the cluster keeps of the secret.
func (t Token) Hash() []byte {
	sum := sha256.Sum256(t.Secret[:])
	return sum[:]
}
