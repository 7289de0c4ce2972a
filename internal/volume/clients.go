package volume

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sort"

	"holdfast/internal/store"
)

// maxClients bounds the set of client connections; beyond it the oldest go. A takeover sends each of them one packet.
const maxClients = 4096

// clientSet is the replicated set of connections that clients hold open.
type clientSet struct {
	sequence map[netip.AddrPort]uint64
	address  map[uint64]netip.AddrPort
}

// ClientOpened and ClientClosed are the payloads of EntryClient.
var (
	ClientOpened = []byte{1}
	ClientClosed = []byte{0}
)

func (c *clientSet) load(s store.Store) error {
	*c = clientSet{map[netip.AddrPort]uint64{}, map[uint64]netip.AddrPort{}}
	var bad error
	err := s.Scan([]byte{prefixClient}, []byte{prefixClient + 1}, func(key, value []byte) bool {
		if len(value) != 18 {
			bad = fmt.Errorf("%w: client record of %d bytes", errCorrupt, len(value))
			return false
		}
		addr := netip.AddrPortFrom(netip.AddrFrom16([16]byte(value)).Unmap(), binary.BigEndian.Uint16(value[16:]))
		c.add(binary.BigEndian.Uint64(key[1:]), addr)
		return true
	})
	if err != nil {
		return err
	}
	return bad
}

func (c *clientSet) add(sequence uint64, addr netip.AddrPort) {
	c.sequence[addr], c.address[sequence] = sequence, addr
}

func (c *clientSet) remove(sequence uint64) {
	delete(c.sequence, c.address[sequence])
	delete(c.address, sequence)
}

func (c *clientSet) sequences() []uint64 {
	all := make([]uint64, 0, len(c.address))
	for s := range c.address {
		all = append(all, s)
	}
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	return all
}

func (c *clientSet) list() []netip.AddrPort {
	all := make([]netip.AddrPort, 0, len(c.address))
	for _, s := range c.sequences() {
		all = append(all, c.address[s])
	}
	return all
}

// client applies an EntryClient.
func (tx *Tx) client(e *Entry) error {
	if len(e.Payload) != 1 {
		return fmt.Errorf("%w: client entry of %d bytes", ErrBadEntry, len(e.Payload))
	}
	c := &tx.v.clients
	sequence, known := c.sequence[e.Client]
	switch opened := e.Payload[0] != 0; {
	case opened && !known:
		if len(c.address) >= maxClients {
			tx.dropClient(c.sequences()[0])
		}
		value := make([]byte, 18)
		addr := e.Client.Addr().As16()
		copy(value, addr[:])
		binary.BigEndian.PutUint16(value[16:], e.Client.Port())
		tx.batch.Set(clientKey(tx.state.nextClient), value)
		c.add(tx.state.nextClient, e.Client)
		tx.state.nextClient++
	case !opened && known:
		tx.dropClient(sequence)
	}
	return nil
}

func (tx *Tx) dropClient(sequence uint64) {
	tx.batch.Delete(clientKey(sequence))
	tx.v.clients.remove(sequence)
}
