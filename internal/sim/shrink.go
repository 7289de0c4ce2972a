package sim

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Shrunk is a failing run from which as much as possible was left out.
type Shrunk struct {
	// Config is of the smaller run.
	Config Config
	// Err is how it fails: the same check as that of the run that it was made of.
	Err error
	// Before and After are the sizes of the two, Runs how many were tried.
	Before, After Size
	Runs          int
	// Events are the last things that happened in the smaller run which have to do with its failure.
	Events []string
}

// Size is how much happened in a run.
type Size struct {
	Faults, Processes int
	Events            uint64
	Simulated         time.Duration
}

func (s Size) String() string {
	return fmt.Sprintf("%d faults, %d processes, %d events, %v", s.Faults, s.Processes, s.Events, s.Simulated.Round(time.Millisecond))
}

// shrinker holds the smallest run found so far that fails as the first did.
type shrinker struct {
	ctx   context.Context
	best  Config
	world *World // the run of best
	class string
	runs  int
}

// Shrink makes a failing run smaller as long as ctx lets it: it leaves out faults, processes, operations, nodes and time, and keeps what still fails in the same way
// (delta debugging). It returns nil if cfg does not fail.
func Shrink(ctx context.Context, cfg Config) *Shrunk {
	cfg.Log = nil
	w := New(cfg)
	if w.Run() == nil {
		return nil
	}
	s := &shrinker{ctx: ctx, class: w.class, runs: 1}
	before := w.size()
	s.keep(w)
	for more := true; more && ctx.Err() == nil; {
		more = s.round()
	}
	if len(s.best.Processes) == w.faults.clients()*slotCount {
		s.best.Processes = nil
	}
	out := &Shrunk{Config: s.best, Err: s.world.err, Before: before, After: s.world.size(), Runs: s.runs}
	out.Events = story(s.best)
	return out
}

func (w *World) size() Size {
	return Size{Faults: len(w.strikes), Processes: len(w.processes()), Events: w.stats.Events, Simulated: time.Duration(w.now)}
}

// processes are the numbers of those that were let work.
func (w *World) processes() []int {
	all := []int{}
	for id := range w.faults.clients() * slotCount {
		if w.cfg.works(id) {
			all = append(all, id)
		}
	}
	return all
}

// keep takes a run that fails as the best. What the seed settled is written down, and what came after the failure is left out.
func (s *shrinker) keep(w *World) {
	cfg := w.cfg
	if w.chaos {
		cfg.Duration = min(cfg.Duration, time.Duration(w.now-w.began+msec))
	}
	cfg.Only = []int{}
	for _, f := range w.strikes {
		cfg.Only = append(cfg.Only, f.Ordinal)
	}
	if cfg.Mutation.faults() != nil {
		cfg.Faults = nil // follows from the mutation
	}
	cfg.Processes = w.processes()
	s.best, s.world = cfg, w
}

// try keeps a smaller run if it fails in the same way after no more events.
func (s *shrinker) try(cfg Config) bool {
	if s.ctx.Err() != nil {
		return false
	}
	s.runs++
	w := New(cfg)
	w.limit = s.world.stats.Events
	if w.Run() == nil || w.class != s.class {
		return false
	}
	s.keep(w)
	return true
}

// round tries everything once and reports whether something could be left out.
func (s *shrinker) round() bool {
	size := s.world.size()
	s.kinds()
	s.list(func(c *Config) *[]int { return &c.Only })
	s.list(func(c *Config) *[]int { return &c.Processes })
	s.number(func(c *Config) *int { return &c.Operations }, 1, 64)
	if s.best.Kind != Witnessed {
		s.number(func(c *Config) *int { return &c.Nodes }, 1, s.best.Nodes)
	}
	s.time()
	return s.world.size() != size
}

