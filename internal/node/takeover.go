package node

import (
	"context"
	"fmt"
	"time"

	"holdfast/internal/cluster"
)

// takeoverPatience is how long a new leader waits for its predecessor to tell why the volume moved, before it tells by itself.
const takeoverPatience = 2 * time.Second

// noteTakeover writes an event if this node leads although nobody has handed the volume over to it: its leader was lost. from is the last leader that this node
// knows of, 0 if none. ctx ends when this node leads no more.
func (s *service) noteTakeover(ctx context.Context, from uint64) {
	for complained := false; ctx.Err() == nil; {
		pause(ctx, takeoverPatience)
		state := s.node.cluster.state()
		was := lastMove(state, s.name)
		if was == "" && from != 0 {
			was = s.node.nodeName(from)
		}
		if ctx.Err() != nil || was == "" || was == s.node.id.Name {
			return
		}
		note := cluster.Event{Kind: cluster.EventMove, Volume: s.name, Node: s.node.id.Name, Text: fmt.Sprintf("took over from %s, which %s", was, s.fate(state, was))}
		if _, err := s.node.cluster.do(ctx, s.node.id.Name, cluster.Command{Note: &note}); err == nil {
			return
		} else if ctx.Err() == nil && !complained {
			complained = true
			s.log.Info("a takeover could not be written down; trying on", "err", err)
		}
	}
}

// lastMove names the node that the last event about a volume's leader speaks of, "" if there is none.
func lastMove(state *cluster.State, volume string) string {
	for i := len(state.Events) - 1; i >= 0; i-- {
		if e := &state.Events[i]; e.Kind == cluster.EventMove && e.Volume == volume {
			return e.Node
		}
	}
	return ""
}

// fate is what has become of a former leader, as this one sees it.
func (s *service) fate(state *cluster.State, name string) string {
	n := state.NodeNamed(name)
	if n == nil {
		return "is no node any more"
	}
	for _, p := range s.replica.Status().Peers {
		if p.ID == n.Number && p.Active {
			return "was stopped, or did not reach the others, and is back"
		}
	}
	return "does not answer"
}
