package node

import (
	"errors"
	"strings"
	"testing"

	"holdfast/internal/api"
)

// TestOnLeader has a leader asked for at once when the old one has just gone: whoever asks need not try again himself.
func TestOnLeader(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{}).startAll()
	leader := c.leader()
	asked := c.other(leader)
	c.mustStop(leader)
	r, err := asked.api().Explain(c.context(), "v")
	if err != nil || r.Leader == leader.name {
		t.Errorf("%+v, %v", r, err)
	}
	// Where there is none it says so, after a while.
	for _, n := range c.nodes {
		if n != asked && n.running() {
			c.mustStop(n)
		}
	}
	await(t, testTimeout, func() bool {
		_, v, err := c.look(asked)
		return err == nil && v.Leader == ""
	}, func() string { return "it knows of a leader" })
	var e *api.Error
	if _, err := asked.api().Explain(c.context(), "v"); !errors.As(err, &e) || e.Status != statusNotLeader || !strings.Contains(e.Message, "has no leader") {
		t.Errorf("without a leader: %v", err)
	}
}
