package sim

import (
	"context"
	"flag"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestShrink makes failures smaller, and replays what is left by the flags that are printed.
func TestShrink(t *testing.T) {
	m := AckBeforeMajority
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	seed, first := uint64(0), New(Config{Mutation: m})
	for first.Run() == nil || len(first.Strikes()) < 4 {
		seed++
		first = New(Config{Seed: seed, Mutation: m})
	}
	s := Shrink(ctx, Config{Seed: seed, Mutation: m})
	if s == nil {
		t.Fatal("the run does not fail again")
	}
	t.Logf("%d runs, from %v to %v: %v", s.Runs, s.Before, s.After, s.Err)
	if s.After.Faults >= s.Before.Faults || s.After.Events >= s.Before.Events {
		t.Errorf("nothing was left out: %v, it was %v", s.After, s.Before)
	}
	if n := len(s.Events); n == 0 || !strings.Contains(s.Events[n-1], "VIOLATION") {
		t.Errorf("the story does not end with the failure: %q", s.Events)
	}
	small, again := New(s.Config), New(parseArgs(t, s.Config.Args()))
	if err := again.Run(); err == nil || err.Error() != s.Err.Error() || again.class != first.class {
		t.Errorf("replayed by %q: %v; it was %v", s.Config.Args(), err, s.Err)
	}
	if _ = small.Run(); again.Digest() != small.Digest() {
		t.Error("the replay is another run")
	}
}

func TestShrinkWithoutFailure(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s := Shrink(ctx, Config{Seed: 1, Duration: 200 * time.Millisecond, Off: FaultNames()}); s != nil {
		t.Errorf("%v", s.Err)
	}
}

func parseArgs(t *testing.T, args []string) Config {
	t.Helper()
	var cfg Config
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	cfg.Flags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestArgs checks that the flags of a configuration make it again.
func TestArgs(t *testing.T) {
	cfg := Config{Seed: 7, Nodes: 5, Kind: Elastic, Duration: 1234567, Mutation: ApplyTwice, From: 1, Ruin: true, Endure: 4, Only: []int{}, Off: []string{"kill", "crash-all"}, Processes: []int{0, 14}, Lease: time.Second, Operations: 3}
	got := parseArgs(t, cfg.Args())
	if !slices.Equal(got.Args(), cfg.Args()) || got.Only == nil || len(got.Args()) != 25 {
		t.Errorf("%q became %q", cfg.Args(), got.Args())
	}
	for _, bad := range [][]string{{"-only", "x"}, {"-processes", "1,"}, {"-off", "rain"}, {"-kind", "large"}, {"-from", "99"}, {"-lease", "-1s"}, {"-mutation", "small"}} {
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		fs.SetOutput(&strings.Builder{})
		if (&Config{}).Flags(fs); fs.Parse(bad) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// TestWithoutSomeFaults checks that what is left out does not change what the other faults are.
func TestWithoutSomeFaults(t *testing.T) {
	all := New(Config{Seed: 3})
	if err := all.Run(); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Seed: 3, Only: []int{}}
	for i, f := range all.Strikes() {
		if i%2 == 0 {
			cfg.Only = append(cfg.Only, f.Ordinal)
		}
	}
	some := New(cfg)
	if err := some.Run(); err != nil {
		t.Fatal(err)
	}
	for _, f := range some.Strikes() {
		i := slices.IndexFunc(all.Strikes(), func(o Strike) bool { return o.Ordinal == f.Ordinal })
		if i < 0 || all.Strikes()[i].Kind != f.Kind || (all.Strikes()[i].At-time.Duration(all.began)) != f.At-time.Duration(some.began) {
			t.Errorf("fault %v is another one in the whole run", f)
		}
	}
	if len(some.Strikes()) != len(cfg.Only) {
		t.Errorf("%d faults of %d", len(some.Strikes()), len(cfg.Only))
	}
}
