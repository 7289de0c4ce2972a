package docs

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/internal/cli"
)

const root = "../.."

// step is a command of the documentation, or a directive.
type step struct {
	file string
	line int

	machine string // where the command is typed
	command string
	code    int // that it shall end with

	directive string
}

func (s *step) String() string {
	if s.directive != "" {
		return fmt.Sprintf("%s:%d: <!-- book: %s -->", s.file, s.line, s.directive)
	}
	return fmt.Sprintf("%s:%d: %s# %s", s.file, s.line, s.machine, s.command)
}

var (
	prompt    = regexp.MustCompile(`^([a-z]+)# (.*)$`)
	directive = regexp.MustCompile(`^<!-- book: (.*) -->$`)
	exitCode  = regexp.MustCompile(`\s+# exit code (\d+)$`)
	fence     = regexp.MustCompile("^ {0,3}```+\\s*(\\S*)")
)

// steps returns the commands and directives of a text.
func steps(file, text string) ([]step, error) {
	var all []step
	block, open := "", false
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		if m := fence.FindStringSubmatch(line); m != nil {
			block, open = m[1], !open
			continue
		}
		s := step{file: file, line: i + 1}
		switch m := prompt.FindStringSubmatch(line); {
		case !open:
			if d := directive.FindStringSubmatch(line); d != nil {
				s.directive = d[1]
				all = append(all, s)
			}
			continue
		case m == nil:
			continue
		case block != "console":
			return nil, fmt.Errorf("%s:%d: a command with a prompt in a block of the kind %q, which is not run: make it console", file, i+1, block)
		default:
			s.machine, s.command = m[1], m[2]
		}
		for end := hereDocument(s.command); i+1 < len(lines); {
			if cut, more := strings.CutSuffix(s.command, "\\"); more && end == "" {
				i++
				s.command = cut + strings.TrimSpace(lines[i])
				continue
			}
			if end == "" {
				break
			}
			i++
			s.command += "\n" + lines[i]
			if lines[i] == end {
				break
			}
		}
		if m := exitCode.FindStringSubmatch(s.command); m != nil {
			s.code, _ = strconv.Atoi(m[1])
			s.command = strings.TrimSuffix(s.command, m[0])
		}
		all = append(all, s)
	}
	if open {
		return nil, fmt.Errorf("%s: a fenced block does not end", file)
	}
	return all, nil
}

// hereDocument returns the word that ends the here-document of a command, or "".
func hereDocument(command string) string {
	if m := regexp.MustCompile(`<<'?([A-Z]+)'?`).FindStringSubmatch(command); m != nil {
		return m[1]
	}
	return ""
}

// book types the commands.
type book struct {
	t    *testing.T
	dir  string
	bin  string
	site *site
	ln   net.Listener
	made int
	// seen are things that commands have printed and that later ones are to be given.
	seen map[string]string
}

// secrets are what the reader has to put in from what was printed before: in the documentation, the key.
var secrets = map[string]*regexp.Regexp{
	"hf1-...": regexp.MustCompile(`--token (hf1-\S+)`),
	"SERIAL":  regexp.MustCompile(`holdfast cert revoke ([0-9a-f]+)`),
	"TOKEN":   regexp.MustCompile(`The token (\S+) can be used once`),
}

// fresh gives the book new machines.
func (b *book) fresh() {
	b.t.Helper()
	b.close()
	b.made++
	b.site = newSite(b.t, filepath.Join(b.dir, fmt.Sprint(b.made)), b.bin)
	b.seen = map[string]string{}
	ln, err := net.Listen("unix", b.site.control())
	if err != nil {
		b.t.Fatal(err)
	}
	b.ln = ln
	go b.site.obey(ln)
}

func (b *book) close() {
	if b.site != nil {
		b.ln.Close()
		b.site.close()
		b.site = nil
	}
}

