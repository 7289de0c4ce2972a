package cli

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"holdfast/internal/config"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	time.Local = time.UTC
	os.Unsetenv("HOLDFAST_DATA")
	os.Unsetenv("HOLDFAST_CERT")
	os.Exit(m.Run())
}

// volatile is what differs from one run to the next.
var volatile = []struct {
	re   *regexp.Regexp
	text string
}{
	{regexp.MustCompile(`hf1-[A-Za-z0-9]+`), "hf1-TOKEN"},
	{regexp.MustCompile(`maintenance until \d[-:\d ]+`), "maintenance until TIME"},
	{regexp.MustCompile(`/tmp/\S*?/\d+`), "FOLDER"},
}

// golden compares text with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	for _, v := range volatile {
		got = v.re.ReplaceAllString(got, v.text)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (run with -update if that is right):\n%s", path, diff)
	}
}

// TestExitCodes goes through command lines that fail, each with the code that the help promises and a word of what to do.
func TestExitCodes(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good.yaml", config.ExampleLocal())
	bad := file("bad.yaml", "log:\n  level: loud\n")
	typo := file("typo.yaml", "dat: /x\n")
	none := "no node is running on " + dir
	for _, tt := range []struct {
		args []string
		code int
		out  string
		err  string
	}{
		{[]string{}, ExitOK, "holdfast demo", ""},
		{[]string{"--version"}, ExitOK, "v1.2.3", ""},
		{[]string{"version"}, ExitOK, "holdfast v1.2.3, cluster version ", ""},
		{[]string{"frobnicate"}, ExitUsage, "", `unknown command "frobnicate"`},
		{[]string{"volume"}, ExitUsage, "", "which volume? See `holdfast volume --help`"},
		{[]string{"volume", "shwo"}, ExitUsage, "", `did you mean "show"?`},
		{[]string{"status", "--frob"}, ExitUsage, "", "unknown flag: --frob"},
		{[]string{"status", "extra"}, ExitUsage, "", "extra"},
		{[]string{"status", "-o", "xml"}, ExitUsage, "", `unknown output format "xml"`},
		{[]string{"status", "--data", dir}, ExitFailed, "", none},
		{[]string{"check", "--data", dir}, ExitFailed, "", none},
		{[]string{"move", "--data", dir}, ExitFailed, "", none},
		{[]string{"diff", "-f", file("spec.yaml", config.ExampleSpec()), "--data", dir}, ExitUsage, "", none},
		{[]string{"apply", "--data", dir}, ExitUsage, "", "Name it with -f"},
		{[]string{"status", "--node", "h"}, ExitUsage, "", "holdfast cert create"},
		{[]string{"status", "--cert", good}, ExitUsage, "", "name it with --node"},
		{[]string{"status", "--node", "h", "--cert", good}, ExitUsage, "", "must be in the file"},
		{[]string{"status", "--node", "h", "--cert", good, "--data", dir}, ExitUsage, "", "use one of them"},
		{[]string{"serve", "--config", good, "--check"}, ExitOK, "no mistakes found", ""},
		{[]string{"serve", "--config", good, "--check", "--data", "/srv/x"}, ExitOK, "the data folder is /srv/x", ""},
		{[]string{"serve", "--config", good, "--check", "-o", "json"}, ExitOK, "\"data\": \"/var/lib/holdfast\",\n", ""},
		{[]string{"serve", "--config", bad, "--check"}, ExitUsage, "", "bad.yaml:2:10: log.level: "},
		{[]string{"serve", "--config", bad}, ExitUsage, "", "bad.yaml:2:10: log.level: "},
		{[]string{"serve", "--config", typo, "--check"}, ExitUsage, "", `"data"`},
		{[]string{"serve", "--config", filepath.Join(dir, "none.yaml")}, ExitUsage, "", "none.yaml"},
		{[]string{"join", "h:1"}, ExitUsage, "", "holdfast node add"},
		{[]string{"join", "h:1", "--token", "hf1-short"}, ExitUsage, "", "it is cut off"},
		{[]string{"join", "h:1", "--token", filepath.Join(dir, "none")}, ExitUsage, "", "read the token"},
		{[]string{"drill", "--calm", "-1s"}, ExitUsage, "", `invalid argument "-1s" for "--calm" flag: it must be 1ms at least`},
		{[]string{"drill", "--calm", "2h"}, ExitUsage, "", "it must be 1h at most"},
		{[]string{"demo", "--calm", "soon"}, ExitUsage, "", "is not a duration"},
		{[]string{"demo", "--kills", "-1"}, ExitUsage, "", "it must be 0 at least"},
		{[]string{"demo", "--transfers", "99999999999999999999"}, ExitUsage, "", "too large"},
		{[]string{"demo", "--writers", "0"}, ExitUsage, "", "it must be 1 at least"},
		{[]string{"events", "-n", "-1"}, ExitUsage, "", "it must be 0 at least"},
		{[]string{"token", "create", "--lifetime", "0s"}, ExitUsage, "", "it must be 1s at least"},
		{[]string{"node", "add", "--lifetime", "99999h"}, ExitUsage, "", "it must be 8760h at most"},
		{[]string{"cert", "create", "ann", "--lifetime", "-1h"}, ExitUsage, "", "it must be 1m at least"},
		{[]string{"roll", "--run", "true", "--timeout", "0"}, ExitUsage, "", "it must be 1s at least"},
		{[]string{"drain", "a", "--timeout", "-1s"}, ExitUsage, "", "it must be 0s at least"},
		{[]string{"maintenance", "on", "--for", "-1s"}, ExitUsage, "", "it must be 0s at least"},
		{[]string{"volume", "set", "v", "--failback-after", "0s"}, ExitUsage, "", "it must be 1s at least"},
		{[]string{"volume", "set", "v", "--address-lifetime", "2h"}, ExitUsage, "", "it must be 1h at most"},
		{[]string{"init", "--tick", "-20ms", "--data", dir}, ExitUsage, "", "it must be 0s at least"},
		{[]string{"init", "--tick", "1m", "--data", dir}, ExitUsage, "", "a tick lasts at most"},
		{[]string{"init", "--election", "-3", "--data", dir}, ExitUsage, "", "it must be 0 at least"},
		{[]string{"init", "--tick", "1ns", "--data", dir}, ExitUsage, "", "a tick lasts at least"},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			code, out, errOut := run(tt.args...)
			if code != tt.code || !strings.Contains(out, tt.out) || !strings.Contains(errOut, tt.err) || (errOut == "") != (tt.err == "") {
				t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s\nwant %q", code, tt.code, out, errOut, tt.err)
			}
			if errOut != "" && !strings.HasPrefix(errOut, "holdfast: ") {
				t.Errorf("stderr: %q", errOut)
			}
		})
	}
}

