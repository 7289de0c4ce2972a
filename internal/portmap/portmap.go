package portmap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"holdfast/internal/address"
	"holdfast/internal/rpc"
)

// DefaultPort is the port that clients ask at.
const DefaultPort = 111

const (
	// checkEvery is how often rpcbind, which forgets when it is restarted, is told again; retryEvery how often what could not be had is tried.
	checkEvery = 10 * time.Second
	retryEvery = time.Second
	// maxConns bounds the connections of all addresses together, and connLifetime how long each may last: a client asks and goes.
	maxConns     = 256
	connLifetime = 30 * time.Second
	// maxRecord is the longest question by TCP, and maxInflight how many of a connection are read ahead.
	maxRecord   = 4 << 10
	maxInflight = 4
	// inflightBytes bounds the questions of all connections together.
	inflightBytes = 1 << 20
)

// Service is a version of an RPC program that is served by TCP.
type Service struct {
	Prog, Vers uint32
	Port       uint16
}

// NFS returns the services of a volume: NFSv3 and NFSv4 at one port, MOUNT v3 at another, or the same.
func NFS(nfs, mount uint16) []Service {
	return []Service{{rpc.ProgNFS, 3, nfs}, {rpc.ProgNFS, 4, nfs}, {rpc.ProgMount, 3, mount}}
}

// Mapping is what is served at an address of this node.
type Mapping struct {
	// Addr need not be here yet. An unspecified address stands for all of this node, that of IPv6 for those of IPv4, too.
	Addr     netip.Addr
	Services []Service
}

// Config configures a Server. The zero value is what a node uses.
type Config struct {
	// Port is where questions are answered; DefaultPort if zero.
	Port uint16
	// Socket is the Unix socket of the rpcbind that is told of the services where Port is taken; DefaultSocket if empty.
	Socket string
	// Log gets what goes wrong; nil: slog.Default.
	Log *slog.Logger
}

// By is who answers the questions about an address.
type By string

// The values of By.
const (
	ByHoldfast By = "holdfast" // this Server
	ByRPCBind  By = "rpcbind"  // rpcbind, at which the services are registered
	ByNobody   By = "nobody"
)

// Status says who answers the questions about an address.
type Status struct {
	Addr netip.Addr
	By   By
	Err  error // why it is nobody; nil otherwise, and before it was tried
}

// Server answers for a set of addresses that changes with what the node leads. Its methods may be called from several goroutines.
type Server struct {
	cfg Config
	log *slog.Logger
	rpc *rpc.Server

	changed chan struct{} // has an element after Set

	mu       sync.Mutex
	mappings map[netip.Addr][]Service
	status   map[netip.Addr]Status

	// Run's.
	endpoints  map[netip.Addr]*endpoint
	registrar  registrar
	complained map[string]bool // of what has been logged and not got over since
}

// endpoint is an address on which questions are answered.
type endpoint struct {
	stop func()
	work sync.WaitGroup
}

// New makes a Server. It answers while Run runs.
func New(cfg Config) *Server {
	if cfg.Port == 0 {
		cfg.Port = DefaultPort
	}
	if cfg.Socket == "" {
		cfg.Socket = DefaultSocket
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	s := &Server{
		cfg: cfg, log: cfg.Log, changed: make(chan struct{}, 1), endpoints: make(map[netip.Addr]*endpoint),
		registrar: registrar{socket: cfg.Socket, port: cfg.Port, done: make(map[registration]uint16)}, complained: make(map[string]bool),
	}
	s.rpc = rpc.NewServer(rpc.ServerConfig{
		Conn:     rpc.ConnConfig{MaxRecord: maxRecord, MaxInflight: maxInflight, Handler: s, Log: cfg.Log},
		MaxConns: maxConns, MaxInflightBytes: inflightBytes, MaxOutputBytes: inflightBytes, Log: cfg.Log,
		Opened: func(c *rpc.Conn) { c.SetValue(time.AfterFunc(connLifetime, c.Close)) },
		Closed: func(c *rpc.Conn, _ error) { c.Value().(*time.Timer).Stop() },
	})
	return s
}

// Set replaces what is served where. It returns at once; answers follow it at once where an address was there before, and else as soon as its
// port can be had.
func (s *Server) Set(mappings []Mapping) {
	set := make(map[netip.Addr][]Service)
	for _, m := range mappings {
		ip := m.Addr.Unmap().WithZone("")
		if !ip.IsValid() || len(m.Services) == 0 {
			continue
		}
		set[ip] = append(set[ip], m.Services...)
		if ip == netip.IPv6Unspecified() {
			set[netip.IPv4Unspecified()] = append(set[netip.IPv4Unspecified()], m.Services...)
		}
	}
	s.mu.Lock()
	s.mappings = set
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Status tells who answers the questions about each address, in the order of addresses.
func (s *Server) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Status
	for ip := range s.mappings {
		st, ok := s.status[ip]
		if !ok {
			st = Status{Addr: ip, By: ByNobody}
		}
		all = append(all, st)
	}
	slices.SortFunc(all, func(a, b Status) int { return a.Addr.Compare(b.Addr) })
	return all
}

// Run answers until ctx ends, then takes back what it registered and returns nil.
func (s *Server) Run(ctx context.Context) error {
	for {
		again := checkEvery
		if !s.arrange(ctx) {
			again = retryEvery
		}
		select {
		case <-s.changed:
		case <-time.After(again):
		case <-ctx.Done():
			for _, ep := range s.endpoints {
				ep.close()
			}
			clear(s.endpoints)
			if err := s.registrar.set(context.WithoutCancel(ctx), nil); err != nil {
				s.log.Warn("rpcbind still names ports of this node", "err", err)
			}
			return nil
		}
	}
}

// arrange makes endpoints and registrations be what the mappings demand, and tells whether that was done for all of them.
func (s *Server) arrange(ctx context.Context) (done bool) {
	s.mu.Lock()
	mappings := s.mappings // never changed, only replaced
	s.mu.Unlock()
	for ip, ep := range s.endpoints {
		if mappings[ip] == nil || covered(mappings, ip) {
			ep.close()
			delete(s.endpoints, ip)
		}
	}
	status := make(map[netip.Addr]Status)
	taken := make(map[netip.Addr][]Service)
	for _, ip := range slices.SortedFunc(maps.Keys(mappings), netip.Addr.Compare) {
		if covered(mappings, ip) {
			continue
		}
		var err error
		if s.endpoints[ip] == nil {
			err = s.open(ctx, ip)
		}
		st := Status{Addr: ip, By: ByHoldfast}
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			taken[ip] = mappings[ip]
		case err != nil:
			st = Status{Addr: ip, By: ByNobody, Err: fmt.Errorf("listen for port mapper questions: %w", err)}
			s.complain(ip.String(), st.Err)
		default:
			s.complain(ip.String(), nil)
		}
		status[ip] = st
	}
	for ip := range mappings {
		if covered(mappings, ip) && taken[unspecified(ip)] != nil {
			taken[ip] = mappings[ip]
		}
	}
	err := s.registrar.set(ctx, taken)
	if err != nil {
		err = fmt.Errorf("port %d is taken, and the services cannot be registered with whoever has it: %w", s.cfg.Port, err)
	}
	if ctx.Err() == nil {
		s.complain("rpcbind", err)
	}
	for ip := range taken {
		status[ip] = Status{Addr: ip, By: ByRPCBind}
		if err != nil {
			status[ip] = Status{Addr: ip, By: ByNobody, Err: err}
		}
	}
	done = err == nil
	for ip := range mappings {
		st, ok := status[ip]
		if !ok {
			st = status[unspecified(ip)]
			st.Addr = ip
			status[ip] = st
		}
		done = done && st.By != ByNobody
	}
	s.mu.Lock()
	s.status = status
	s.mu.Unlock()
	return done
}

