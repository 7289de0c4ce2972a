package cluster

import (
	"strings"
	"testing"

	"holdfast/internal/config"
)

// TestCheckListeners gives volumes ports that nodes or other volumes have.
func TestCheckListeners(t *testing.T) {
	listening := func(name, listen string, nodePort uint16) config.VolumeSpec {
		v := config.NewVolume(name)
		v.Address.Kind, v.Listen, v.NodePort = config.AddressListen, listen, nodePort
		v.Complete()
		return v
	}
	moving := func(name, ip, listen string, nodePort uint16) config.VolumeSpec {
		v := spec(name, ip)
		v.NodePort = nodePort
		if listen != "" {
			v.Listen = listen
		}
		return v
	}
	s := &State{
		Nodes: []Node{
			{Number: 1, Name: "a", Role: RoleData, Peer: "10.0.0.1:7420"},
			{Number: 2, Name: "b", Role: RoleData, Peer: "b.example.com:7430"},
			{Number: 3, Name: "w", Role: RoleWitness, Peer: "10.0.0.3:7440"},
		},
		Volumes: []Volume{{Spec: listening("cloud", "10.0.0.99:2049", 13049)}, {Spec: moving("main", "10.0.0.50/24", "", 12049)}},
	}
	for name, tt := range map[string]struct {
		v    config.VolumeSpec
		want string
	}{
		"free":                              {moving("v", "10.0.0.51/24", "", 14049), ""},
		"2049 beside an address that moves": {moving("main", "10.0.0.50/24", "", 2049), "volumes[main].node_port: port 2049 of every node collides with 10.0.0.99:2049 (volumes[cloud].listen)"},
		"its own, again":                    {moving("main", "10.0.0.50/24", "", 12049), ""},
		"a node's":                          {moving("v", "10.0.0.51/24", "", 7420), "volumes[0].node_port: port 7420 is node a's own"},
		"that of a node with a name":        {moving("v", "10.0.0.51/24", "", 7430), "volumes[0].node_port: port 7430 is node b's own"},
		"a witness's":                       {moving("v", "10.0.0.51/24", "", 7440), ""},
		"a node's at an address that moves": {moving("v", "10.0.0.51/24", "10.0.0.51:7420", 0), "volumes[0].listen: port 7420 is node a's own"},
		"a node's address":                  {listening("v", "10.0.0.1:7420", 0), "volumes[0].listen: port 7420 is node a's own"},
		"another address of that port":      {listening("v", "10.0.0.9:7420", 0), ""},
		"another volume's node port":        {moving("v", "10.0.0.51/24", "", 13049), "volumes[v].node_port: port 13049 of every node collides with port 13049 of every node (volumes[cloud].node_port)"},
		"at another volume's node port":     {listening("v", "10.0.0.9:12049", 0), "volumes[v].listen: 10.0.0.9:12049 collides with port 12049 of every node (volumes[main].node_port)"},
	} {
		t.Run(name, func(t *testing.T) {
			err := s.CheckListeners(&tt.v)
			if (err == nil) != (tt.want == "") || err != nil && !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}
