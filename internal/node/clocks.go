package node

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/doctor"
)

// reading is what is known of another node's clock.
type reading struct {
	offset      time.Duration // by how much it is ahead of this node's; negative: behind
	uncertainty time.Duration // by which offset is wrong at most
}

// maxOffset is more than clocks differ by, and so small that differences of offsets can be counted.
const maxOffset = time.Duration(1 << 61)

// readClock compares another node's time with this node's, when the question was sent and when the answer was there. The other may have looked at its clock at any moment between.
func readClock(sent, received, told time.Time) reading {
	half := received.Sub(sent) / 2 // both have monotonic readings, so that a step of the clock does not count
	offset := told.Sub(sent.Add(half))
	return reading{max(min(offset, maxOffset), -maxOffset), half}
}

// wallClock is a node's clock, compared with that of the node that answers.
type wallClock struct {
	reading
	node string
}

// differs reports whether two clocks differ by so much or more, whatever was uncertain about them.
func (c wallClock) differs(o wallClock, limit time.Duration) bool {
	return (c.offset-o.offset).Abs()-c.uncertainty-o.uncertainty >= limit
}

// against says how far a clock is ahead of another, or behind.
func (c wallClock) against(o wallClock) string {
	if d := c.offset - o.offset; d >= 0 {
		return spanText(d) + " ahead"
	}
	return spanText(o.offset-c.offset) + " behind"
}

// wallClocks are the clocks that are known, that of the answering node among them.
func wallClocks(s *api.Status) []wallClock {
	var all []wallClock
	for i := range s.Nodes {
		n := &s.Nodes[i]
		switch {
		case n.ID == s.ID:
			all = append(all, wallClock{node: n.Name})
		case n.ClockOffset != nil:
			all = append(all, wallClock{reading{*n.ClockOffset, n.ClockUncertainty}, n.Name})
		}
	}
	return all
}

// rightClock is one that more than half of the clocks agree with, if there is one: a node of theirs, and all others that differ from it.
func rightClock(all []wallClock) (right wallClock, wrong []wallClock, ok bool) {
	if len(all) == 0 {
		return wallClock{}, nil, false
	}
	sorted := slices.SortedStableFunc(slices.Values(all), func(a, b wallClock) int { return cmp.Compare(a.offset, b.offset) })
	right = sorted[(len(sorted)-1)/2] // where more than half agree, the one in the middle is one of them
	for _, c := range all {
		if c.differs(right, doctor.ClockWarning) {
			wrong = append(wrong, c)
		}
	}
	return right, wrong, 2*(len(all)-len(wrong)) > len(all)
}

// likelyTime is what the clocks of most nodes said when s was made; where that is not known, the clock of the node that answers.
func likelyTime(s *api.Status) time.Time {
	if right, _, ok := rightClock(wallClocks(s)); ok {
		return s.Time.Add(right.offset)
	}
	return s.Time
}

// clockWarning says which nodes' clocks are wrong or, if that cannot be told, that they differ. It is "" if they agree as far as is known; urgent, if they differ by much.
func clockWarning(s *api.Status) (text string, urgent bool) {
	all := wallClocks(s)
	right, wrong, ok := rightClock(all)
	text = "compared with most nodes', "
	if !ok {
		right, wrong = wallClock{node: s.Node}, nil
		for _, c := range all {
			if c.differs(right, doctor.ClockWarning) {
				wrong = append(wrong, c)
			}
		}
		text = "the clocks of the nodes differ, and it cannot be told which is right: compared with that of node " + s.Node + ", "
	}
	if len(wrong) == 0 {
		return "", false
	}
	for i, c := range wrong {
		urgent = urgent || c.differs(right, doctor.ClockProblem)
		if i == 0 {
			text += "the clock of node " + c.node + " is " + c.against(right)
		} else {
			text += ", that of node " + c.node + " " + c.against(right)
		}
	}
	return text + ". Keep the clocks of all nodes by the same time servers (`chronyc sources`, `timedatectl`): the times of files come from the node that leads, and certificates depend on clocks", urgent
}

// spanText writes a length of time for people, not finer than it matters between clocks.
func spanText(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
	case d < 2*day:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%d days", d/day)
}
