package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// typed asks a person to type a word. It is not ok where nobody is there to ask.
func (o *options) typed(ctx context.Context, question string) (word string, ok bool, err error) {
	if !isTerminal(o.in) || !isTerminal(o.errOut) {
		return "", false, nil
	}
	fmt.Fprint(o.errOut, question)
	type outcome struct {
		line string
		err  error
	}
	// The read cannot be interrupted; after a signal the process ends, and it with it.
	done := make(chan outcome, 1)
	go func() {
		line, err := bufio.NewReader(o.in).ReadString('\n')
		done <- outcome{line, err}
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(o.errOut)
		return "", false, ctx.Err()
	case r := <-done:
		if r.err != nil && !errors.Is(r.err, io.EOF) {
			return "", false, fmt.Errorf("read the answer: %w", r.err)
		}
		return strings.TrimSpace(r.line), true, nil
	}
}