// direct does what happens without a command:
//
//	fresh           all machines are new
//	lose MACHINE    its process is killed
//	wipe MACHINE    its disks are lost, too
//	form a b w      all machines are new, and those are a cluster with the volume main; w is a witness
func (b *book) direct(d string) error {
	words := strings.Fields(d)
	switch words[0] {
	case "fresh":
		b.fresh()
		return nil
	case "form":
		b.fresh()
		return b.form(words[1:])
	}
	return b.site.change(b.site.machine(words[1]), words[0])
}

// form makes a cluster.
func (b *book) form(machines []string) error {
	lines := []step{{machine: "a", command: "holdfast init --cluster office"}}
	for _, m := range machines[1:] {
		role := ""
		if m == "w" {
			role = " --role witness"
		}
		lines = append(lines, step{machine: "a", command: "holdfast node add" + role}, step{machine: m, command: "holdfast join 10.0.0.11:7420 --token hf1-..."})
	}
	lines = append(lines,
		step{machine: "a", command: "holdfast volume create main --address 10.0.0.50/24 --export /data --client '10.0.0.0/24:rw,no_root_squash'"},
		step{machine: "a", command: "holdfast status"})
	for i := range lines {
		if err := b.run(&lines[i]); err != nil {
			return fmt.Errorf("%s: %w", lines[i].command, err)
		}
	}
	return nil
}

// lacks returns a program that a command needs and that this machine does not have, or "".
func (s *step) lacks() string {
	for program, marks := range map[string][]string{balancer: {"haproxy", addresses["lb"]}, "jq": {"| jq "}, "curl": {"curl "}} {
		if _, err := exec.LookPath(program); err == nil {
			continue
		}
		for _, m := range marks {
			if strings.Contains(s.command, m) {
				return program
			}
		}
	}
	return ""
}

// run types a command. What only tells is typed again for a while, until it is as the documentation says, as a person would.
func (b *book) run(s *step) error {
	line := s.command
	for name, value := range b.seen {
		line = strings.ReplaceAll(line, name, value)
	}
	m := b.site.machine(s.machine)
	words := strings.Fields(line)
	again := len(words) > 1 && words[0] == "holdfast" && (words[1] == "status" || words[1] == "check" || strings.HasPrefix(words[1], "--node")) || words[0] == "curl"
	for deadline := time.Now().Add(patience); ; {
		code, out, err := b.typed(m, line)
		if err == nil && (code == s.code || code == 3 && words[1] == "doctor") {
			for name, pattern := range secrets {
				if found := pattern.FindStringSubmatch(out); found != nil {
					b.seen[name] = found[1]
				}
			}
			if testing.Verbose() {
				b.t.Logf("%v\n%s", s, out)
			}
			return nil
		}
		if !again || err != nil || time.Now().After(deadline) {
			return fmt.Errorf("exit code %d instead of %d (%v):\n%s", code, s.code, err, out)
		}
		time.Sleep(100 * time.Millisecond) // between two questions of one who watches
	}
}

// typed runs a line in a shell. One that goes on by itself is interrupted when it has printed something.
func (b *book) typed(m *machine, line string) (code int, out string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	follows := strings.Contains(line, "--watch") || strings.Contains(line, "--follow")
	if follows {
		line = "exec " + line // or the shell would be interrupted, too
	}
	cmd := m.command(ctx, "sh", "-c", "cd /root || exit\n"+line)
	var text, progress bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text // one pipe
	if follows {
		cmd.Stdout = &interrupter{w: &text, f: func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }}
		cmd.Stderr = &progress
	}
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		return 0, "", err
	}
	return cmd.ProcessState.ExitCode(), text.String() + progress.String(), ctx.Err()
}

// interrupter calls f when something is written.
type interrupter struct {
	w *bytes.Buffer
	f func()
}

func (i *interrupter) Write(p []byte) (int, error) {
	defer i.f()
	return i.w.Write(p)
}

