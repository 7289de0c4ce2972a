package node

import (
	"context"
	"errors"

	"holdfast/internal/replica"
)

// moveTries is how often a move is tried whose successor was too slow, as on a busy machine.
const moveTries = 3

// leading is what is asked of a volume's replica that is to hand its lead over; a member is one.
type leading interface {
	Transfer(ctx context.Context, node uint64) error
	Status() replica.Status
	Serving() bool
}

// handTo transfers the lead from node self to a node, or to the best if it is 0. If the successor is too slow there is an election, which it may win after all, and which self may
// win as well: then the move is tried again.
func handTo(ctx context.Context, r leading, self, to uint64) error {
	for try := 1; ; try++ {
		err := r.Transfer(ctx, to)
		if !errors.Is(err, replica.ErrNotTakenOver) {
			return err
		}
		switch leader := elected(ctx, r, self); {
		case leader != self && leader != 0 && (to == 0 || leader == to):
			return nil
		case leader != self || try == moveTries:
			return err
		}
	}
}

// elected waits for a leader, which must be ready to hand over if it is self, and returns it; 0 if there is none in time.
func elected(ctx context.Context, r leading, self uint64) uint64 {
	limited, cancel := context.WithTimeout(ctx, leaderPatience)
	defer cancel()
	for ; limited.Err() == nil; pause(limited, leaderPoll) {
		leader := r.Status().Leader
		if leader != 0 && (leader != self || r.Serving()) {
			return leader
		}
	}
	return 0
}
