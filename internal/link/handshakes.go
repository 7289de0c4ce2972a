package link

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
)

// handshakes are the connections whose other side has not proven who it is yet. There is room for so many. If it is full, the oldest one goes, not the newest: a node
// is done in a moment, so it gets in, whatever keeps connecting to stay.
type handshakes struct {
	max, maxPerSource int

	mu      sync.Mutex
	all     *list.List // of net.Conn, oldest first
	sources map[netip.Prefix]*list.List
}

func newHandshakes(max, maxPerSource int) *handshakes {
	return &handshakes{max: max, maxPerSource: maxPerSource, all: list.New(), sources: make(map[netip.Prefix]*list.List)}
}

// source returns where a connection comes from: its address, for IPv6 the network, of which one machine may have all addresses.
func source(addr net.Addr) netip.Prefix {
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.Prefix{}
	}
	ip, bits := ap.Addr().Unmap().WithZone(""), 64
	if ip.Is4() {
		bits = 32
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// handshake is one, with its places in both lists.
type handshake struct {
	conn            net.Conn
	source          netip.Prefix
	inAll, inSource *list.Element // nil when it is over
}

// begin notes a handshake; done must be called when it is over.
func (h *handshakes) begin(conn net.Conn) (done func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	hs := &handshake{conn: conn, source: source(conn.RemoteAddr())}
	of := h.sources[hs.source]
	if of != nil && of.Len() >= h.maxPerSource {
		h.giveUp(of.Front().Value.(*handshake))
	} else if h.all.Len() >= h.max {
		h.giveUp(h.all.Front().Value.(*handshake))
	}
	if of = h.sources[hs.source]; of == nil {
		of = list.New()
		h.sources[hs.source] = of
	}
	hs.inAll, hs.inSource = h.all.PushBack(hs), of.PushBack(hs)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.remove(hs)
	}
}

func (h *handshakes) giveUp(hs *handshake) {
	_ = hs.conn.Close()
	h.remove(hs)
}

func (h *handshakes) remove(hs *handshake) {
	if hs.inAll == nil {
		return
	}
	h.all.Remove(hs.inAll)
	of := h.sources[hs.source]
	of.Remove(hs.inSource)
	if of.Len() == 0 {
		delete(h.sources, hs.source)
	}
	hs.inAll, hs.inSource = nil, nil
}

// closeAll gives all up.
func (h *handshakes) closeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.all.Len() > 0 {
		h.giveUp(h.all.Front().Value.(*handshake))
	}
}
