package node

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/config"
	"holdfast/internal/join"
)

// TestWitnessUse says in which clusters a witness is of use.
func TestWitnessUse(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	token := func(role cluster.Role, lives time.Duration, replaces string) cluster.Token {
		return cluster.Token{ID: "t", Role: role, Expires: now.Add(lives), Replaces: replaces}
	}
	for _, tt := range []struct {
		name    string
		data    int
		witness bool
		leaving bool // the witness
		tokens  []cluster.Token
		volume  *config.VolumeSpec
		refused string
	}{
		{"one node", 1, false, false, nil, nil, "Add the second data node first"},
		{"one node and one that may join", 1, false, false, []cluster.Token{token(cluster.RoleData, time.Hour, "")}, nil, ""},
		{"one node and one that may join no more", 1, false, false, []cluster.Token{token(cluster.RoleData, -time.Hour, "")}, nil, "Add the second data node first"},
		{"one node that may be replaced", 1, false, false, []cluster.Token{token(cluster.RoleData, time.Hour, "a")}, nil, "Add the second data node first"},
		{"two nodes", 2, false, false, nil, nil, ""},
		{"two nodes and one that may join", 2, false, false, []cluster.Token{token(cluster.RoleData, time.Hour, "")}, nil, ""},
		{"there is one", 2, true, false, nil, nil, "holdfast node replace w"},
		{"there is one that leaves", 2, true, true, nil, nil, ""},
		{"three nodes", 3, false, false, nil, nil, "an odd number"},
		{"three nodes and a volume with three copies", 3, false, false, nil, &config.VolumeSpec{Copies: 3}, "an odd number"},
		{"three nodes and a volume with two copies", 3, false, false, nil, &config.VolumeSpec{Copies: 2}, ""},
		{"three nodes and a volume for two of them", 3, false, false, nil, &config.VolumeSpec{Copies: 3, Nodes: []string{"a", "b"}}, ""},
		{"three nodes and one that may join", 3, false, false, []cluster.Token{token(cluster.RoleData, time.Hour, "")}, nil, ""},
		{"four nodes", 4, false, false, nil, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &cluster.State{Tokens: tt.tokens}
			for i := range tt.data {
				s.Nodes = append(s.Nodes, cluster.Node{Number: uint64(i + 1), Name: string(rune('a' + i)), Role: cluster.RoleData})
			}
			if tt.witness {
				s.Nodes = append(s.Nodes, cluster.Node{Number: 9, Name: "w", Role: cluster.RoleWitness, Leaving: tt.leaving})
			}
			if tt.volume != nil {
				s.Volumes = []cluster.Volume{{ID: 1, Spec: *tt.volume}}
			}
			err := witnessUse(s, now)
			if tt.refused == "" && err != nil || tt.refused != "" && (err == nil || !strings.Contains(err.Error(), tt.refused)) {
				t.Errorf("error %v, want %q", err, tt.refused)
			}
		})
	}
}

// TestJoinRefused has machines join as what they cannot be, and wants the cluster as it was.
func TestJoinRefused(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{roles: []cluster.Role{cluster.RoleData}})
	a := c.nodes[0]
	token := func(role cluster.Role) (r api.TokenResult, err error) {
		await(t, testTimeout, func() bool {
			r, err = a.api().Token(c.context(), api.TokenRequest{Role: string(role), Lifetime: time.Hour})
			return err == nil || !strings.Contains(err.Error(), "no node is running")
		}, func() string { return err.Error() })
		return r, err
	}
	if _, err := token(cluster.RoleWitness); err == nil || !strings.Contains(err.Error(), "Add the second data node first") {
		t.Errorf("a token for a witness beside one data node: %v", err)
	}
	first, err := token(cluster.RoleData)
	if err != nil {
		t.Fatal(err)
	}
	witness, err := token(cluster.RoleWitness) // there may be two data nodes soon
	if err != nil {
		t.Fatal(err)
	}
	try := func(token string, role cluster.Role) error {
		_, err := join.Join(c.context(), a.peer, token, join.Options{Data: filepath.Join(t.TempDir(), "x"), Name: "x", Peer: c.network + ".9:7420", Role: role})
		return err
	}
	if err := try(first.Token, cluster.RoleWitness); err == nil || !strings.Contains(err.Error(), "is one for a data node") {
		t.Errorf("as a witness, with a token for a data node: %v", err)
	}
	if err := try(witness.Token, cluster.RoleData); err == nil || !strings.Contains(err.Error(), "is one for a witness node") {
		t.Errorf("as a data node, with a token for a witness: %v", err)
	}
	if _, err := join.Join(c.context(), a.peer, first.Token, join.Options{Data: filepath.Join(t.TempDir(), "x"), Name: "x", Peer: "name.invalid:7420"}); err == nil || !strings.Contains(err.Error(), "cannot look up name.invalid") {
		t.Errorf("with a name that nobody knows: %v", err)
	}
	c.mustDo(cluster.Command{RemoveToken: &cluster.RemoveToken{ID: first.ID}})
	if err := try(witness.Token, cluster.RoleWitness); err == nil || !strings.Contains(err.Error(), "Add the second data node first") {
		t.Errorf("as a witness beside one data node: %v", err)
	}
	if err := try(first.Token, cluster.RoleData); err == nil || !strings.Contains(err.Error(), "withdrawn") {
		t.Errorf("with a token that was withdrawn: %v", err)
	}
	s, err := a.api().State(c.context())
	if err != nil || len(s.Nodes) != 1 || len(s.Tokens) != 1 {
		t.Errorf("nodes %v, tokens %v, %v", s.Nodes, s.Tokens, err)
	}
}
