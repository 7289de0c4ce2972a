package node

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"holdfast/internal/address"
	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/forward"
)

// nodePort is where a volume's clients come in at this node's own address: at a port of the node that the volume has.
type nodePort struct {
	volume uint32
	name   string // the volume's
	port   uint16
	target func() forward.Target
	// serve serves a client here.
	serve func(ctx context.Context, nc net.Conn)
}

// nodePortRetry is how soon it is tried again to listen at a node port.
const nodePortRetry = time.Second

// serveNodePort accepts clients until ctx ends, and forwards them where they are not served here.
func (n *Node) serveNodePort(ctx context.Context, p nodePort) {
	log := n.log.With("volume", p.name)
	// At the address that the other nodes know: a listener on all addresses would collide with those of volumes that move.
	host, _, err := net.SplitHostPort(n.id.PeerAddress)
	if err != nil {
		log.Error("cannot serve the volume at the node's own address", "err", err)
		return
	}
	proxy := forward.NewProxy(forward.ProxyConfig{
		Volume: uint64(p.volume), Target: p.target, Dial: n.dialNFS, Serve: p.serve, Balancers: n.balancers(), Log: log,
	})
	addr := net.JoinHostPort(host, strconv.Itoa(int(p.port)))
	complained := false
	for ctx.Err() == nil {
		lc := net.ListenConfig{Control: address.ReuseAddr}
		ln, err := lc.Listen(ctx, "tcp", addr)
		if err == nil {
			err = proxy.Serve(ctx, ln)
		}
		if err != nil && ctx.Err() == nil && !complained {
			complained = true
			log.Warn("cannot serve the volume at the node's own address yet; trying on", "address", addr, "err", err)
		}
		pause(ctx, nodePortRetry)
	}
}

// balancers are the networks whose PROXY headers are believed.
func (n *Node) balancers() []netip.Prefix {
	var all []netip.Prefix
	for _, b := range n.local.Balancers {
		all = append(all, netip.Prefix(b))
	}
	return all
}

// visit is the node port of a volume that this data node keeps no part of: it forwards the volume's clients all the same, so that every data node's own address serves.
type visit struct {
	port    uint16
	members []uint64 // that keep the volume
	stop    context.CancelFunc
	work    sync.WaitGroup
}

// visited returns the volumes whose node ports are to be served here, although other nodes keep them. A witness serves none: it is small, and may be far away.
func (n *Node) visited(s *cluster.State) map[uint32]*cluster.Volume {
	all := make(map[uint32]*cluster.Volume)
	self := s.Node(n.id.Node)
	for i := range s.Volumes {
		v := &s.Volumes[i]
		if v.Spec.NodePort != 0 && self != nil && self.Role == cluster.RoleData && !slices.Contains(v.Keepers(), self.Number) {
			all[v.ID] = v
		}
	}
	return all
}

// endVisits closes the node ports of volumes that are gone or have changed, and of those that this node is to keep: their services open them.
func (n *Node) endVisits(s *cluster.State) {
	wanted := n.visited(s)
	for id, o := range n.visits {
		if v := wanted[id]; v == nil || v.Spec.NodePort != o.port || !slices.Equal(v.DataMembers(), o.members) {
			o.stop()
			o.work.Wait()
			delete(n.visits, id)
		}
	}
}

// beginVisits opens those that are to be open. It follows the end of the services that this node gives up.
func (n *Node) beginVisits(s *cluster.State) {
	for id, v := range n.visited(s) {
		if n.visits[id] == nil {
			n.visits[id] = n.visit(v)
		}
	}
}

// visit opens the node port of a volume that other nodes keep.
func (n *Node) visit(v *cluster.Volume) *visit {
	ctx, stop := context.WithCancel(n.ctx)
	o := &visit{port: v.Spec.NodePort, members: v.DataMembers(), stop: stop}
	leader := new(reported)
	name, id := v.Spec.Name, v.ID
	for _, m := range o.members {
		o.start(n, func() { n.watchLeader(ctx, m, name, id, leader) })
	}
	target := func() forward.Target {
		node, changed := leader.get()
		return forward.Target{Node: node, Changed: changed}
	}
	o.start(n, func() { n.serveNodePort(ctx, nodePort{volume: id, name: name, port: o.port, target: target}) }) // target is never here
	return o
}

// start runs f as a part of the visit, and of the node.
func (o *visit) start(n *Node, f func()) {
	o.work.Add(1)
	n.work.Go(func() {
		defer o.work.Done()
		f()
	})
}

const (
	// leaderHold is how long a node waits for a change before it says that the leader is who it was.
	leaderHold = 5 * time.Second
	// leaderRetry is how soon a node that has not answered is asked again who leads a volume.
	leaderRetry = 250 * time.Millisecond
)

// reported is who leads a volume by what nodes that keep it have said.
type reported struct {
	leaderState
	mu   sync.Mutex
	term uint64 // of the newest that was heard
}

// note takes what a node has said. One that was cut off, or stood still, may still know of an earlier leader only.
func (r *reported) note(l api.LeaderResult) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l.Term >= r.term {
		r.term = l.Term
		r.set(l.Node)
	}
}

// watchLeader keeps leader as a node says that keeps the volume. Several are asked at the same time: whoever hears of a new leader first tells it first.
func (n *Node) watchLeader(ctx context.Context, member uint64, volume string, id uint32, leader *reported) {
	known := uint64(0)
	for ctx.Err() == nil {
		now, err := n.askLeader(ctx, member, volume, id, known)
		if err != nil {
			known = 0 // what it says next is news
			pause(ctx, leaderRetry)
			continue
		}
		if now.Node != known && now.Node != 0 {
			leader.note(now)
		}
		known = now.Node
	}
}

func (n *Node) askLeader(ctx context.Context, member uint64, volume string, id uint32, known uint64) (api.LeaderResult, error) {
	limited, cancel := context.WithTimeout(ctx, leaderHold+answerPatience)
	defer cancel()
	c, err := n.peers.client(member, "")
	if err != nil {
		return api.LeaderResult{}, err
	}
	r, err := c.Leader(limited, volume, known)
	if err == nil && r.ID != id {
		err = fmt.Errorf("volume %s is another one there", volume)
	}
	return r, err
}

// Leader implements api.Backend.
func (n *Node) Leader(ctx context.Context, name string, known uint64) (api.LeaderResult, error) {
	v, err := n.volume(name)
	if err != nil {
		return api.LeaderResult{}, err
	}
	s := n.serviceByID(v.ID)
	if s == nil {
		return api.LeaderResult{}, api.Errorf(http.StatusConflict, "node %s keeps no copy of volume %s", n.id.Name, name)
	}
	limited, cancel := context.WithTimeout(ctx, leaderHold)
	defer cancel()
	for {
		leader, changed := s.leader.get()
		result := api.LeaderResult{ID: v.ID, Node: leader, Term: s.replica.Status().Term}
		if leader != known {
			return result, nil
		}
		select {
		case <-changed:
		case <-limited.Done():
			return result, nil
		case <-s.ctx.Done():
			return api.LeaderResult{}, api.Errorf(http.StatusServiceUnavailable, "node %s gives volume %s up", n.id.Name, name)
		}
	}
}
