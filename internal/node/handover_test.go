package node

import (
	"context"
	"errors"
	"testing"

	"holdfast/internal/replica"
)

// election is a replica of node 1 whose successors are too slow: each transfer ends with one of wins as the leader, which is seen after a while without one.
type election struct {
	wins   []uint64
	fails  error // of all transfers
	tries  int
	leader uint64
	quiet  int // how often Status is to know no leader
}

func (e *election) Transfer(context.Context, uint64) error {
	if e.fails == nil {
		e.leader, e.quiet = e.wins[e.tries], 2
	}
	e.tries++
	if e.fails != nil {
		return e.fails
	}
	return replica.ErrNotTakenOver
}

func (e *election) Status() replica.Status {
	if e.quiet > 0 {
		e.quiet--
		return replica.Status{}
	}
	return replica.Status{Leader: e.leader}
}

func (e *election) Serving() bool { return e.leader == 1 }

// TestSlowSuccessor: a move whose successor did not take over in time is done if the successor leads in the end, is tried again if the old leader does, and has failed if a third does.
func TestSlowSuccessor(t *testing.T) {
	for _, tt := range []struct {
		name  string
		e     election
		to    uint64
		tries int
		want  error
	}{
		{"it leads in the end", election{wins: []uint64{2}}, 2, 1, nil},
		{"the old leader leads, then the successor", election{wins: []uint64{1, 1, 2}}, 2, 3, nil},
		{"the old leader leads, whatever is tried", election{wins: []uint64{1, 1, 1}}, 2, moveTries, replica.ErrNotTakenOver},
		{"a third leads", election{wins: []uint64{3}}, 2, 1, replica.ErrNotTakenOver},
		{"a third leads and any will do", election{wins: []uint64{1, 3}}, 0, 2, nil},
		{"another error", election{fails: replica.ErrNoSuccessor}, 2, 1, replica.ErrNoSuccessor},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := handTo(t.Context(), &tt.e, 1, tt.to); !errors.Is(err, tt.want) || tt.e.tries != tt.tries {
				t.Errorf("%v after %d tries, want %v after %d", err, tt.e.tries, tt.want, tt.tries)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := handTo(ctx, &election{wins: []uint64{0}}, 1, 2); !errors.Is(err, replica.ErrNotTakenOver) {
		t.Errorf("nobody leads: %v", err)
	}
}
