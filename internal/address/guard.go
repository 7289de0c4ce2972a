package address

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A guard keeps the kernel from sending what comes from an IPv6 address that it no longer has: the resets of a killed process's connections
// above all. For IPv4 the kernel does not send such packets; for IPv6 nobody checks.
//
// A rule makes what comes from the address look into a table of its own first. There a route leads to the carrier, and is as good as
// none, because the rule suppresses routes to the carriers' group of interfaces, so that the usual tables decide; and a worse route swallows
// everything. The former goes with the carrier, or with its lifetime, and the latter remains. Where the address is not, the remains
// do no harm.
const (
	guardPriority = 100        // of the rule; before those that people make
	carrierGroup  = 0x4864     // of interfaces
	guardMetric   = 1          // of the route to the carrier
	swallowMetric = 1 << 16    // of the route that swallows
	guardTables   = 0x48000000 // to which a hash of the address is added
)

// rtaExpires is RTA_EXPIRES of linux/rtnetlink.h: the lifetime of a route, in seconds.
const rtaExpires = 23

func guardTable(ip netip.Addr) int {
	h := fnv.New32a()
	h.Write(ip.AsSlice())
	return guardTables | int(h.Sum32()&0xffffff)
}

// guard sets up the guard of an address, or renews it, for a lifetime.
func (*kernel) guard(d device, ip netip.Addr, lifetime time.Duration) error {
	// This one first: without it the other two stop everything.
	msg := nl.NewRtMsg()
	msg.Family, msg.Table = unix.AF_INET6, unix.RT_TABLE_UNSPEC
	err := request(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, msg,
		number(unix.RTA_TABLE, guardTable(ip)),
		number(unix.RTA_OIF, d.index),
		number(unix.RTA_PRIORITY, guardMetric),
		number(rtaExpires, int(lifetime/time.Second)))
	if err != nil {
		return fmt.Errorf("guard %s: add route to %s: %w", ip, d.name, err)
	}
	if err := netlink.RouteReplace(swallowRoute(ip)); err != nil {
		return fmt.Errorf("guard %s: add route: %w", ip, err)
	}
	if err := guardRule(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ip); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("guard %s: add rule: %w", ip, err)
	}
	return nil
}

// closeGuard makes the kernel swallow what comes from the address, if there is a guard.
func (*kernel) closeGuard(d device, ip netip.Addr) error {
	route := netlink.Route{Table: guardTable(ip), LinkIndex: d.index, Dst: everywhere(), Priority: guardMetric}
	if err := netlink.RouteDel(&route); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("guard %s: remove route to %s: %w", ip, d.name, err)
	}
	return nil
}

// unguard removes all that is left of a guard.
func (*kernel) unguard(ip netip.Addr) error {
	err := guardRule(unix.RTM_DELRULE, 0, ip)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT) {
		return nil // there is none
	}
	if routeErr := netlink.RouteDel(swallowRoute(ip)); !errors.Is(routeErr, unix.ESRCH) {
		err = errors.Join(err, routeErr)
	}
	if err != nil {
		return fmt.Errorf("remove the guard of %s: %w", ip, err)
	}
	return nil
}

// guardRule adds or removes the rule, which is for packets of this machine only, not for those that it forwards.
func guardRule(kind, flags int, ip netip.Addr) error {
	rule := &nl.RtMsg{RtMsg: unix.RtMsg{Family: unix.AF_INET6, Src_len: 128, Type: nl.FR_ACT_TO_TBL}}
	return request(kind, flags, rule,
		nl.NewRtAttr(nl.FRA_SRC, ip.AsSlice()),
		nl.NewRtAttr(nl.FRA_IIFNAME, []byte("lo\x00")),
		number(nl.FRA_PRIORITY, guardPriority),
		number(nl.FRA_TABLE, guardTable(ip)),
		number(nl.FRA_SUPPRESS_IFGROUP, carrierGroup))
}

// request sends what package netlink has no words for.
func request(kind, flags int, msg *nl.RtMsg, attrs ...*nl.RtAttr) error {
	r := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	r.AddData(msg)
	for _, a := range attrs {
		r.AddData(a)
	}
	_, err := r.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

func number(kind, value int) *nl.RtAttr { return nl.NewRtAttr(kind, nl.Uint32Attr(uint32(value))) }

func swallowRoute(ip netip.Addr) *netlink.Route {
	return &netlink.Route{Table: guardTable(ip), Type: unix.RTN_BLACKHOLE, Dst: everywhere(), Priority: swallowMetric, Family: netlink.FAMILY_V6}
}

func everywhere() *net.IPNet { return &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)} }
