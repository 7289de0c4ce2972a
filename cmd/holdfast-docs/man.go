package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// section is where manual pages of commands for administrators are.
const section = "8"

// files goes into the page of holdfast itself.
const files = `.SH FILES
.TP
\fI/var/lib/holdfast\fP
The node's data folder: its identity, the replicas' logs and file data. It belongs to the user holdfast.
.TP
\fI/var/lib/holdfast/holdfast.sock\fP
The socket by which commands talk to the node on the same machine. Root and members of the group holdfast may use it.
.TP
\fI/etc/holdfast/holdfast.yaml\fP
What this machine has of its own: the data folder, ports, the balancers whose word for a client's address is taken, the log. All of it has defaults.
.TP
\fI/etc/holdfast/holdfast.env\fP
Environment and extra arguments of holdfast.service.

`

// writeManual writes one page for each command to dir.
func writeManual(dir string, root *cobra.Command, version string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the folder for manual pages: %w", err)
	}
	return eachCommand(root, func(cmd *cobra.Command) error {
		page, err := manualPage(cmd, version)
		if err != nil {
			return fmt.Errorf("manual page of %s: %w", cmd.CommandPath(), err)
		}
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + "." + section
		if err := os.WriteFile(filepath.Join(dir, name), page, 0o644); err != nil {
			return fmt.Errorf("write manual page: %w", err)
		}
		return nil
	})
}

// eachCommand calls f for cmd and all commands below it that users can see.
func eachCommand(cmd *cobra.Command, f func(*cobra.Command) error) error {
	if err := f(cmd); err != nil {
		return err
	}
	for _, c := range cmd.Commands() {
		if !c.IsAvailableCommand() || c.IsAdditionalHelpTopicCommand() {
			continue
		}
		if err := eachCommand(c, f); err != nil {
			return err
		}
	}
	return nil
}

func manualPage(cmd *cobra.Command, version string) ([]byte, error) {
	cmd.DisableAutoGenTag = true
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	cmd.Long = markdown(text)
	defer func() { cmd.Long = text }()
	var b bytes.Buffer
	header := &doc.GenManHeader{
		Title:   strings.ToUpper(strings.ReplaceAll(cmd.CommandPath(), " ", "-")),
		Section: section, Source: "Holdfast " + version, Manual: "Holdfast",
	}
	if err := doc.GenMan(cmd, header, &b); err != nil {
		return nil, err
	}
	page := b.String()
	if !cmd.HasParent() {
		const next = ".SH SEE ALSO\n"
		if !strings.Contains(page, next) {
			return nil, fmt.Errorf("no line %q to put the list of files before", strings.TrimSpace(next))
		}
		page = strings.Replace(page, next, files+next, 1)
	}
	return []byte(page), nil
}

// special are the characters that Markdown may take for something else than themselves.
var special = strings.NewReplacer("\\", "\\\\", "*", "\\*", "_", "\\_", "<", "\\<", ">", "\\>", "[", "\\[", "]", "\\]", "#", "\\#", "|", "\\|", "~", "\\~")

// markdown makes Markdown, which cobra's manual pages are made from, of help text: what is not between back quotes stands for itself, and indented lines stay as they are.
func markdown(text string) string {
	var b strings.Builder
	var quoted, block bool
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		indented := strings.HasPrefix(line, "  ") || strings.HasPrefix(line, "\t")
		if indented != block && line != "" {
			b.WriteString("\n")
			block = indented
		}
		if indented {
			b.WriteString("    " + line + "\n")
			continue
		}
		for i, part := range strings.Split(line, "`") {
			if i > 0 {
				quoted = !quoted
				b.WriteByte('`')
			}
			if !quoted {
				part = special.Replace(part)
			}
			b.WriteString(part)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
