package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one thing that is wrong with a file.
type Error struct {
	File         string
	Line, Column int    // from 1; 0 when the error is about the file as a whole
	Key          string // where in the file, such as volumes[0].exports[1].path; may be empty
	Message      string
	Source       string // the line
}

// Error returns "file:line:column: key: message" and, below it, the source line with a mark under the column.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	if e.Key != "" {
		b.WriteString(": " + e.Key)
	}
	b.WriteString(": " + e.Message)
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

func (e Errors) sort() {
	slices.SortStableFunc(e, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// nearest returns the word that was probably meant, or "" if none is close.
func nearest(word string, words []string) string {
	best, bestDistance := "", max(1, len(word)/3)+1
	for _, w := range words {
		if d := distance(strings.ToLower(word), w); d < bestDistance {
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
