package lab

import (
	"net/netip"
	"testing"
	"time"

	"holdfast/internal/lab/work"
)

// TestExportsAtRunTime changes exports, sizes and volumes under a client that has them mounted.
func TestExportsAtRunTime(t *testing.T) {
	l := newLab(t)
	c, guests := startCluster(t, l, 1)
	g := guests[0]
	on := c.Nodes[1] // any will do
	write := func(path string, size int64, errno string) work.FileOutcome {
		t.Helper()
		return fileStep(t, g, work.FileStep{Path: path, Do: "write", Size: size}, errno)
	}

	t.Run("export", func(t *testing.T) {
		const client = "10.94.0.0/24"
		e := c.Export()
		e.Path = "/more"
		command(t, on, "export", "add", clusterVolume, e.Path, "--client", client+":rw,no_root_squash")
		mount(t, g, e, "4.2", "/more")
		write("/more/f", 100<<10, "")
		start := time.Now()
		command(t, on, "export", "set", clusterVolume, e.Path, "--client", client+":ro")
		took := time.Since(start)
		write("/more/g", 1, "EROFS")
		write("/more/f", 1, "EROFS")
		fileStep(t, g, work.FileStep{Path: "/more/f", Do: "digest"}, "")
		command(t, on, "export", "set", clusterVolume, e.Path, "--client", client+":rw,no_root_squash")
		write("/more/g", 1, "")
		command(t, on, "export", "remove", clusterVolume, e.Path)
		var o work.FileOutcome
		if err := g.Run(t.Context(), "file", work.FileStep{Path: "/more/h", Do: "write", Size: 1}, &o); err != nil || o.Errno == "" {
			t.Errorf("a client writes to what is exported no more: %+v, %v", o, err)
		}
		command(t, on, "export", "add", clusterVolume, e.Path, "--client", client+":rw,no_root_squash")
		write("/more/g", 2, "") // the same mount, as file handles stay
		unmount(t, g, "/more")
		t.Logf("read-only took %v; once removed, clients see %s", round(took), o.Errno)
	})
	t.Run("size", func(t *testing.T) {
		mount(t, g, c.Export(), "4.2", "/mnt")
		defer unmount(t, g, "/mnt")
		space := func() work.FileOutcome {
			t.Helper()
			return fileStep(t, g, work.FileStep{Path: "/mnt", Do: "space"}, "")
		}
		command(t, on, "volume", "resize", clusterVolume, "20MiB")
		if s := space(); s.Total != 20<<20 || s.Free > s.Total {
			t.Errorf("df shows %+v", s)
		}
		o := write("/mnt/big", 30<<20, "ENOSPC")
		fileStep(t, g, work.FileStep{Path: "/mnt/big", Do: "size"}, "")
		full := space()
		if full.Free > 1<<20 {
			t.Errorf("refused although %d bytes are free", full.Free)
		}
		command(t, on, "volume", "resize", clusterVolume, "+30MiB")
		if s := space(); s.Total != 50<<20 {
			t.Errorf("df shows %+v", s)
		}
		write("/mnt/big", 30<<20, "")
		fileStep(t, g, work.FileStep{Path: "/mnt/big", Do: "remove"}, "")
		freed := space()
		if freed.Free < 40<<20 {
			t.Errorf("after removal df shows %+v", freed)
		}
		command(t, on, "volume", "resize", clusterVolume, "none")
		t.Logf("refused after %d bytes of the client's, %d free; after removal %d free", o.Size, full.Free, freed.Free)
	})
	t.Run("second volume", func(t *testing.T) {
		mount(t, g, c.Export(), "4.2", "/mnt")
		defer unmount(t, g, "/mnt")
		e := c.Export()
		e.Addr, e.Path = "10.94.0.101", "/two"
		addVolume(t, on, "second", e)
		mount(t, g, e, "4.2", "/two")
		defer unmount(t, g, "/two")
		write("/two/f", 1<<20, "")
		fileStep(t, g, work.FileStep{Path: "/mnt/f", Do: "size"}, "ENOENT")
		// Led elsewhere, it is still there when the first one's leader is lost.
		leader := awaitHealthy(t, c)
		command(t, on, "move", "second", "--to", other(t, c, leader).Name)
		if err := leader.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		write("/two/f", 1<<20, "")
		second := time.Since(start)
		write("/mnt/f", 1<<20, "")
		t.Logf("when the first volume's leader is lost, 1 MiB is written to the second in %v, to the first within %v", round(second), round(time.Since(start)))
		if err := leader.Start(); err != nil {
			t.Fatal(err)
		}
		awaitHealthy(t, c)
	})
	t.Run("deleted", func(t *testing.T) {
		command(t, on, "volume", "delete", "second", "--yes=second")
		e := c.Export()
		e.Addr, e.Path = "10.94.0.101", "/two"
		addVolume(t, on, "second", e)
		mount(t, g, e, "4.2", "/two")
		fileStep(t, g, work.FileStep{Path: "/two/f", Do: "size"}, "ENOENT")
		unmount(t, g, "/two")
	})
}

// TestIPv6 mounts a volume whose address is one of IPv6, moves it and loses its leader.
func TestIPv6(t *testing.T) {
	l := newLab(t)
	booted := startGuests(t, l, 1)
	c, err := l.FormNodes(t.Context(), ClusterOptions{Binary: holdfastBinary(t), Roles: DataNodes(3)})
	if err != nil {
		t.Fatal(err)
	}
	showLogs(t, c)
	g := booted()[0]
	e := Export{Addr: "fd94::100", Path: "/data", Port: clusterNFSPort, MountPort: clusterNFSPort}
	addVolume(t, c.Nodes[0], clusterVolume, e)
	for _, version := range []string{"4.2", "3"} {
		mount(t, g, e, version, "/mnt")
		load, err := g.StartLoad(t.Context(), work.LoadArgs{Dir: "/mnt", ProbeOnly: true, Name: "v" + version})
		if err != nil {
			t.Fatal(err)
		}
		for _, how := range []Loss{LossTransfer, LossKill, LossLink} {
			gap := loseLeader(t, c, []*Load{load}, how)
			t.Logf("version %s, %s: longest gap %v", version, how, gap)
			if gap > lossLimit {
				t.Error("a client waited")
			}
		}
		stopProbe(t, load)
		unmount(t, g, "/mnt")
	}
}

// addVolume makes a volume with one export at an address.
func addVolume(t *testing.T, n *Node, name string, e Export) {
	t.Helper()
	bits, clients := "/24", "10.94.0.0/24"
	if netip.MustParseAddr(e.Addr).Is6() {
		bits, clients = "/64", "fd94::/64"
	}
	command(t, n, "volume", "create", name, "--address", e.Addr+bits, "--reserve", "64MiB", "--export", e.Path, "--client", clients+":rw,no_root_squash")
}