// TestCommands runs the commands of the README and of the book.
func TestCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("forms clusters and operates them for a minute: not with -short")
	}
	if noNamespaces != nil {
		t.Skip(noNamespaces)
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", filepath.Join(bin, "holdfast"), "holdfast/cmd/holdfast")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name := range shims {
		if err := os.Symlink(self, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"README.md", "docs/operations.md"} {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(root, file))
			if err != nil {
				t.Fatal(err)
			}
			all, err := steps(file, string(text))
			if err != nil {
				t.Fatal(err)
			}
			b := &book{t: t, dir: filepath.Join(dir, filepath.Base(file)), bin: bin}
			defer b.close()
			b.fresh()
			commands := 0
			for i := range all {
				s := &all[i]
				if lacks := s.lacks(); lacks != "" {
					t.Logf("%v: not tried, as there is no %s here", s, lacks)
					continue
				}
				start := time.Now()
				if s.directive != "" {
					err = b.direct(s.directive)
				} else {
					commands++
					err = b.run(s)
				}
				if err != nil {
					t.Fatalf("%v: %v", s, err)
				}
				if took := time.Since(start); took > 3*time.Second {
					t.Logf("%v took %v", s, took.Round(time.Millisecond))
				}
			}
			if commands == 0 {
				t.Error("there is no command")
			}
			t.Logf("%d commands work", commands)
		})
	}
}

// documents returns the texts of the documentation by their paths.
func documents(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	names, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(names, filepath.Join(root, "README.md")) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(text)
	}
	return all
}

// TestLinks checks that links within the documentation lead somewhere.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	anchors := map[string]map[string]bool{}
	all := documents(t)
	for name, text := range all {
		anchors[name] = map[string]bool{}
		for _, h := range heading.FindAllStringSubmatch(text, -1) {
			anchors[name][anchor(h[1])] = true
		}
	}
	for name, text := range all {
		for _, l := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(l[1], "://") {
				continue
			}
			path, section, _ := strings.Cut(l[1], "#")
			target := filepath.Join(filepath.Dir(name), path)
			if path == "" {
				target = name
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %s: %v", name, l[1], err.(*fs.PathError).Err)
			} else if section != "" && !anchors[target][section] {
				t.Errorf("%s: %s: there is no such section", name, l[1])
			}
		}
	}
}

// TestMentions checks that commands that are only spoken of exist, with the flags that are spoken of.
func TestMentions(t *testing.T) {
	mention := regexp.MustCompile("`(holdfast [a-z][^`]*)`")
	count := 0
	for name, text := range documents(t) {
		for _, m := range mention.FindAllStringSubmatch(text, -1) {
			count++
			command := cli.Command("test")
			words := strings.Fields(m[1])[1:]
			found, _, err := command.Find(words)
			if err != nil || found == command {
				t.Errorf("%s: %s: there is no such command (%v)", name, m[1], err)
				continue
			}
			for _, w := range words {
				flag, long := strings.CutPrefix(w, "--")
				flag, _, _ = strings.Cut(flag, "=")
				if long && found.Flags().Lookup(flag) == nil && found.InheritedFlags().Lookup(flag) == nil {
					t.Errorf("%s: %s: there is no flag --%s", name, m[1], flag)
				}
			}
		}
	}
	if count == 0 {
		t.Error("no command is spoken of")
	}
}

// anchor is how a heading is linked to.
func anchor(heading string) string {
	keep := regexp.MustCompile(`[^a-z0-9 _-]`)
	return strings.ReplaceAll(keep.ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

// TestSteps checks how commands are found.
func TestSteps(t *testing.T) {
	const text = "<!-- book: lose c -->\n```console\na# one \\\n    two\noutput\nb# three # exit code 3\nc# cat <<EOF\nx# not a command\nEOF\nc# four\n```\n```text\nfive\n```\n"
	got, err := steps("f", text)
	if err != nil {
		t.Fatal(err)
	}
	want := []step{
		{file: "f", line: 1, directive: "lose c"},
		{file: "f", line: 3, machine: "a", command: "one two"},
		{file: "f", line: 6, machine: "b", command: "three", code: 3},
		{file: "f", line: 7, machine: "c", command: "cat <<EOF\nx# not a command\nEOF"},
		{file: "f", line: 10, machine: "c", command: "four"},
	}
	if fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", want) {
		t.Errorf("got %#v", got)
	}
	for _, bad := range []string{"```sh\na# one\n```\n", "```console\n"} {
		if _, err := steps("f", bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
