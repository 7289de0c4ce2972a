package node

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/identity"
	"holdfast/internal/replica"
)

// statusPatience is how long other nodes may take to tell their status.
const statusPatience = 800 * time.Millisecond

// asked is what became of asking the other nodes, by their numbers. Those that are in none of it are silent.
type asked struct {
	answers map[uint64]api.Status
	clocks  map[uint64]reading // of those that told their time
	refused []uint64           // they do not accept this node's certificate
	expired []uint64           // their certificates have ended, as this node's clock says
}

// askAll asks the other nodes for what they know, all at once.
func (n *Node) askAll(ctx context.Context, state *cluster.State) *asked {
	limited, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	all := &asked{answers: make(map[uint64]api.Status), clocks: make(map[uint64]reading)}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range state.Nodes {
		number := state.Nodes[i].Number
		if number == n.id.Node {
			continue
		}
		c, err := n.peers.client(number, "")
		if err != nil {
			continue // it was removed a moment ago
		}
		wg.Go(func() {
			sent := n.now()
			s, err := c.Status(limited, true)
			received := n.now()
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				all.answers[number] = s
				if !s.Time.IsZero() {
					all.clocks[number] = readClock(sent, received, s.Time)
				}
			case refusesCertificate(err):
				all.refused = append(all.refused, number)
			case errors.Is(err, identity.ErrExpired):
				all.expired = append(all.expired, number)
			}
		})
	}
	wg.Wait()
	return all
}

// merge adds what the others said: of each volume the leader's view counts.
func (a *asked) merge(s *api.Status) {
	for i := range s.Nodes {
		ns := &s.Nodes[i]
		if ns.ID == s.ID {
			continue
		}
		o, answers := a.answers[ns.ID]
		switch {
		case answers:
			ns.State, ns.Release, ns.Started = api.NodeAnswers, o.Release, o.Started
		case slices.Contains(a.refused, ns.ID):
			ns.State = api.NodeRefuses
		case slices.Contains(a.expired, ns.ID):
			ns.State = api.NodeExpired
		default:
			ns.State = api.NodeSilent
		}
		if r, ok := a.clocks[ns.ID]; ok {
			ns.ClockOffset, ns.ClockUncertainty = &r.offset, r.uncertainty
		}
	}
	mergeVotes(s, a.answers)
	for i := range s.Volumes {
		v := &s.Volumes[i]
		problems, gone := v.Problems, v.Gone
		for _, o := range a.answers {
			at := slices.IndexFunc(o.Volumes, func(o api.VolumeStatus) bool { return o.ID == v.ID })
			if at < 0 {
				continue
			}
			o := o.Volumes[at]
			problems, gone = append(problems, o.Problems...), append(gone, o.Gone...)
			better := o.Role == replica.RoleLeader.String() && (v.Role != replica.RoleLeader.String() || o.Term > v.Term)
			known := v.Role == "none" && o.Leader != "" && v.Leader == ""
			if better {
				*v = o
			} else if known {
				v.Leader = o.Leader
			}
		}
		slices.Sort(problems)
		slices.Sort(gone)
		v.Problems, v.Gone = problems, gone
	}
}

// refusesCertificate reports whether the other side of a connection ended it because it does not accept this node's certificate.
func refusesCertificate(err error) bool {
	var remote *net.OpError
	if !errors.As(err, &remote) || remote.Op != "remote error" {
		return false
	}
	switch remote.Err.Error() {
	case "tls: bad certificate", "tls: revoked certificate", "tls: expired certificate":
		return true
	}
	return false
}
