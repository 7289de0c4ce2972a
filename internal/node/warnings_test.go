package node

import (
	"strings"
	"testing"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
)

// TestNewestAway wants nobody to be told to replace the node that alone has the newest data.
func TestNewestAway(t *testing.T) {
	const advice, start = "holdfast node replace", "node d, which does not answer, may alone have the newest data: start it"
	for _, tt := range []struct {
		name          string
		leader        string
		silent        string // nodes
		alone, advise bool
	}{
		{"it is away", "", "d", true, false},
		{"two are away", "", "dw", false, false},
		{"it is away, and another goes on", "e", "d", false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &api.Status{Volumes: []api.VolumeStatus{{Name: "main", Leader: tt.leader, Members: []string{"d", "e", "w"}}}}
			for _, name := range []string{"d", "e", "w"} {
				n := api.NodeStatus{Name: name, Role: string(cluster.RoleData), State: api.NodeAnswers}
				if name == "w" {
					n.Role = string(cluster.RoleWitness)
				}
				if strings.Contains(tt.silent, name) {
					n.State = api.NodeSilent
				}
				s.Nodes = append(s.Nodes, n)
			}
			got := strings.Join(warnings(s, &cluster.State{}, false), "\n")
			if strings.Contains(got, start) != tt.alone || strings.Contains(got, advice) != tt.advise {
				t.Error(got)
			}
		})
	}
}

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
