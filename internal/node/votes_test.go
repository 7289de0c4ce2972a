package node

import (
	"strings"
	"testing"

	"holdfast/internal/api"
)

// TestVoteWarnings says of which sets of voters, and of whom of them being there, a person is told.
func TestVoteWarnings(t *testing.T) {
	const here, gone = api.NodeAnswers, api.NodeSilent
	for _, tt := range []struct {
		name       string
		leader     string
		voters     []api.NodeState
		changing   bool
		worse, bad string // a part of the only one
	}{
		{"being made", "", nil, false, "", ""},
		{"one", "a", []api.NodeState{here}, false, "", ""},
		{"two", "a", []api.NodeState{here, here}, false, "", "Add a third data node"},
		{"two on their way to three", "a", []api.NodeState{here, here}, true, "", ""},
		{"one of two", "", []api.NodeState{here, gone}, false, "2 of a, b must be up and reach each other, and b does not answer", "Add a third data node"},
		{"three", "a", []api.NodeState{here, here, here}, false, "", ""},
		{"two of three", "a", []api.NodeState{here, here, gone}, false, "", ""},
		{"three without a leader", "", []api.NodeState{here, here, here}, false, "has no leader", ""},
		{"one of three", "", []api.NodeState{here, gone, gone}, false, "2 of a, b, c must be up and reach each other, and b, c do not answer", ""},
		{"four", "a", []api.NodeState{here, here, here, here}, false, "", ""},
		{"five", "a", []api.NodeState{here, here, here, gone, gone}, false, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &api.Status{ClusterLeader: tt.leader, Group: api.ClusterGroup{Majority: len(tt.voters)/2 + 1, Changing: tt.changing}}
			for i, state := range tt.voters {
				s.Group.Voters = append(s.Group.Voters, api.VoterStatus{Node: string(rune('a' + i)), ID: uint64(i + 1), State: state})
			}
			worse, bad := voteWarnings(s)
			for _, part := range []struct {
				got  []string
				want string
			}{{worse, tt.worse}, {bad, tt.bad}} {
				if text := strings.Join(part.got, "\n"); len(part.got) > 1 || (part.want == "") != (text == "") || !strings.Contains(text, part.want) {
					t.Errorf("warnings %q, want one with %q", part.got, part.want)
				}
			}
		})
	}
}

// TestMergeVotes is about whose view of the cluster's own group counts.
func TestMergeVotes(t *testing.T) {
	view := func(name, role string, term uint64, serving bool) api.Status {
		return api.Status{Node: name, Group: api.ClusterGroup{Role: role, Term: term, Serving: serving, Majority: 2, Voters: []api.VoterStatus{
			{Node: "a", ID: 1, State: api.NodeUnknown}, {Node: "b", ID: 2, State: api.NodeUnknown}, {Node: "c", ID: 3, State: api.NodeUnknown},
		}}}
	}
	for _, tt := range []struct {
		name    string
		own     api.Status
		answers map[uint64]api.Status
		leader  string
		states  [3]api.NodeState
	}{
		{"the leader's", view("a", "follower", 5, false), map[uint64]api.Status{2: view("b", "leader", 5, true), 3: view("c", "follower", 5, false)}, "b",
			[3]api.NodeState{api.NodeUnknown, api.NodeUnknown, api.NodeUnknown}},
		{"the newer leader's", view("a", "leader", 5, true), map[uint64]api.Status{2: view("b", "leader", 6, true)}, "b", [3]api.NodeState{api.NodeUnknown, api.NodeUnknown, api.NodeUnknown}},
		{"its own", view("a", "leader", 7, true), map[uint64]api.Status{2: view("b", "leader", 6, true)}, "", [3]api.NodeState{api.NodeUnknown, api.NodeUnknown, api.NodeUnknown}},
		{"nobody's", view("a", "candidate", 5, false), map[uint64]api.Status{3: view("c", "leader", 4, false)}, "", [3]api.NodeState{api.NodeUnknown, api.NodeSilent, api.NodeAnswers}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := tt.own
			s.ID = 1
			mergeVotes(&s, tt.answers)
			if s.ClusterLeader != tt.leader {
				t.Errorf("leader %q, want %q", s.ClusterLeader, tt.leader)
			}
			for i, v := range s.Group.Voters {
				if v.State != tt.states[i] {
					t.Errorf("node %s %s, want %s", v.Node, v.State, tt.states[i])
				}
			}
		})
	}
}
