package lab

import (
	"os"
	"path/filepath"
	"testing"

	"holdfast/internal/config"
)

// TestNodeConfig: the configuration that the lab writes is one that a node accepts, and says what the harness relies on.
func TestNodeConfig(t *testing.T) {
	c := &Cluster{Nodes: []*Node{
		{Name: "a", Addr: "10.94.0.11", Data: "/var/tmp/a"}, {Name: "b", Addr: "10.94.0.12"}, {Name: "c", Addr: "10.94.0.13"},
	}}
	text, err := c.nodeConfig(c.Nodes[0])
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "a.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := config.Load(file, "")
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if got.Node != "a" || got.Data != "/var/tmp/a" || len(got.Nodes) != 3 || len(got.Volumes) != 1 {
		t.Errorf("got %+v", got)
	}
	if v := got.Volumes[0]; v.Name != clusterVolume || v.Exports[0].Path != c.Export().Path || v.MountAddr().String() != clusterAddr+":2049" {
		t.Errorf("volume: %+v", v)
	}
}
