package portmap

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"holdfast/internal/rpc"
	"holdfast/internal/xdr"
)

// DefaultSocket is where rpcbind lets root register services.
const DefaultSocket = "/run/rpcbind.sock"

// rpcbindTimeout bounds a conversation with rpcbind.
const rpcbindTimeout = 5 * time.Second

// registration is what rpcbind knows a service by. It knows one port for it, at all addresses of the machine.
type registration struct {
	prog, vers uint32
	netID      string
}

// registrar keeps services registered at the rpcbind of this machine.
type registrar struct {
	socket string
	port   uint16
	done   map[registration]uint16 // what was registered, with its port
}

// set registers the services of addresses and takes back what was registered before and is not among them. What was registered is registered
// again, in case that rpcbind has forgotten it.
func (r *registrar) set(ctx context.Context, services map[netip.Addr][]Service) error {
	want, wantErr := wanted(services)
	if len(want) == 0 && len(r.done) == 0 {
		return wantErr
	}
	ctx, cancel := context.WithTimeout(ctx, rpcbindTimeout)
	defer cancel()
	conn, err := r.dial(ctx)
	if err != nil {
		if len(want) == 0 {
			clear(r.done) // they have gone with rpcbind
			return wantErr
		}
		return err
	}
	defer conn.close()
	errs := []error{wantErr}
	for _, reg := range slices.SortedFunc(maps.Keys(r.done), compareRegistrations) {
		if want[reg] == r.done[reg] {
			continue
		}
		// That it was not there any more is as good.
		if _, err := conn.change(ctx, procUnset, reg, r.done[reg]); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(r.done, reg)
	}
	for _, reg := range slices.SortedFunc(maps.Keys(want), compareRegistrations) {
		ok, err := conn.change(ctx, procSet, reg, want[reg])
		switch {
		case err != nil:
			errs = append(errs, err)
		case !ok:
			errs = append(errs, fmt.Errorf("rpcbind has program %d version %d for %s at another port already: stop that service, or remove what it left by \"rpcinfo -d %d %d\"",
				reg.prog, reg.vers, reg.netID, reg.prog, reg.vers))
		default:
			r.done[reg] = want[reg]
		}
	}
	return errors.Join(errs...)
}

func compareRegistrations(a, b registration) int {
	if a.prog != b.prog {
		return int(int64(a.prog) - int64(b.prog))
	}
	if a.vers != b.vers {
		return int(int64(a.vers) - int64(b.vers))
	}
	return len(a.netID) - len(b.netID)
}

// wanted returns what to register for the services of addresses. The error names services that have different ports at different addresses.
func wanted(services map[netip.Addr][]Service) (map[registration]uint16, error) {
	want := make(map[registration]uint16)
	var errs []error
	for _, ip := range slices.SortedFunc(maps.Keys(services), netip.Addr.Compare) {
		for _, x := range services[ip] {
			reg := registration{x.Prog, x.Vers, netID(protoTCP, ip)}
			if port, ok := want[reg]; ok && port != x.Port {
				errs = append(errs, fmt.Errorf("program %d version %d is at port %d and, at %s, at port %d, and rpcbind can name one only: use one port, or stop rpcbind",
					x.Prog, x.Vers, port, ip, x.Port))
				continue
			}
			want[reg] = x.Port
		}
	}
	return want, errors.Join(errs...)
}

// bindConn is a connection to rpcbind.
type bindConn struct {
	rpc   *rpc.Conn
	old   bool // it is by TCP: version 2
	ended chan struct{}
}

// dial connects to rpcbind: by its socket or, where there is none, from a port that only root has.
func (r *registrar) dial(ctx context.Context) (*bindConn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", r.socket)
	old := err != nil
	if old {
		var tcpErr error
		if nc, tcpErr = dialReserved(ctx, r.port); tcpErr != nil {
			return nil, fmt.Errorf("reach rpcbind: %w; and by TCP: %w", err, tcpErr)
		}
	}
	c := &bindConn{rpc: rpc.NewConn(nc, rpc.ConnConfig{MaxRecord: maxRecord}), old: old, ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		_ = c.rpc.Run() // the calls get its error
	}()
	return c, nil
}

func (c *bindConn) close() {
	c.rpc.Close()
	<-c.ended
}

// dialReserved connects to this machine from a port below 1024.
func dialReserved(ctx context.Context, port uint16) (net.Conn, error) {
	loopback := netip.MustParseAddr("127.0.0.1")
	const first, last = 665, 1023 // those below have names
	var err error
	for from := last; from >= first; from-- {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(loopback, uint16(from)))}
		var nc net.Conn
		if nc, err = d.DialContext(ctx, "tcp", netip.AddrPortFrom(loopback, port).String()); err == nil || !errors.Is(err, syscall.EADDRINUSE) {
			return nc, err
		}
	}
	return nil, err
}

// change calls SET or UNSET, and tells whether that was done.
func (c *bindConn) change(ctx context.Context, proc uint32, reg registration, port uint16) (bool, error) {
	e := xdr.NewEncoder(nil)
	vers := uint32(versRPCBind4)
	if c.old {
		if reg.netID != "tcp" {
			return false, fmt.Errorf("rpcbind can be told of IPv6 by %s only, which is not there", DefaultSocket)
		}
		vers = versPortmap
		e.Uint32(reg.prog)
		e.Uint32(reg.vers)
		e.Uint32(protoTCP)
		e.Uint32(uint32(port))
	} else {
		everywhere := netip.IPv4Unspecified()
		if reg.netID == netID(protoTCP, netip.IPv6Unspecified()) {
			everywhere = netip.IPv6Unspecified()
		}
		appendRPCB(e, reg.prog, reg.vers, reg.netID, universal(everywhere, port), owner)
	}
	results, err := c.rpc.Call(ctx, rpc.ProgPortmap, vers, proc, &rpc.Auth{}, e.Bytes())
	if err != nil {
		return false, fmt.Errorf("tell rpcbind of program %d version %d: %w", reg.prog, reg.vers, err)
	}
	d := xdr.NewDecoder(results)
	ok := d.Bool()
	if d.Err() != nil {
		return false, fmt.Errorf("tell rpcbind of program %d version %d: its answer: %w", reg.prog, reg.vers, d.Err())
	}
	return ok, nil
}