// kinds leaves out all faults of a kind at once.
func (s *shrinker) kinds() {
	for _, name := range FaultNames() {
		var without []int
		for _, f := range s.world.strikes {
			if f.Kind != name {
				without = append(without, f.Ordinal)
			}
		}
		if len(without) < len(s.world.strikes) {
			cfg := s.best
			cfg.Only = append([]int{}, without...)
			s.try(cfg)
		}
	}
}

// list leaves out elements of a list: halves first, then ever smaller parts.
func (s *shrinker) list(of func(*Config) *[]int) {
	for part := (len(*of(&s.best)) + 1) / 2; part > 0 && s.ctx.Err() == nil; part /= 2 {
		for at := 0; at < len(*of(&s.best)); {
			cfg := s.best
			all := *of(&cfg)
			*of(&cfg) = slices.Concat([]int{}, all[:at], all[min(at+part, len(all)):])
			if !s.try(cfg) {
				at += part
			}
		}
	}
}

// number lowers a number below high, by halves; 0 stands for as many as there are.
func (s *shrinker) number(of func(*Config) *int, low, high int) {
	if n := *of(&s.best); n != 0 {
		high = n
	}
	for low < high && s.ctx.Err() == nil {
		cfg := s.best
		middle := (low + high) / 2
		*of(&cfg) = middle
		if s.try(cfg) {
			high = middle
		} else {
			low = middle + 1
		}
	}
}

// time lets the faults and the clients stop earlier.
func (s *shrinker) time() {
	low, high := time.Duration(0), s.best.Duration
	for high-low > 50*time.Millisecond && s.ctx.Err() == nil {
		cfg := s.best
		cfg.Duration = (low + high) / 2
		if s.try(cfg) {
			high = min(cfg.Duration, s.best.Duration)
		} else {
			low = cfg.Duration
		}
	}
}

// classOf tells failures apart by the check that failed: its words without the figures, and those of the error that it met.
func classOf(format string, args []any) string {
	class := format
	for _, a := range args {
		if err, ok := a.(error); ok {
			text, _, _ := strings.Cut(err.Error(), "\n")
			class += "|" + strings.Map(func(r rune) rune {
				if r >= '0' && r <= '9' {
					return -1
				}
				return r
			}, text)
		}
	}
	return class
}

// storyLines bounds the events of a Shrunk.
const storyLines = 60

// story runs a failing run again and returns the last of what happened in it that has to do with the failure: what befell the cluster, and for clients' calls
// those of the client or the entry that the failure names.
func story(cfg Config) []string {
	var log bytes.Buffer
	cfg.Log = &log
	w := New(cfg)
	_ = w.Run()
	if w.err == nil {
		return nil
	}
	var lines []string
	for line := range strings.Lines(log.String()) {
		if line = strings.TrimRight(line, "\n"); w.concerns(line) {
			lines = append(lines, line)
		}
	}
	return lines[max(0, len(lines)-storyLines):]
}

// concerns reports whether a line of the log has to do with the failure.
func (w *World) concerns(line string) bool {
	if len(line) < 14 || line[0] == ' ' && line[12] != ' ' {
		return true // of a history
	}
	what := line[13:]
	name, args := what, []uint64(nil)
	if at := strings.LastIndex(what, " ["); at > 0 {
		name = what[:at]
		for field := range strings.FieldsSeq(strings.Trim(what[at:], " []")) {
			var n uint64
			if _, err := fmt.Sscan(field, &n); err == nil {
				args = append(args, n)
			}
		}
	}
	switch name {
	case "send", "checkpoint":
		return false
	case "call", "reply":
		return len(args) > 0 && w.names("client", args[0])
	case "applied":
		return len(args) > 1 && (w.names("index", args[1]) || w.names("entry", args[1]) || w.names("but", args[1]))
	}
	var client uint64 = math.MaxUint64
	if n, _ := fmt.Sscanf(what, "client %d ", &client); n == 1 {
		return w.names("client", client)
	}
	return true
}

// names reports whether the failure names something.
func (w *World) names(what string, number uint64) bool {
	return strings.Contains(w.err.Error()+" ", fmt.Sprintf("%s %d ", what, number))
}
