package node

import (
	"context"
	"fmt"
	"net"

	"holdfast/internal/forward"
	"holdfast/internal/health"
	"holdfast/internal/link"
)

// serveHealth answers load balancers, if the node's file says so.
func (n *Node) serveHealth() error {
	if n.local.Health == "" {
		return nil
	}
	ln, err := net.Listen("tcp", n.local.Health)
	if err != nil {
		return fmt.Errorf("listen for health checks (`health` in the node's file): %w", err)
	}
	n.work.Go(func() { n.fail(health.Serve(n.ctx, ln, n.healths, n.log)) })
	return nil
}

// healths is the health of all volumes at this node.
func (n *Node) healths() []health.Volume {
	s := n.cluster.state()
	var all []health.Volume
	for i := range s.Volumes {
		v := &s.Volumes[i]
		h := health.Volume{ID: uint64(v.ID), Name: v.Spec.Name, Why: "this node keeps no copy"}
		if svc := n.serviceByID(v.ID); svc != nil {
			h.Serving = svc.isServing()
			leader, _ := svc.leader.get()
			switch {
			case h.Serving:
				h.Why = ""
			case leader == 0:
				h.Why = "no leader"
			case leader == n.id.Node:
				h.Why = "the lease is interrupted"
			default:
				h.Why = "led by node " + n.nodeName(leader)
			}
		}
		all = append(all, h)
	}
	return all
}

// serviceByID returns this node's copy of a volume, or nil.
func (n *Node) serviceByID(id uint32) *service {
	n.mu.Lock()
	defer n.mu.Unlock()
	s, _ := n.groups[id].(*service)
	return s
}

// serveForwarded takes the clients that other nodes forward.
func (n *Node) serveForwarded() {
	receiver := forward.NewReceiver(forward.ReceiverConfig{
		Server: func(volume uint64) func(ctx context.Context, nc net.Conn) {
			s := n.serviceByID(uint32(volume))
			if s == nil || !s.isServing() {
				return nil
			}
			return s.server.ServeConn
		},
		Log: n.log,
	})
	ln := n.mux.Listener(link.ProtoNFS)
	n.work.Go(func() { n.fail(receiver.Serve(n.ctx, ln)) })
}

// dialNFS opens a stream for a client that another node serves.
func (n *Node) dialNFS(ctx context.Context, node uint64) (net.Conn, error) {
	member := n.cluster.state().Node(node)
	if member == nil {
		return nil, fmt.Errorf("there is no node %d", node)
	}
	return n.dialer.Dial(ctx, member.Peer, node, link.ProtoNFS)
}
