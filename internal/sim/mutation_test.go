package sim

import "testing"

// bound is within how many seeds each mutation is found. A quarter of the seeds or more find those that bring a mix of their own, so that a change elsewhere does not matter.
const bound = 20

func TestMutationsAreFound(t *testing.T) {
	for _, m := range Mutations() {
		t.Run(m.String(), func(t *testing.T) {
			for seed := range uint64(bound) {
				if err := New(Config{Seed: seed, Mutation: m}).Run(); err != nil {
					t.Logf("found by seed %d: %v", seed, err)
					return
				}
			}
			t.Errorf("%d seeds did not find it", bound)
		})
	}
}
