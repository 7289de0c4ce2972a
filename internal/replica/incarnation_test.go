package replica

import (
	"errors"
	"testing"
)

// memIncarnations is an IncarnationStore in memory.
type memIncarnations struct {
	n   uint64
	err error
}

func (m *memIncarnations) Incarnation() uint64 { return m.n }

func (m *memIncarnations) SetIncarnation(n uint64) error {
	if m.err == nil {
		m.n = n
	}
	return m.err
}

// TestIncarnations starts a replica with files of its own, of another member, and of another incarnation.
func TestIncarnations(t *testing.T) {
	broken := errors.New("disk is broken")
	files := func(group string, member, incarnation uint64) *Meta {
		return &Meta{Files: Files{Group: group, Member: member, Incarnation: incarnation}}
	}
	for _, tt := range []struct {
		name  string
		meta  *Meta
		known memIncarnations
		want  error
		next  uint64 // that begins if the files are gone
		noted uint64
	}{
		{name: "none", known: memIncarnations{n: 3}, next: 4, noted: 3},
		{name: "its own", meta: files("g", 1, 3), known: memIncarnations{n: 3}, next: 4, noted: 3},
		{name: "of an earlier incarnation", meta: files("g", 1, 2), known: memIncarnations{n: 3}, want: ErrOldFiles, noted: 3},
		{name: "of one that was not noted yet", meta: files("g", 1, 4), known: memIncarnations{n: 3}, next: 5, noted: 4},
		{name: "that cannot be noted", meta: files("g", 1, 4), known: memIncarnations{n: 3, err: broken}, want: broken, noted: 3},
		{name: "of another member", meta: files("g", 2, 0), want: ErrForeignFiles},
		{name: "of the same number in another group", meta: files("h", 1, 0), want: ErrForeignFiles},
		{name: "of the first release", meta: &Meta{}, known: memIncarnations{n: 3}, next: 4, noted: 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log, meta := &memLog{}, &memMeta{m: tt.meta}
			if tt.meta != nil {
				log.hs.Term = 7
				tt.meta.Conf.Voters = []uint64{1, 2, 3}
			}
			cfg, err := Config{
				Group: "g", ID: 1, Peers: []uint64{1, 2, 3}, Log: log, Meta: meta, Incarnations: &tt.known,
				StateMachine: newToySM(), Transport: noTransport{}, Clock: bootClock{}, Fatal: func(error) {}, Logger: quiet,
			}.withDefaults()
			if err != nil {
				t.Fatal(err)
			}
			start, err := load(cfg)
			if !errors.Is(err, tt.want) {
				t.Fatalf("load returns %v, want %v", err, tt.want)
			}
			if err == nil && start.Files.Incarnation != tt.next {
				t.Errorf("incarnation %d begins, want %d", start.Files.Incarnation, tt.next)
			}
			if tt.known.n != tt.noted {
				t.Errorf("incarnation %d is noted, want %d", tt.known.n, tt.noted)
			}
			if m, _ := meta.Load(); m != nil && err == nil && m.Files != (Files{"g", 1, tt.noted}) {
				t.Errorf("the files are %+v", m.Files)
			}
		})
	}
}
