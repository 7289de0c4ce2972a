package node

import (
	"strings"
	"testing"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
)

// TestDamageWarning wants a command that can be typed as it is.
func TestDamageWarning(t *testing.T) {
	s := &api.Status{ClusterLeader: "a", Volumes: []api.VolumeStatus{{Name: "main", Leader: "a", Problems: []string{"node c-2.x: open its store: no such file"}}}}
	got := strings.Join(warnings(s, &cluster.State{}, false), "\n")
	if want := "`holdfast check main --repair --wrong c-2.x`"; !strings.Contains(got, want) {
		t.Errorf("%q is not in %q", want, got)
	}
}
