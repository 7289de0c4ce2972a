package lab

import (
	"fmt"
	"testing"

	"holdfast/internal/config"
)

// TestNodeConfig: the file that the lab writes is one that a node accepts, and says what the harness relies on.
func TestNodeConfig(t *testing.T) {
	got, err := config.ParseLocal("a.yaml", fmt.Appendf(nil, nodeConfig, "/var/tmp/a", nodePort, healthPort))
	if err != nil {
		t.Fatal(err)
	}
	if got.Data != "/var/tmp/a" || got.Listen != fmt.Sprintf(":%d", nodePort) || got.Health != fmt.Sprintf(":%d", healthPort) {
		t.Errorf("got %+v", got)
	}
}
