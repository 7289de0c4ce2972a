package node

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/link"
)

// peerClients are API clients of the other nodes, one for each node and for each person that requests are passed on for.
type peerClients struct {
	node *Node

	mu      sync.Mutex
	clients map[peerClient]*api.Client
}

type peerClient struct {
	node uint64
	by   string
}

// maxPeerClients bounds how many are kept, with their connections.
const maxPeerClients = 64

func newPeerClients(n *Node) *peerClients {
	return &peerClients{node: n, clients: make(map[peerClient]*api.Client)}
}

// client returns a client of the API of another node.
func (p *peerClients) client(number uint64, by string) (*api.Client, error) {
	member := p.node.cluster.state().Node(number)
	if member == nil {
		return nil, api.Errorf(http.StatusNotFound, "there is no node %d", number)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	key := peerClient{number, by}
	if c := p.clients[key]; c != nil {
		return c, nil
	}
	if len(p.clients) >= maxPeerClients {
		for k, c := range p.clients {
			c.Close()
			delete(p.clients, k)
		}
	}
	c := api.NewRemoteClient(fmt.Sprintf("node %s at %s", member.Name, member.Peer), by, func(ctx context.Context) (net.Conn, error) {
		// Asked anew for each connection: the address may change.
		now := p.node.cluster.state().Node(number)
		if now == nil {
			return nil, fmt.Errorf("node %d was removed", number)
		}
		limited, cancel := context.WithTimeout(ctx, answerPatience)
		defer cancel()
		conn, err := p.node.dialer.Dial(limited, now.Peer, number, link.ProtoAPI)
		if err != nil {
			return nil, &unreachedError{err}
		}
		return conn, nil
	})
	p.clients[key] = c
	return c, nil
}

// unreachedError is that of a node that could not be connected to: what was to be asked of it has not been sent.
type unreachedError struct{ err error }

func (e *unreachedError) Error() string { return e.err.Error() }
func (e *unreachedError) Unwrap() error { return e.err }

// answerPatience is how long another node may take to answer before it counts as silent.
const answerPatience = time.Second

// answers reports whether another node is there.
func (p *peerClients) answers(ctx context.Context, number uint64) bool {
	if number == p.node.id.Node {
		return true
	}
	c, err := p.client(number, "")
	if err != nil {
		return false
	}
	limited, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	_, err = c.Status(limited, true)
	return err == nil
}

func (p *peerClients) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.clients {
		c.Close()
	}
}

// peerAddresses are the IP addresses of the other nodes, as far as they are known.
func (n *Node) peerAddresses() []netip.Addr {
	var all []netip.Addr
	resolved := n.hosts.Load()
	for _, host := range n.peerHosts() {
		if a, err := netip.ParseAddr(host); err == nil {
			all = append(all, a)
		} else if resolved != nil {
			all = append(all, (*resolved)[host]...)
		}
	}
	return all
}

// peerHosts are the hosts of the other nodes, addresses or names.
func (n *Node) peerHosts() []string {
	var hosts []string
	s := n.cluster.state()
	for i := range s.Nodes {
		if host, _, err := net.SplitHostPort(s.Nodes[i].Peer); err == nil && s.Nodes[i].Number != n.id.Node {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// resolvePeers looks the names of other nodes up, so that their addresses are known when there is no time to ask.
func (n *Node) resolvePeers(ctx context.Context) {
	resolved := map[string][]netip.Addr{}
	if old := n.hosts.Load(); old != nil {
		maps.Copy(resolved, *old) // what cannot be resolved now is likely to be where it was
	}
	for _, host := range n.peerHosts() {
		if _, err := netip.ParseAddr(host); err == nil {
			continue
		}
		limited, cancel := context.WithTimeout(ctx, answerPatience)
		addrs, err := net.DefaultResolver.LookupNetIP(limited, "ip", host)
		cancel()
		if err != nil {
			if _, known := resolved[host]; !known {
				resolved[host] = nil // it is said once
				n.log.Warn("the name of a node cannot be resolved", "host", host, "err", err)
			}
			continue
		}
		for i := range addrs {
			addrs[i] = addrs[i].Unmap()
		}
		resolved[host] = addrs
	}
	n.hosts.Store(&resolved)
}
