package cli

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"holdfast/internal/config"
)

// longest is the most that makes sense of what people wait for or plan.
const longest = 365 * 24 * time.Hour

// bounded is the value of a flag that makes sense between two others only.
type bounded[T cmp.Ordered] struct {
	to          *T
	least, most T
	kind        string // as help shows it
	parse       func(text string) (T, error)
	text        func(v T) string
}

var _ pflag.Value = (*bounded[int])(nil)

// Set implements pflag.Value.
func (b *bounded[T]) Set(text string) error {
	v, err := b.parse(text)
	switch {
	case err != nil:
		return err
	case v < b.least:
		return fmt.Errorf("it must be %s at least", b.text(b.least))
	case v > b.most:
		return fmt.Errorf("it must be %s at most", b.text(b.most))
	}
	*b.to = v
	return nil
}

// String implements pflag.Value.
func (b *bounded[T]) String() string {
	var zero T
	if b.to == nil || *b.to == zero {
		return "0" // which help takes for no default
	}
	return b.text(*b.to)
}

// Type implements pflag.Value.
func (b *bounded[T]) Type() string { return b.kind }

// spanVar adds a flag for a duration from least to most, with a default.
func spanVar(flags *pflag.FlagSet, to *time.Duration, name string, otherwise, least, most time.Duration, usage string) {
	*to = otherwise
	parse := func(text string) (time.Duration, error) {
		var d config.Duration
		err := d.UnmarshalText([]byte(text))
		return time.Duration(d), err
	}
	text := func(d time.Duration) string { return config.Duration(d).String() }
	flags.Var(&bounded[time.Duration]{to: to, least: least, most: most, kind: "duration", parse: parse, text: text}, name, usage)
}

// countVar adds a flag for a number from least to most, with a default and a letter, which may be empty.
func countVar(flags *pflag.FlagSet, to *int, name, letter string, otherwise, least, most int, usage string) {
	*to = otherwise
	parse := func(text string) (int, error) {
		n, err := strconv.Atoi(text)
		if err != nil {
			return 0, fmt.Errorf("%q is not a whole number, or too large a one", text)
		}
		return n, nil
	}
	flags.VarP(&bounded[int]{to: to, least: least, most: most, kind: "int", parse: parse, text: strconv.Itoa}, name, letter, usage)
}
