package node

import (
	"context"
	"slices"
	"time"

	"holdfast/internal/cluster"
	"holdfast/internal/replica"
)

// inquiry lets the status say of others only what is known. A leader takes a member for active, and so for in sync, until it has not heard of it for an election's time: by
// that alone a copy that was lost a moment ago would count as one that is there.
type inquiry struct {
	began time.Time
	tick  time.Duration
}

// inquire waits until the leaders at this node have heard, since now, of all the members that they take for active, or do not take them for active any more. Members answer at
// every tick, so that it takes two ticks where all are there.
func (n *Node) inquire(ctx context.Context, state *cluster.State) inquiry {
	agreed := state.Timing
	agreed.Complete()
	q := inquiry{began: time.Now(), tick: time.Duration(agreed.Tick)}
	limited, cancel := context.WithTimeout(ctx, time.Duration(agreed.Tick)*time.Duration(agreed.Election))
	defer cancel()
	replicas := []reporter{n.cluster.replica}
	for _, g := range n.allGroups() {
		replicas = append(replicas, g.raft())
	}
	const looks = 4 // a tick
	for _, r := range replicas {
		for st := r.Status(); limited.Err() == nil && !q.answered(&st, time.Since(q.began)); st = r.Status() {
			pause(limited, q.tick/looks)
		}
	}
	return q
}

// reporter is a member of a group, as the status asks it.
type reporter interface{ Status() replica.Status }

// heard reports whether a member was heard of since the inquiry began. What arrived in its first tick may have been sent before.
func (q inquiry) heard(p *replica.PeerStatus, since time.Duration) bool {
	return p.SeenNS >= 0 && time.Duration(p.SeenNS) <= since-q.tick
}

// answered reports whether there is nothing more to wait for; since is how long ago the inquiry began.
func (q inquiry) answered(st *replica.Status, since time.Duration) bool {
	return st.Role != replica.RoleLeader || !slices.ContainsFunc(st.Peers, func(p replica.PeerStatus) bool { return p.Active && !q.heard(&p, since) })
}

// known returns what is known of a group now: members that were not heard of since the inquiry began are not active.
func (q inquiry) known(r reporter) replica.Status {
	st := r.Status()
	return q.without(st, time.Since(q.began))
}

func (q inquiry) without(st replica.Status, since time.Duration) replica.Status {
	st.Peers = slices.Clone(st.Peers)
	for i := range st.Peers {
		if p := &st.Peers[i]; !q.heard(p, since) {
			p.Active, p.InSync = false, false
		}
	}
	return st
}
