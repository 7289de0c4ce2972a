package lab

import (
	"fmt"
	"testing"
	"time"

	"holdfast/internal/cluster"
	"holdfast/internal/lab/work"
)

// formLimit is how long it may take from nothing to a client that has mounted.
const formLimit = time.Minute

// TestForm forms clusters from nothing, as the README tells, until a client has mounted and written.
func TestForm(t *testing.T) {
	for _, tt := range []struct {
		name  string
		roles []cluster.Role
	}{{"one node", DataNodes(1)}, {"two nodes and a witness", TwoPlusWitness()}, {"three nodes", DataNodes(3)}} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			g := bootGuests(t, l, 1)[0]
			binary := holdfastBinary(t)
			start := time.Now()
			c, err := l.FormNodes(t.Context(), ClusterOptions{Binary: binary, Roles: tt.roles})
			if err != nil {
				t.Fatal(err)
			}
			showLogs(t, c)
			formed := time.Now()
			command(t, c.Nodes[0], "volume", "create", clusterVolume, "--address", clusterAddr+"/24", "--export", "/data", "--client", "10.94.0.0/24:rw,no_root_squash")
			created := time.Now()
			mount(t, g, c.Export(), "4.2", "/mnt")
			fileStep(t, g, work.FileStep{Path: "/mnt/first", Do: "write", Size: 1 << 20}, "")
			took := time.Since(start)
			leader := awaitHealthy(t, c)
			line := fmt.Sprintf("%v from nothing to a client that has written 1 MiB: nodes %v, volume %v; all in sync after %v", round(took), round(formed.Sub(start)),
				round(created.Sub(formed)), round(time.Since(start)))
			if took > formLimit {
				t.Error(line)
			} else {
				t.Log(line)
			}
			if len(tt.roles) > 1 {
				// With all nodes in sync nothing needs a person: exit code 0.
				command(t, leader, "status")
			}
		})
	}
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
