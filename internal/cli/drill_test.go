package cli

import (
	"strings"
	"testing"

	"holdfast/internal/api"
	"holdfast/internal/drill"
)

func TestPrintDrill(t *testing.T) {
	res := drill.Result{Address: "10.0.0.50:2049", Export: "/data", Writes: 1234, TypicalMS: 1.25, Reconnects: 1, Outages: []drill.Outage{{From: "a", To: "b", MoveMS: 31.2, OutageMS: 88.8}}}
	bad := res
	bad.Failures = []string{"a lock was lost: another client could take it"}
	var out strings.Builder
	o := &options{out: &out}
	printDrill(o, res)
	printDrill(o, bad)
	golden(t, "drill.txt", out.String())
}

// TestMoves moves a volume there and back.
func TestMoves(t *testing.T) {
	f := newFake(t)
	s := newSession(f)
	s.run(ExitOK, "volume", "create", "main", "--address", "10.0.0.50/24")
	var got []string
	for _, move := range moves(api.NewClient(s.dir), "main", "c", true) {
		from, to, err := move(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, from+to)
	}
	if strings.Join(got, " ") != "ac ca" {
		t.Error(got)
	}
}
