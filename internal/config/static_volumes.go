package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"holdfast/internal/export"
)

// volumeNames collects what no two volumes may share.
type volumeNames struct {
	names     map[string]string
	ids       map[uint32]string
	listeners []listener
	addresses map[netip.Addr]string
}

// listener is where a volume's NFS is served, and the key that says so.
type listener struct {
	addr netip.AddrPort
	key  string
}

func (v *validator) volumes() {
	if !v.required("volumes") || v.bad["volumes"] {
		return
	}
	if len(v.c.Volumes) == 0 {
		v.failAt("volumes", "there is nothing to serve: a cluster has at least one volume")
		return
	}
	seen := volumeNames{names: map[string]string{}, ids: map[uint32]string{}, addresses: map[netip.Addr]string{}}
	for i := range v.c.Volumes {
		v.volume(&v.c.Volumes[i], fmt.Sprintf("volumes[%d]", i), &seen)
	}
}

func (v *validator) volume(vol *Volume, key string, seen *volumeNames) {
	if v.required(key + ".name") {
		v.name(key+".name", vol.Name)
		unique(v, seen.names, key+".name", vol.Name, "the name")
	}
	if v.usable(key+".id") && vol.ID == 0 {
		v.failAt(key+".id", "an id is a number from 1 up")
	}
	unique(v, seen.ids, key+".id", vol.ID, "the id")
	listen := v.listen(vol, key+".listen")
	if v.required(key+".address") && !v.bad[key+".address"] {
		v.address(vol, key+".address", listen, seen)
	}
	if listen.IsValid() {
		v.listenApart(listener{listen, key + ".listen"}, seen)
	}
	if v.required(key+".exports") && !v.bad[key+".exports"] {
		v.exports(vol, key+".exports")
	}
}

// listen checks where NFS is served and returns it, or the zero AddrPort.
func (v *validator) listen(vol *Volume, key string) netip.AddrPort {
	if v.bad[key] {
		return netip.AddrPort{}
	}
	listen, err := netip.ParseAddrPort(vol.Listen)
	if err != nil || listen.Port() == 0 {
		v.failAt(key, "%q is not an IP address with a port, such as %s", vol.Listen, defaultListen)
		return netip.AddrPort{}
	}
	return listen
}

// listenApart complains about volumes that cannot listen on one node at the same time.
func (v *validator) listenApart(l listener, seen *volumeNames) {
	for _, other := range seen.listeners {
		same := l.addr.Addr() == other.addr.Addr() || l.addr.Addr().IsUnspecified() || other.addr.Addr().IsUnspecified()
		if same && l.addr.Port() == other.addr.Port() {
			v.failAt(l.key, "%s collides with %s (%s), as one node may lead both volumes; let each listen on an IP address of its own",
				l.addr, other.addr, v.where(other.key))
			break
		}
	}
	seen.listeners = append(seen.listeners, l)
}

func (v *validator) address(vol *Volume, key string, listen netip.AddrPort, seen *volumeNames) {
	a := &vol.Address
	if !v.required(key + ".kind") {
		return
	}
	v.oneOf(key+".kind", a.Kind, AddressIP, AddressListen)
	if v.bad[key+".kind"] {
		return
	}
	if a.Kind == AddressListen {
		for _, name := range []string{"ip", "device", "lifetime"} {
			if v.has(key + "." + name) {
				v.failAt(key+"."+name, "an address of kind %s has no %s: the listener's own address is what clients mount", a.Kind, name)
			}
		}
		if listen.IsValid() && listen.Addr().IsUnspecified() && !v.bad[parentOf(key)+".listen"] {
			v.failAt(parentOf(key)+".listen", "with an address of kind listen, this is what clients mount: name the IP address")
		}
		return
	}
	v.ipAddress(vol, key, listen, seen)
}

func (v *validator) ipAddress(vol *Volume, key string, listen netip.AddrPort, seen *volumeNames) {
	a := &vol.Address
	ip := netip.Prefix(a.IP).Addr()
	if v.required(key+".ip") && v.usable(key+".ip") {
		unique(v, seen.addresses, key+".ip", ip, "the address")
		v.notAPeer(key+".ip", ip)
		if listen.IsValid() && !listen.Addr().IsUnspecified() && listen.Addr() != ip {
			v.failAt(parentOf(key)+".listen", "clients mount %s, where nothing would listen; use 0.0.0.0:%d or %s",
				ip, listen.Port(), netip.AddrPortFrom(ip, listen.Port()))
		}
	}
	if v.required(key+".device") && v.usable(key+".device") {
		if d := a.Device; d == "" || len(d) > maxDeviceBytes || strings.ContainsAny(d, "/ \t\n") {
			v.failAt(key+".device", "%q is not the name of a network device, such as eth0", d)
		}
	}
	if v.usable(key+".lifetime") && time.Duration(a.Lifetime) < minLifetime {
		v.failAt(key+".lifetime", "the kernel counts in seconds; use at least %v", minLifetime)
	}
}

// notAPeer complains about an address that is to move between nodes but belongs to one.
func (v *validator) notAPeer(key string, ip netip.Addr) {
	for i := range v.c.Nodes {
		peer, err := netip.ParseAddrPort(v.c.Nodes[i].Peer)
		if err == nil && peer.Addr() == ip {
			v.failAt(key, "%s is the own address of node %s (%s); a volume needs one that can move", ip, v.c.Nodes[i].Name,
				v.where(fmt.Sprintf("nodes[%d].peer", i)))
		}
	}
}

func (v *validator) exports(vol *Volume, key string) {
	for i := range vol.Exports {
		e, at := &vol.Exports[i], fmt.Sprintf("%s[%d]", key, i)
		if v.required(at + ".path") {
			v.exportPath(vol, i, key)
		}
		if !v.required(at+".clients") || v.bad[at+".clients"] {
			continue
		}
		if len(e.Clients) == 0 {
			v.failAt(at+".clients", `nobody could use the export; for everybody, write {match: "*", options: [ro]}`)
		}
		for j := range e.Clients {
			v.client(&e.Clients[j], fmt.Sprintf("%s.clients[%d]", at, j))
		}
	}
}

func (v *validator) exportPath(vol *Volume, i int, key string) {
	at := fmt.Sprintf("%s[%d].path", key, i)
	if v.bad[at] {
		return
	}
	if err := export.CheckPath(vol.Exports[i].Path); err != nil {
		v.failAt(at, "%s", err)
		return
	}
	for j := range i {
		other := fmt.Sprintf("%s[%d].path", key, j)
		if v.usable(other) && export.Overlap(vol.Exports[j].Path, vol.Exports[i].Path) {
			v.failAt(at, "%s overlaps %s (%s); an export must not contain another", vol.Exports[i].Path, vol.Exports[j].Path, v.where(other))
			return
		}
	}
}

func (v *validator) client(c *Client, key string) {
	if v.required(key+".match") && !v.bad[key+".match"] {
		if _, err := export.ParseMatch(c.Match); err != nil {
			v.failAt(key+".match", "%s", err)
		}
	}
	for i, opt := range c.Options {
		at := fmt.Sprintf("%s.options[%d]", key, i)
		if v.bad[at] {
			continue
		}
		if _, err := export.ParseOptions([]string{opt}); err != nil {
			if meant := nearest(opt, export.OptionNames); meant != "" && errors.Is(err, export.ErrUnknownOption) {
				v.failAt(at, "unknown export option %q; did you mean %q?", opt, meant)
			} else {
				v.failAt(at, "%s", err)
			}
		}
	}
}
