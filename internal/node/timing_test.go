package node

import (
	"fmt"
	"strings"
	"testing"

	"holdfast/internal/config"
	"holdfast/internal/replica"
)

// TestTiming checks that every timing that the configuration takes is one that a raft group can work with, so that mistakes are found with their line and key.
func TestTiming(t *testing.T) {
	taken := 0
	for _, tick := range []string{"1ms", "20ms", "1s"} {
		for election := range 14 {
			for _, lease := range []string{"", "3ms", "40ms", "60ms", "65ms", "100ms", "180ms", "199ms", "5s"} {
				for _, drift := range []string{"", "0s", "1ms", "30ms", "1s"} {
					text := fmt.Sprintf("node: a\ndata: /x\nnodes: [{name: a, peer: 127.0.0.1:1}]\nvolumes: [{name: v, address: {kind: listen}, listen: 127.0.0.1:2, exports: [{path: /d, clients: [{match: '*'}]}]}]\ntiming: {tick: %s, election: %d", tick, election)
					if lease != "" {
						text += ", lease: " + lease
					}
					if drift != "" {
						text += ", drift: " + drift
					}
					c, err := config.Parse("x.yaml", []byte(text+"}\n"), "")
					if err != nil {
						if !strings.Contains(err.Error(), "x.yaml:5:") || !strings.Contains(err.Error(), ": timing.") {
							t.Fatalf("%s\nerror without line and key: %v", text, err)
						}
						continue
					}
					taken++
					// Timing is looked at before the members are.
					_, err = replica.NewCore(0, replica.CoreConfig{ID: 9, Peers: []uint64{1}, Timing: timing(c.Timing)})
					if err == nil || !strings.Contains(err.Error(), "not among the members") {
						t.Errorf("%s\n%v", text, err)
					}
				}
			}
		}
	}
	if taken < 10 {
		t.Errorf("%d configurations were taken", taken)
	}
}
