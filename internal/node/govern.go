package node

import (
	"context"
	"errors"
	"slices"
	"time"

	"holdfast/internal/cluster"
	"holdfast/internal/join"
)

// governInterval is how soon the cluster's leader tries again what did not work.
const governInterval = time.Second

// govern does what the leader of the cluster's group has to do: it makes the cluster, if there is none, brings the group's members to what the state says, and
// proposes what cluster.Plan finds. It runs on every node, and does nothing where the leader is elsewhere.
func (g *clusterGroup) govern(ctx context.Context) {
	t := time.NewTicker(governInterval)
	defer t.Stop()
	for ctx.Err() == nil {
		changed := g.changes.wait()
		if g.leads.Load() {
			if err := g.governOnce(ctx); err != nil && ctx.Err() == nil && g.leads.Load() {
				g.node.log.Warn("the cluster cannot be brought to what is configured yet; trying on", "err", err)
			}
		}
		select {
		case <-changed:
		case <-t.C:
		case <-ctx.Done():
		}
	}
}

// memberPatience bounds one attempt to bring the group's members to what the state says: a node that joined and was not started yet must not stand in the way of others.
const memberPatience = 5 * time.Second

func (g *clusterGroup) governOnce(ctx context.Context) error {
	s := g.state()
	if s.ID == "" {
		return g.makeCluster(ctx)
	}
	if err := g.fitMembers(ctx, s); err != nil {
		g.node.log.Info("not all nodes take part in the cluster's decisions yet", "err", err)
	}
	for _, cmd := range g.state().Plan(g.replica.Voters()) {
		cmd.By = "cluster"
		r, err := g.propose(ctx, cmd)
		if err == nil {
			err = r.Err()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// makeCluster proposes the command that `holdfast init` has left.
func (g *clusterGroup) makeCluster(ctx context.Context) error {
	first, err := join.Pending(g.node.local.Data)
	if err != nil {
		return err
	}
	if first == nil {
		return errors.New("this node leads a cluster that is empty, and did not make it: its data folder is not whole")
	}
	r, err := g.propose(ctx, cluster.Command{By: "init", Init: first})
	if err != nil {
		return err
	}
	return r.Err()
}

// fitMembers brings the group's voters to what the state says. Nodes that joined and do not answer yet are left for later, so that they do not stand in the
// way of those that do.
func (g *clusterGroup) fitMembers(ctx context.Context, s *cluster.State) error {
	have := slices.Clone(g.replica.Voters())
	want := s.Voters()
	slices.Sort(have)
	st := g.replica.Status()
	if slices.Equal(have, want) && !st.Joint && len(st.Learners) == 0 {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, memberPatience)
	defer cancel()
	want = slices.DeleteFunc(want, func(m uint64) bool {
		return !slices.Contains(have, m) && !g.node.peers.answers(limited, m)
	})
	return g.replica.SetMembers(limited, want)
}
