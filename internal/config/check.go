package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"holdfast/internal/export"
)

const (
	// maxNameBytes bounds names of nodes, zones, volumes and clusters, as of a DNS label.
	maxNameBytes   = 63
	maxDeviceBytes = 15          // IFNAMSIZ without its NUL
	minLifetime    = time.Second // the kernel counts lifetimes of addresses in whole seconds
	maxLifetime    = time.Hour
	maxFailback    = 30 * 24 * time.Hour
)

// required complains about a key that is missing, unless what should contain it is wrong as a whole.
func (d *decoder) required(key string) bool {
	if d.has(key) {
		return true
	}
	if d.bad[parentOf(key)] {
		return false
	}
	d.failAt(key, "the key is missing")
	return false
}

// parentOf returns the key of the mapping that a key is in; "" is the file's own.
func parentOf(key string) string { return key[:max(0, strings.LastIndexByte(key, '.'))] }

// oneOf complains about a value that is not among the known ones.
func (d *decoder) oneOf(key, value string, known ...string) {
	if !d.usable(key) {
		return
	}
	for _, k := range known {
		if value == k {
			return
		}
	}
	if meant := nearest(value, known); meant != "" {
		d.failAt(key, "unknown value %q; did you mean %q?", value, meant)
		return
	}
	d.failAt(key, "unknown value %q; known are %s", value, strings.Join(known, ", "))
}

// name checks a name that ends up in file names, metrics and messages.
func (d *decoder) name(key, name string) {
	if !d.usable(key) {
		return
	}
	if name == "" || len(name) > maxNameBytes {
		d.failAt(key, "%q: a name has 1 to %d characters", name, maxNameBytes)
		return
	}
	for i, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_':
		case (r == '-' || r == '.') && i > 0:
		default:
			d.failAt(key, "%q: a name is made of letters, digits, - _ and ., the first a letter, digit or _", name)
			return
		}
	}
}

// unique complains about a value that an earlier key has.
func unique[T comparable](d *decoder, seen map[T]string, key string, value T, what string) {
	if d.bad[key] {
		return
	}
	if first, twice := seen[value]; twice {
		d.failAt(key, "%s %v is taken by %s", what, value, d.where(first))
		return
	}
	seen[value] = key
}

// where names a key and its line.
func (d *decoder) where(key string) string {
	if at, ok := d.places[key]; ok && !d.placeless {
		return fmt.Sprintf("%s in line %d", key, at.line)
	}
	return key
}

// validHost reports whether host is an IP address or could be the name of a host.
func validHost(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.IsValid()
	}
	_, err := export.ParseMatch(host)
	return err == nil && !strings.ContainsAny(host, "*?/")
}

func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// listener is where connections are taken, and the key that says so.
type listener struct {
	addr netip.AddrPort
	key  string
	// node says that the port is taken at every own address of every node; addr is unspecified then.
	node bool
	// moving says that addr is no node's own.
	moving bool
}

// collides reports whether l and o cannot listen on one node at the same time.
func (l listener) collides(o listener) bool {
	switch {
	case l.addr.Port() != o.addr.Port():
		return false
	case l.node && o.moving, l.moving && o.node:
		return l.addr.Addr().IsUnspecified() && o.addr.Addr().IsUnspecified()
	}
	return l.addr.Addr() == o.addr.Addr() || l.addr.Addr().IsUnspecified() || o.addr.Addr().IsUnspecified()
}

func (l listener) String() string {
	if l.node {
		return fmt.Sprintf("port %d of every node", l.addr.Port())
	}
	return l.addr.String()
}

// apart complains if l collides with one of others, and returns them with l.
func (d *decoder) apart(others []listener, l listener) []listener {
	for _, o := range others {
		if !l.collides(o) {
			continue
		}
		if l.node || o.node {
			d.failAt(l.key, "%s collides with %s (%s); use another port", l, o, d.where(o.key))
		} else {
			d.failAt(l.key, "%s collides with %s (%s), as one node may lead both volumes; let each listen on an IP address of its own", l, o, d.where(o.key))
		}
		break
	}
	return append(others, l)
}

// listen checks where NFS is served and returns it, or the zero AddrPort; such is an example.
func (d *decoder) listen(text, key, such string) netip.AddrPort {
	if d.bad[key] {
		return netip.AddrPort{}
	}
	listen, err := netip.ParseAddrPort(text)
	if err != nil || listen.Port() == 0 {
		d.failAt(key, "%q is not an IP address with a port, such as %s", text, such)
		return netip.AddrPort{}
	}
	return listen
}

// device checks the name of a network device.
func (d *decoder) device(key, name string) {
	odd := func(r rune) bool {
		return r == '/' || r == utf8.RuneError || unicode.IsSpace(r) || unicode.IsControl(r)
	}
	if d.usable(key) && (name == "" || len(name) > maxDeviceBytes || strings.ContainsFunc(name, odd)) {
		d.failAt(key, "%q is not the name of a network device, such as eth0", name)
	}
}

// lifetime checks how long the kernel keeps an address.
func (d *decoder) lifetime(key string, l Duration) {
	switch {
	case !d.usable(key):
	case time.Duration(l) < minLifetime:
		d.failAt(key, "the kernel counts in seconds; use at least %v", minLifetime)
	case time.Duration(l) > maxLifetime:
		d.failAt(key, "a node that hangs would have the address beside the one that serves for %v; use at most %v", l, Duration(maxLifetime))
	}
}
