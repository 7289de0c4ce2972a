package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// isTerminal reports whether a person is at the other end.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// quietInterval is how often progress is printed where it cannot be renewed in place.
const quietInterval = 10 * time.Second

// progress tells on standard error what a command waits for, once it has waited for a while: on a terminal in a line that is renewed, elsewhere in lines now and then.
type progress struct {
	w     io.Writer
	live  bool
	after time.Time // when to begin
	shown bool      // the live line is there
	last  string
	when  time.Time
}

func (o *options) progress() *progress {
	return &progress{w: o.errOut, live: isTerminal(o.errOut), after: time.Now().Add(o.patience)}
}

// say shows a text.
func (p *progress) say(text string) {
	now := time.Now()
	switch {
	case now.Before(p.after) || text == p.last:
		return
	case p.live:
		fmt.Fprintf(p.w, "\r\x1b[K%s", text)
		p.shown = true
	case now.Sub(p.when) < quietInterval:
		return
	default:
		fmt.Fprintln(p.w, text)
	}
	p.last, p.when = text, now
}

// end removes the live line: what comes of it is printed next.
func (p *progress) end() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}

// asking calls f, and says what it waits for if f takes long.
func asking[T any](ctx context.Context, o *options, what string, f func(ctx context.Context) (T, error)) (T, error) {
	p := o.progress()
	defer p.end()
	type outcome struct {
		v   T
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		v, err := f(ctx)
		done <- outcome{v, err}
	}()
	tick := time.NewTicker(max(o.patience/2, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case r := <-done:
			return r.v, r.err
		case <-tick.C:
			p.say(what)
		}
	}
}

// await calls look now and then until it says that it is done. look returns what is waited for, for people.
func (o *options) await(ctx context.Context, look func(ctx context.Context) (waitsFor string, done bool, err error)) error {
	p := o.progress()
	defer p.end()
	what := "it did not even begin"
	for {
		next, done, err := look(ctx)
		if done && err == nil {
			return nil
		}
		if err == nil {
			what = next
			p.say(what)
		} else if ctx.Err() == nil {
			return err
		}
		if !pause(ctx, o.poll) {
			return fmt.Errorf("%w: %s", context.Cause(ctx), what)
		}
	}
}

// pause waits for d; false means that ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