// TestHelp wants of every command a summary, an example that begins with the program's name, and its exit codes.
func TestHelp(t *testing.T) {
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		t.Run(c.CommandPath(), func(t *testing.T) {
			if c.Short == "" || c.Long == "" || !strings.Contains(c.Example, "holdfast ") {
				t.Errorf("short %q, long %q, example %q", c.Short, c.Long, c.Example)
			}
			if c.Runnable() && !strings.Contains(c.Long, "Exit code:") {
				t.Error("no word about exit codes")
			}
			args := append(strings.Fields(c.CommandPath())[1:], "--help")
			code, out, errOut := run(args...)
			if code != ExitOK || errOut != "" || !strings.Contains(out, "Examples:") || !strings.Contains(out, strings.TrimSpace(c.Example)) {
				t.Errorf("--help: exit code %d, %q\n%s", code, errOut, out)
			}
		})
		for _, sub := range c.Commands() {
			check(sub)
		}
	}
	check(newRoot(&options{out: io.Discard, errOut: io.Discard}))
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":                      "",
		"Linux NFSv4.2 ws":      "Linux NFSv4.2 ws",
		"a\x1b[31mb\n\x00":      "a?[31mb??",
		"\xff\xfe":              "��",
		strings.Repeat("ü", 41): strings.Repeat("ü", 39) + "…",
		strings.Repeat("ü", 40): strings.Repeat("ü", 40),
		"right\u202eto-left":    "right?to-left",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
}

func TestTexts(t *testing.T) {
	for in, want := range map[uint64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 5 << 30: "5.0 GiB", 1<<64 - 1: "16.0 EiB",
	} {
		if got := bytesText(in); got != want {
			t.Errorf("%d bytes are shown as %q, want %q", in, got, want)
		}
	}
	for in, want := range map[time.Duration]string{
		0: "0 s", 59 * time.Second: "59 s", 90 * time.Second: "1 min", 90 * time.Minute: "1 h 30 min", 50 * time.Hour: "2 d 2 h",
	} {
		if got := spanText(in); got != want {
			t.Errorf("%v is shown as %q, want %q", in, got, want)
		}
	}
}

func TestFill(t *testing.T) {
	const in = "one two three\nfour five\n\n  stays as long as it is\nsix\n\nseven"
	const want = "one two\nthree four\nfive\n\n  stays as long as it is\nsix\n\nseven"
	if got := fill(in, 10); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestTable(t *testing.T) {
	table := newTable("NAME", "EMPTY", "STATE")
	table.row("ü", "", cell{"bad", bad})
	table.row("long name", "", "x")
	for _, tt := range []struct {
		p    painter
		want string
	}{
		{false, "NAME       STATE\nü          bad\nlong name  x\n"},
		{true, "\x1b[1mNAME\x1b[0m       \x1b[1mSTATE\x1b[0m\nü          \x1b[31;1mbad\x1b[0m\nlong name  x\n"},
	} {
		var b strings.Builder
		if err := table.print(&b, tt.p); err != nil || b.String() != tt.want {
			t.Errorf("%v, %q, want %q", err, b.String(), tt.want)
		}
	}
}

func TestLogger(t *testing.T) {
	l := newLogger(config.Logging{Level: "warn", Format: "json"})
	if l.Enabled(context.Background(), slog.LevelInfo) || !l.Enabled(context.Background(), slog.LevelWarn) {
		t.Error("level warn is not kept")
	}
	if _, ok := l.Handler().(*slog.JSONHandler); !ok {
		t.Errorf("handler %T", l.Handler())
	}
}
