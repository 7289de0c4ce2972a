package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// scalar is a value with a syntax of its own.
type scalar interface {
	// parse sets the value from the text in the file.
	parse(text string) error
}

// Size is a number of bytes. In the file it may carry a unit: KiB, MiB, GiB, TiB, or the decimal kB, MB, GB, TB.
type Size uint64

var sizeUnits = []struct {
	suffix string
	bytes  uint64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

func (s *Size) parse(text string) error {
	number, unit := text, uint64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(text, u.suffix); ok {
			number, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && n > math.MaxInt64/unit:
		return fmt.Errorf("%q is too large", text)
	case err != nil:
		return fmt.Errorf("%q is not a size; write a whole number and a unit, such as 512KiB, 64MiB or 1GiB", text)
	}
	*s = Size(n * unit)
	return nil
}

// String returns s with the largest binary unit that divides it.
func (s Size) String() string {
	for i := 3; i >= 0; i-- {
		if u := sizeUnits[i]; s != 0 && uint64(s)%u.bytes == 0 {
			return strconv.FormatUint(uint64(s)/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatUint(uint64(s), 10)
}

// MarshalText writes s as String does.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads s as a file has it.
func (s *Size) UnmarshalText(text []byte) error { return s.parse(string(text)) }

// UnmarshalJSON takes a string such as "64MiB", and a number of bytes.
func (s *Size) UnmarshalJSON(text []byte) error {
	unquoted := string(text)
	if unquoted == "null" {
		return nil
	}
	if strings.HasPrefix(unquoted, `"`) {
		if err := json.Unmarshal(text, &unquoted); err != nil {
			return err
		}
	}
	return s.parse(unquoted)
}

// Duration is a time.Duration, written as 20ms, 3s or 1m30s.
type Duration time.Duration

func (d *Duration) parse(text string) error {
	if err := d.UnmarshalText([]byte(text)); err != nil {
		return err
	}
	if *d <= 0 {
		return fmt.Errorf("%q: a duration here must be longer than nothing", text)
	}
	return nil
}

// String returns d as the file has it: 5m, not 5m0s.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText writes d as String does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads d as a file has it, and zero and less too.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration; write a number and a unit, such as 20ms, 3s or 1m30s", text)
	}
	*d = Duration(v)
	return nil
}

// Prefix is an IP address with the length of its network's prefix, as 10.94.0.100/24.
type Prefix netip.Prefix

func (p *Prefix) parse(text string) error {
	v, err := netip.ParsePrefix(text)
	if err != nil {
		if addr, err := netip.ParseAddr(text); err == nil {
			return fmt.Errorf("%q lacks the length of its network's prefix; write %s/24 or whatever the network has", text, addr)
		}
		return fmt.Errorf("%q is not an IP address with the length of its network's prefix, such as 10.94.0.100/24", text)
	}
	if !v.Addr().IsGlobalUnicast() && !v.Addr().IsLoopback() {
		return fmt.Errorf("%q is not an address that a server can have: name one of the clients' network that no machine has yet", text)
	}
	*p = Prefix(v)
	return nil
}

// String returns p as the file has it, or nothing for the zero Prefix.
func (p Prefix) String() string {
	if p == (Prefix{}) {
		return ""
	}
	return netip.Prefix(p).String()
}

// MarshalText writes p as String does.
func (p Prefix) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads p as a file has it; nothing is the zero Prefix.
func (p *Prefix) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*p = Prefix{}
		return nil
	}
	return p.parse(string(text))
}

// Network is the IP addresses of a network, such as 10.94.0.0/24; in the file one address stands for the network of itself.
type Network netip.Prefix

func (n *Network) parse(text string) error {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		*n = Network(netip.PrefixFrom(addr, addr.BitLen()))
		return nil
	}
	v, err := netip.ParsePrefix(text)
	switch {
	case err != nil || v.Addr().Is4In6():
		return fmt.Errorf("%q is neither an IP address nor a network, such as 10.94.0.5 or 10.94.0.0/24", text)
	case v != v.Masked():
		return fmt.Errorf("%q is not a network: write %v for all of it, or %v for the one address", text, v.Masked(), v.Addr())
	}
	*n = Network(v)
	return nil
}

// String returns n as the file has it: one address without the length of its prefix.
func (n Network) String() string {
	p := netip.Prefix(n)
	if p.IsValid() && p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// MarshalText writes n as String does.
func (n Network) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText reads n as a file has it.
func (n *Network) UnmarshalText(text []byte) error { return n.parse(string(text)) }

// Mode is the permission bits of a folder, in octal: "0755".
type Mode uint32

func (m *Mode) parse(text string) error {
	v, err := strconv.ParseUint(strings.TrimPrefix(text, "0o"), 8, 32)
	if err != nil || v > 0o7777 {
		return fmt.Errorf("%q is not a mode; write it in octal, such as \"0755\"", text)
	}
	*m = Mode(v)
	return nil
}

// String returns m as the file has it.
func (m Mode) String() string { return fmt.Sprintf("%04o", uint32(m)) }

// MarshalText writes m as String does.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads m as a file has it.
func (m *Mode) UnmarshalText(text []byte) error { return m.parse(string(text)) }
