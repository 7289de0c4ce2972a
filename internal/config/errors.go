package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Error is one thing that is wrong with a file.
type Error struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"` // from 1; 0 when the error is about the file as a whole, or about values that are in no file
	Column  int    `json:"column,omitempty"`
	Key     string `json:"key,omitempty"` // where in the file, such as volumes[0].exports[1].path; may be empty
	Message string `json:"message"`
	Source  string `json:"source,omitempty"` // the line
}

// Error returns "file:line:column: key: message", less what is not known, and, below it, the source line with a mark under the column.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	switch {
	case e.Line > 0 && e.File == "":
		fmt.Fprintf(&b, "line %d:%d", e.Line, e.Column)
	case e.Line > 0:
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	for _, part := range []string{e.Key, e.Message} {
		if part != "" && b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(part)
	}
	if e.Line > 0 {
		number := fmt.Sprint(e.Line)
		mark := []rune(strings.Repeat(" ", e.Column-1))
		for i, r := range []rune(e.Source) {
			if i < len(mark) && r == '\t' {
				mark[i] = '\t' // so that the mark stays under its column however wide a tab is
			}
		}
		fmt.Fprintf(&b, "\n  %s | %s", number, e.Source)
		fmt.Fprintf(&b, "\n  %s | %s^", strings.Repeat(" ", len(number)), string(mark))
	}
	return b.String()
}

// Errors is everything that is wrong with a file, in the order of its lines.
type Errors []*Error

// Error returns the messages one after another.
func (e Errors) Error() string {
	text := make([]string, len(e))
	for i, err := range e {
		text[i] = err.Error()
	}
	return strings.Join(text, "\n")
}

// Locate adds file, line and source line to errors about keys, as those that Validate, CheckAgainst or another machine returned, where the
// text gives these keys. Errors of another kind it returns as they are.
func Locate(file string, text []byte, err error) error {
	var errs Errors
	if !errors.As(err, &errs) {
		return err
	}
	known := newDecoder(file, text)
	known.parse(text, new(Spec))
	d := newDecoder(file, text)
	d.places = known.places
	for _, e := range errs {
		if e.Line > 0 || e.Key == "" {
			d.errs = append(d.errs, e)
			continue
		}
		d.failAt(e.Key, "%s", e.Message)
	}
	return d.result()
}

func (e Errors) sort() {
	slices.SortStableFunc(e, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// nearest returns the word that was probably meant, or "" if none is close.
func nearest(word string, words []string) string {
	best, bestDistance := "", max(1, len(word)/3)+1
	for _, w := range words {
		if d := distance(strings.ToLower(word), w); d < min(bestDistance, len(word)) {
			best, bestDistance = w, d
		}
	}
	return best
}

// distance is the optimal string alignment distance: how many insertions, deletions, replacements and swaps of neighbours make b of a.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			replace := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, replace)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
