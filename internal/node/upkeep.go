package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/identity"
)

const (
	// upkeepInterval is how often a node looks whether the cluster knows what it runs, and whether its certificate is to be renewed.
	upkeepInterval = 10 * time.Second
	// upkeepPatience bounds one attempt.
	upkeepPatience = 15 * time.Second
)

// upkeep tells the cluster what this node runs and renews its certificate, until the node stops.
func (n *Node) upkeep() {
	t := time.NewTicker(upkeepInterval)
	defer t.Stop()
	for n.ctx.Err() == nil {
		changed := n.cluster.changes.wait()
		ctx, cancel := context.WithTimeout(n.ctx, upkeepPatience)
		if err := n.upkeepOnce(ctx); err != nil && n.ctx.Err() == nil {
			n.log.Info("the cluster could not be told what this node runs; trying on", "err", err)
		}
		cancel()
		if err := n.keepBallast(); err != nil {
			n.log.Info("it is tried again", "err", err)
		}
		select {
		case <-changed:
		case <-t.C:
		case <-n.ctx.Done():
		}
	}
}

func (n *Node) upkeepOnce(ctx context.Context) error {
	self := n.cluster.state().Node(n.id.Node)
	if self == nil {
		return nil // there is no state yet, or this node was removed
	}
	n.resolvePeers(ctx)
	if err := n.reportDropped(ctx); err != nil {
		return err
	}
	if n.now().After(identity.RenewAt(n.creds.Certificate())) {
		if err := n.renew(ctx); err != nil {
			return err
		}
	}
	cert := n.creds.Self()
	report := cluster.ReportNode{
		Number: n.id.Node, Peer: n.id.PeerAddress, Release: n.release, MaxVersion: cluster.MaxVersion,
		Serial: cert.Serial, Expires: n.creds.Certificate().NotAfter,
	}
	if self.Peer == report.Peer && self.Release == report.Release && self.MaxVersion == report.MaxVersion && self.Serial == report.Serial {
		return nil
	}
	cmd := cluster.Command{ReportNode: &report}
	if self.Peer != report.Peer && n.cluster.leader() == 0 {
		if n.tellAny(ctx, cmd) {
			return nil
		}
	}
	r, err := n.cluster.do(ctx, self.Name, cmd)
	if err != nil {
		return err
	}
	return r.Err()
}

// tellAny has any other node that can be reached execute a command. A node that has moved to another address needs that: nobody reaches it, so it does not hear who leads.
func (n *Node) tellAny(ctx context.Context, cmd cluster.Command) bool {
	s := n.cluster.state()
	for i := range s.Nodes {
		if s.Nodes[i].Number == n.id.Node {
			continue
		}
		c, err := n.peers.client(s.Nodes[i].Number, "")
		if err != nil {
			continue
		}
		if _, err := c.Do(ctx, cmd); err == nil {
			return true
		}
	}
	return false
}

// checkRenewed returns why a new certificate is none to store: the node must be able to start with it, and be known by it for longer than by the one that it has.
func checkRenewed(creds *identity.Credentials, r api.CertificateResult) error {
	next, err := identity.NewCredentials([]byte(r.Certificate), creds.Key(), []byte(r.CA))
	if err != nil {
		return fmt.Errorf("the new certificate of this node cannot be used: %w", err)
	}
	if had, has := creds.Certificate().NotAfter, next.Certificate().NotAfter; has.Before(had) {
		return fmt.Errorf("the new certificate of this node would end on %s, before the one that it has (%s): the clock of the data node that signed it is behind, set it",
			has.Local().Format(time.DateTime), had.Local().Format(time.DateTime))
	}
	return nil
}

// renew gets this node a new certificate from a data node of the cluster.
func (n *Node) renew(ctx context.Context) error {
	request, err := identity.NewRequest(n.creds.Key(), n.id.Name)
	if err != nil {
		return err
	}
	r, err := n.NodeCertificate(ctx, n.id.Node, string(request))
	if err != nil {
		return err
	}
	if err := checkRenewed(n.creds, r); err != nil {
		return err
	}
	n.id.Certificate, n.id.CA = []byte(r.Certificate), []byte(r.CA)
	if err := n.id.Save(identity.Dir(n.local.Data)); err != nil {
		return err
	}
	if err := n.creds.Update(n.id.Certificate, n.id.CA); err != nil {
		return err
	}
	n.log.Info("this node has a new certificate", "expires", r.Expires)
	return nil
}

// reportDropped tells the cluster of copies that were to be made anew and that this node has thrown away.
func (n *Node) reportDropped(ctx context.Context) error {
	s := n.cluster.state()
	for i := range s.Volumes {
		v := &s.Volumes[i]
		if _, has := n.begun.get(uint64(v.ID)); has || !slices.Contains(v.Rebuild, n.id.Node) || slices.Contains(v.Keepers(), n.id.Node) {
			continue
		}
		r, err := n.cluster.do(ctx, n.id.Name, cluster.Command{CopyDropped: &cluster.CopyDropped{Volume: v.ID, Node: n.id.Node}})
		if err == nil {
			err = r.Err()
		}
		if err != nil {
			return err
		}
	}
	return nil
}
