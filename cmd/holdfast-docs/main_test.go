package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"holdfast/internal/cli"
)

// render formats a manual page as a reader sees it, in one line, without what the terminal is told about bold type.
func render(t *testing.T, page string) string {
	t.Helper()
	cmd := exec.Command("man", "--warnings", "--encoding=UTF-8", "--local-file", page)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=1000", "MAN_KEEP_FORMATTING=", "MANOPT=--no-hyphenation --no-justification")
	var out, warnings strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &warnings
	if err := cmd.Run(); err != nil {
		t.Fatalf("man %s: %v\n%s", page, err, warnings.String())
	}
	if warnings.Len() > 0 {
		t.Errorf("man %s warns: %s", page, warnings.String())
	}
	return words(out.String())
}

func words(s string) string { return strings.Join(strings.Fields(s), " ") }

// TestManual compares what the pages show with what the commands say of themselves.
func TestManual(t *testing.T) {
	if _, err := exec.LookPath("man"); err != nil {
		t.Skip("no man here to format the pages: install man-db")
	}
	dir := t.TempDir()
	root := cli.Command("1.2.3")
	if err := writeManual(dir, root, "1.2.3"); err != nil {
		t.Fatal(err)
	}
	n := 0
	err := eachCommand(root, func(cmd *cobra.Command) error {
		n++
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
		text := render(t, filepath.Join(dir, name+".8"))
		for _, want := range []string{name + " - " + cmd.Short, strings.ReplaceAll(cmd.Long, "`", ""), cmd.Example, "Holdfast 1.2.3"} {
			if want = words(want); !strings.Contains(text, want) {
				t.Errorf("%s(8) does not have %q:\n%s", name, want, text)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if pages, _ := filepath.Glob(filepath.Join(dir, "*")); len(pages) != n || n < 3 {
		t.Errorf("%d pages for %d commands", len(pages), n)
	}
}

func TestMarkdown(t *testing.T) {
	for in, want := range map[string]string{
		"plain text":                          "plain text\n",
		"a_b*c <id> `x_y` [z]":                "a\\_b\\*c \\<id\\> `x_y` \\[z\\]\n",
		"first\n  init  makes\n  join  joins": "first\n\n      init  makes\n      join  joins\n",
		"  a_b\nlast":                         "\n      a_b\n\nlast\n",
		"`a\nb_` c_":                          "`a\nb_` c\\_\n",
	} {
		if got := markdown(in); got != want {
			t.Errorf("markdown(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestReproducible makes everything twice with a fixed date.
func TestReproducible(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	var all [2]map[string]string
	for i := range all {
		dir := t.TempDir()
		if err := write(dir, cli.Command("1"), "1"); err != nil {
			t.Fatal(err)
		}
		all[i] = make(map[string]string)
		for _, pattern := range []string{"man/*.8", "completions/*"} {
			names, _ := filepath.Glob(filepath.Join(dir, pattern))
			for _, name := range names {
				b, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				all[i][filepath.Base(name)] = string(b)
			}
		}
	}
	for name, content := range all[0] {
		if all[1][name] != content {
			t.Errorf("%s differs from one run to the next", name)
		}
	}
	if !regexp.MustCompile(`Nov 2023`).MatchString(all[0]["holdfast.8"]) {
		t.Errorf("the date of holdfast(8) is not SOURCE_DATE_EPOCH's:\n%.200s", all[0]["holdfast.8"])
	}
	for _, name := range []string{"holdfast", "_holdfast", "holdfast.fish"} {
		if !strings.Contains(all[0][name], "__complete") {
			t.Errorf("the completion %s does not ask the binary", name)
		}
	}
}