// unspecified returns the unspecified address of ip's family.
func unspecified(ip netip.Addr) netip.Addr {
	if ip.Is6() {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// covered tells that questions for an address arrive at the unspecified address.
func covered(mappings map[netip.Addr][]Service, ip netip.Addr) bool {
	return !ip.IsUnspecified() && mappings[unspecified(ip)] != nil
}

// complain logs an error when it begins, and that it is over.
func (s *Server) complain(what string, err error) {
	switch {
	case err != nil && !s.complained[what]:
		s.log.Warn("NFSv3 clients that ask for ports get no answer", "address", what, "err", err)
	case err == nil && s.complained[what]:
		s.log.Info("NFSv3 clients that ask for ports get answers again", "address", what)
	}
	s.complained[what] = err != nil
}

// open begins to answer on an address.
func (s *Server) open(ctx context.Context, ip netip.Addr) error {
	addr := netip.AddrPortFrom(ip, s.cfg.Port)
	lc := net.ListenConfig{Control: address.ReuseAddr}
	ln, err := lc.Listen(ctx, family("tcp", ip), addr.String())
	if err != nil {
		return err
	}
	conn, err := listenUDP(ctx, addr)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	ep := &endpoint{stop: func() {
		cancel()
		_ = conn.Close() // nothing is lost with it
	}}
	ep.work.Go(func() {
		if err := s.rpc.Serve(ctx, ln); err != nil {
			s.log.Error("port mapper questions by TCP are no longer answered", "address", addr, "err", err)
		}
	})
	ep.work.Go(func() { s.serveUDP(ctx, conn, ip) })
	s.endpoints[ip] = ep
	return nil
}

func (ep *endpoint) close() {
	ep.stop()
	ep.work.Wait()
}

// Handle answers a question by TCP.
func (s *Server) Handle(c *rpc.Conn, rec rpc.Record) {
	defer rec.Done()
	local := c.LocalAddr().Addr()
	reply, err := answer(&question{record: rec.Bytes(), local: local, proto: protoTCP, entries: s.entries(local)})
	if err != nil {
		c.Fail(err)
		return
	}
	if reply != nil {
		_ = c.Send(reply) // an error is the end of the connection, which says so itself
	}
}

// entries returns what there is at an address of this node, the port mapper included.
func (s *Server) entries(local netip.Addr) []entry {
	s.mu.Lock()
	services, ok := s.mappings[local]
	if !ok {
		services = s.mappings[unspecified(local)]
	}
	s.mu.Unlock()
	entries := make([]entry, 0, len(services)+6)
	for _, x := range services {
		entries = append(entries, entry{x.Prog, x.Vers, protoTCP, x.Port})
	}
	for _, proto := range []uint32{protoTCP, protoUDP} {
		for vers := uint32(versPortmap); vers <= versRPCBind4; vers++ {
			if vers == versPortmap && local.Is6() {
				continue
			}
			entries = append(entries, entry{rpc.ProgPortmap, vers, proto, s.cfg.Port})
		}
	}
	return entries
}
