package config

import (
	"fmt"
	"net/netip"
)

// volumeNames collects what no two volumes may share.
type volumeNames struct {
	names     map[string]string
	ids       map[uint32]string
	listeners []listener
	addresses map[netip.Addr]string
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
		unique(v.decoder, seen.names, key+".name", vol.Name, "the name")
	}
	if v.usable(key+".id") && vol.ID == 0 {
		v.failAt(key+".id", "an id is a number from 1 up")
	}
	unique(v.decoder, seen.ids, key+".id", vol.ID, "the id")
	listen := v.listen(vol.Listen, key+".listen", defaultListen)
	if v.required(key+".address") && !v.bad[key+".address"] {
		v.address(vol, key+".address", listen, seen)
	}
	if listen.IsValid() {
		seen.listeners = v.apart(seen.listeners, listener{addr: listen, key: key + ".listen"})
	}
	if v.required(key+".exports") && !v.bad[key+".exports"] {
		v.exports(vol.Exports, key+".exports")
	}
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
		unique(v.decoder, seen.addresses, key+".ip", ip, "the address")
		v.notAPeer(key+".ip", ip)
		if listen.IsValid() && !listen.Addr().IsUnspecified() && listen.Addr() != ip {
			v.failAt(parentOf(key)+".listen", "clients mount %s, where nothing would listen; use 0.0.0.0:%d or %s",
				ip, listen.Port(), netip.AddrPortFrom(ip, listen.Port()))
		}
	}
	if v.required(key + ".device") {
		v.device(key+".device", a.Device)
	}
	v.lifetime(key+".lifetime", a.Lifetime)
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
