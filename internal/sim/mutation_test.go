package sim

import "testing"

// bounds is within how many seeds each mutation is found; where it is not given, within 10.
var bounds = map[Mutation]uint64{ServeAfterLease: 150, IgnoreDamage: 150}

func TestMutationsAreFound(t *testing.T) {
	for _, m := range Mutations() {
		t.Run(m.String(), func(t *testing.T) {
			bound := bounds[m]
			if testing.Short() && bound != 0 {
				t.Skip("takes many seeds")
			}
			if bound == 0 {
				bound = 10
			}
			for seed := range bound {
				if err := New(Config{Seed: seed, Mutation: m}).Run(); err != nil {
					t.Logf("found by seed %d: %v", seed, err)
					return
				}
			}
			t.Errorf("%d seeds did not find it", bound)
		})
	}
}
