package bench

import (
	"bytes"
	"strings"
	"testing"
)

func TestReportPutsServersSideBySide(t *testing.T) {
	r := &Report{CPUs: 2, IdleRSS: map[string]int64{ServerThree: 30 << 20}}
	r.add(ClientLoadgen, "4.1", "write", ServerYardstick, Figure{Ops: 100, Bytes: 100 << 20, Seconds: 1, CPUSeconds: 0.1})
	r.add(ClientLoadgen, "4.1", "write", ServerThree, Figure{Ops: 100, Bytes: 100 << 20, Seconds: 4, CPUSeconds: 0.4})
	r.add(ClientLoadgen, "4.1", "stat", ServerYardstick, Figure{Ops: 100, Seconds: 1, P50: 0.5, P99: 2, CPUSeconds: 0.1})
	r.add(ClientLoadgen, "3", "stat", ServerThree, Figure{Ops: 300, Seconds: 1})
	if n := len(r.Rows); n != 3 {
		t.Fatalf("%d rows, want one for each client, version and case: 3", n)
	}
	if got := r.Rows[0].Ratio; got != 0.25 {
		t.Errorf("ratio %v, want 0.25: a quarter of the rate", got)
	}
	if got := r.Rows[1].Ratio; got != 0 {
		t.Errorf("ratio %v of a case that only one server ran", got)
	}
	if got := r.Rows[1].Servers[ServerYardstick].CPUPerOp; got != 1000 {
		t.Errorf("%v us of CPU for each operation, want 1000", got)
	}
	var out bytes.Buffer
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"105 MB/s", "26 MB/s", "0.25", "0.50/2.00", "1000 us", "client loadgen, NFS 3", "30 MiB"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
}

func TestChosen(t *testing.T) {
	group := []string{"seq-write", "seq-read"}
	if got := chosen(group, nil); len(got) != 2 {
		t.Errorf("all: %v", got)
	}
	if got := chosen(group, []string{"stat", "seq-read"}); len(got) != 1 || got[0] != "seq-read" {
		t.Errorf("one: %v", got)
	}
}

func TestUnknownNames(t *testing.T) {
	for _, o := range []Options{
		{Clients: []string{"windows"}},
		{Clients: []string{ClientLoadgen}, Servers: []string{"knfsd"}},
	} {
		if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "there is no") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestResidentBytes(t *testing.T) {
	if _, err := residentBytes(-1); err == nil {
		t.Error("a process that is not there has memory")
	}
	if n, err := residentBytes(1); err != nil || n <= 0 {
		t.Errorf("process 1: %d bytes, %v", n, err)
	}
}
