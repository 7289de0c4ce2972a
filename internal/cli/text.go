package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// style is how a cell looks on a terminal.
type style string

// The styles, as parameters of SGR (ECMA-48).
const (
	plain  style = ""
	good   style = "32"
	warn   style = "33"
	bad    style = "31;1"
	header style = "1"
)

// painter writes text in colour where that is wanted.
type painter bool

// painter returns one for standard output.
func (o *options) painter() painter {
	return painter(isTerminal(o.out) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb")
}

func (p painter) paint(s style, text string) string {
	if !p || s == plain {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// cell is a place in a table.
type cell struct {
	text  string
	style style
}

// table is printed with aligned columns; the first row is the header. A nil table prints nothing.
type table struct {
	rows [][]cell
}

func newTable(columns ...string) *table {
	t := &table{}
	var row []cell
	for _, c := range columns {
		row = append(row, cell{c, header})
	}
	t.rows = append(t.rows, row)
	return t
}

// row adds a row of strings and cells.
func (t *table) row(values ...any) {
	var row []cell
	for _, v := range values {
		if c, ok := v.(cell); ok {
			row = append(row, c)
		} else {
			row = append(row, cell{text: fmt.Sprint(v)})
		}
	}
	t.rows = append(t.rows, row)
}

// print writes the table; columns without any text but the header are left out.
func (t *table) print(w io.Writer, p painter) error {
	width := make([]int, len(t.rows[0]))
	used := make([]bool, len(t.rows[0]))
	for i, row := range t.rows {
		for c, cell := range row {
			width[c] = max(width[c], utf8.RuneCountInString(cell.text))
			used[c] = used[c] || (i > 0 && cell.text != "")
		}
	}
	var b strings.Builder
	for _, row := range t.rows {
		var line strings.Builder
		pad := 0
		for c, cell := range row {
			if !used[c] {
				continue
			}
			line.WriteString(strings.Repeat(" ", pad))
			line.WriteString(p.paint(cell.style, cell.text))
			pad = width[c] - utf8.RuneCountInString(cell.text) + 2
		}
		b.WriteString(strings.TrimRight(line.String(), " "))
		b.WriteByte('\n')
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// printList prints all as a table, a row each; none is what is said where there is nothing to list.
func printList[T any](o *options, all []T, none string, columns []string, cells func(T) []any) error {
	return o.print(all, func() error {
		if len(all) == 0 {
			o.sayf("%s", none)
			return nil
		}
		t := newTable(columns...)
		for _, one := range all {
			t.row(cells(one)...)
		}
		return t.print(o.out, o.painter())
	})
}

// printable cuts a name that a client chose to what a terminal can show.
func printable(s string) string {
	const most = 40
	clean := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if r := []rune(clean); len(r) > most {
		clean = string(r[:most-1]) + "…"
	}
	return clean
}

// bytesText writes a number of bytes for people.
func bytesText(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n), -1
	for v >= unit && i < len("KMGTPE")-1 {
		v /= unit
		i++
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTPE"[i])
}

// spanText writes a duration for people, in two units at most.
func spanText(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < day:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d d %d h", int(d/day), int(d%day/time.Hour))
}

// timeText writes a time for people, in the machine's zone.
func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// count writes a number and what it counts.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// list writes names as people do.
func list(names []string) string {
	switch len(names) {
	case 0:
		return "nobody"
	case 1:
		return names[0]
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

// thereAre says what there is instead of what was asked for.
func thereAre(names []string) string {
	switch len(names) {
	case 0:
		return "there is none"
	case 1:
		return "there is only " + names[0]
	}
	return "there are " + list(names)
}

// helpWidth is how many columns help takes.
const helpWidth = 110

// fill breaks the lines of paragraphs anew; indented lines stay as they are.
func fill(text string, width int) string {
	var b strings.Builder
	column := 0
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if line == "" || line[0] == ' ' {
			if column > 0 {
				b.WriteByte('\n')
			}
			b.WriteString(line + "\n")
			column = 0
			continue
		}
		for word := range strings.FieldsSeq(line) {
			n := utf8.RuneCountInString(word)
			switch {
			case column > 0 && column+1+n > width:
				b.WriteByte('\n')
				column = 0
			case column > 0:
				b.WriteByte(' ')
				column++
			}
			b.WriteString(word)
			column += n
		}
	}
	return strings.TrimRight(b.String(), "\n")
}
