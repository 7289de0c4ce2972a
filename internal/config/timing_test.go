package config

import (
	"encoding/json"
	"testing"
	"time"
)

func TestTiming(t *testing.T) {
	ms := func(n float64) Duration { return Duration(n * float64(time.Millisecond)) }
	var timing Timing
	timing.Complete()
	if want := (Timing{Tick: ms(20), Election: 10, Lease: ms(180), Drift: ms(1.8)}); timing != want {
		t.Errorf("default is %+v", timing)
	}
	text, err := json.Marshal(timing)
	if want := `{"tick":"20ms","election":10,"lease":"180ms","drift":"1.8ms"}`; err != nil || string(text) != want {
		t.Errorf("%s, %v", text, err)
	}
	var decoded Timing
	if err := json.Unmarshal(text, &decoded); err != nil || decoded != timing {
		t.Errorf("%+v, %v", decoded, err)
	}
	for _, c := range []struct {
		timing Timing
		want   string
	}{
		{Timing{}, ""},
		{timing, ""},
		{Timing{Tick: ms(5)}, ""},
		{Timing{Tick: ms(0.5)}, "timing.tick: a tick lasts at least 1ms"},
		{Timing{Tick: -1}, `timing.tick: "-1ns": a duration here must be longer than nothing`},
		{Timing{Election: 3}, "timing.election: an election begins after 4 to 1000 ticks"},
		{Timing{Election: -1}, "timing.election: an election begins after 4 to 1000 ticks"},
		{Timing{Lease: ms(200)}, "timing.lease: the lease (200ms) must run out before an election can begin (10 ticks of 20ms: 200ms)"},
		{Timing{Lease: ms(180), Drift: ms(190)}, "timing.drift: a drift of 190ms leaves nothing of the lease of 180ms"},
		{Timing{Tick: ms(0.5), Election: 1 << 20}, "timing.tick: a tick lasts at least 1ms\ntiming.election: an election begins after 4 to 1000 ticks"},
	} {
		before := c.timing
		err := c.timing.Validate()
		if got := textOfError(err); got != c.want {
			t.Errorf("%+v: %s", c.timing, got)
		}
		if c.timing != before {
			t.Errorf("%+v became %+v", before, c.timing)
		}
	}
}

// textOfError is the text of an error, or nothing.
func textOfError(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
