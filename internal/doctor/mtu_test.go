package doctor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// TestPath checks on real devices, in network namespaces, that a path that is narrower than its first device is noticed, reported by routers or not.
func TestPath(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	for _, tt := range []struct {
		name      string
		far       int // the MTU at the other end
		route     int // the MTU of the route
		want      path
		wantState Status
	}{
		{"well", 1500, 0, path{"veth0", 1500, 1500, true, true}, OK},
		{"hole", 1400, 0, path{"veth0", 1500, 1500, true, false}, Problem},
		{"narrow", 1400, 1400, path{"veth0", 1500, 1400, true, true}, Warning},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got path
			err := inNamespace(func() error {
				there, err := netns.New()
				if err != nil {
					return err
				}
				defer there.Close() // which ends it, and the cable
				if err := layCable(there, tt.far, tt.route); err != nil {
					return err
				}
				got, err = probePath(t.Context(), "192.0.2.2:7420")
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("the path is %+v, want %+v", got, tt.want)
			}
			if f := judgePath(Peer{Name: "n2"}, got); f[0].status != tt.wantState {
				t.Errorf("found %+v", f)
			}
		})
	}
}

// inNamespace runs f on a thread that may change its network namespace meanwhile.
func inNamespace(f func() error) error {
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		return err
	}
	defer before.Close()
	err = f()
	if restoreErr := netns.Set(before); restoreErr != nil {
		return errors.Join(err, restoreErr) // the thread stays locked, for nobody else to run on
	}
	runtime.UnlockOSThread()
	return err
}

// layCable makes a network namespace for this thread (192.0.2.1) and connects it to another one (192.0.2.2). Neither has anything else.
func layCable(there netns.NsHandle, farMTU, routeMTU int) error {
	here, err := netns.New()
	if err != nil {
		return err
	}
	defer here.Close()
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth0", MTU: 1500}, PeerName: "veth1", PeerNamespace: netlink.NsFd(there)}); err != nil {
		return fmt.Errorf("add a cable: %w", err)
	}
	for i, ns := range []netns.NsHandle{here, there} {
		h, err := netlink.NewHandleAt(ns)
		if err != nil {
			return err
		}
		defer h.Close()
		link, err := h.LinkByName(fmt.Sprintf("veth%d", i))
		if err != nil {
			return err
		}
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, byte(i+1)), Mask: net.CIDRMask(24, 32)}}
		mtu := []int{1500, farMTU}[i]
		if err := errors.Join(h.LinkSetMTU(link, mtu), h.AddrAdd(link, addr), h.LinkSetUp(link)); err != nil {
			return err
		}
		if i == 0 && routeMTU > 0 {
			to := &net.IPNet{IP: net.IPv4(192, 0, 2, 2), Mask: net.CIDRMask(32, 32)}
			if err := h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: to, MTU: routeMTU, Scope: netlink.SCOPE_LINK}); err != nil {
				return fmt.Errorf("add a route: %w", err)
			}
		}
	}
	// Until the kernel has seen that there is a carrier it drops what is sent.
	for _, ns := range []netns.NsHandle{here, there} {
		if err := awaitCarrier(ns); err != nil {
			return err
		}
	}
	return nil
}

func awaitCarrier(ns netns.NsHandle) error {
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		links, err := h.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			if l.Type() == "veth" && l.Attrs().OperState == netlink.OperUp {
				return nil
			}
		}
	}
	return errors.New("the cable has no carrier")
}
