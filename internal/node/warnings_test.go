package node

import (
	"strings"
	"testing"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
)

// TestSpaceWarning wants to hear on which machine there is too little room.
func TestSpaceWarning(t *testing.T) {
	s := &api.Status{ClusterLeader: "a", Volumes: []api.VolumeStatus{{Name: "main", Leader: "a", Space: api.SpaceStatus{Full: true, Low: []string{"b", "d"}}}}}
	got := strings.Join(warnings(s, &cluster.State{}, false), "\n")
	if want := "a copy on b, d is below its reserve"; !strings.Contains(got, want) {
		t.Errorf("%q is not in %q", want, got)
	}
}

// TestDamageWarning wants a command that can be typed as it is.
func TestDamageWarning(t *testing.T) {
	s := &api.Status{ClusterLeader: "a", Volumes: []api.VolumeStatus{{Name: "main", Leader: "a", Problems: []string{"node c-2.x: open its store: no such file"}}}}
	got := strings.Join(warnings(s, &cluster.State{}, false), "\n")
	if want := "`holdfast check main --repair --wrong c-2.x`"; !strings.Contains(got, want) {
		t.Errorf("%q is not in %q", want, got)
	}
}
