package lab

import (
	"testing"

	"holdfast/internal/lab/work"
)

// TestPortmap mounts by NFSv3 without saying any port, as many do: the client asks port 111 of the volume's address.
func TestPortmap(t *testing.T) {
	l := newLab(t)
	c, guests := startCluster(t, l, 1)
	g := guests[0]
	e := Export{Addr: clusterAddr, Path: "/data"}
	mount(t, g, e, "3", "/mnt")
	fileStep(t, g, work.FileStep{Path: "/mnt/f", Do: "write", Size: 1 << 20}, "")
	unmount(t, g, "/mnt")
	leader := awaitHealthy(t, c)
	heal, err := c.Lose(t.Context(), leader, LossKill)
	if err != nil {
		t.Fatal(err)
	}
	mount(t, g, e, "3", "/mnt")
	fileStep(t, g, work.FileStep{Path: "/mnt/f", Do: "digest"}, "")
	unmount(t, g, "/mnt")
	if err := heal(); err != nil {
		t.Fatal(err)
	}
}
