// Command holdfast-docs writes the manual pages and shell completions of holdfast. They are made from the commands themselves, so they say what the binary does. It is a
// program of its own because what formats manual pages has no place in a file server.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"holdfast/internal/cli"
)

func main() {
	version := flag.String("version", "dev", "version that the pages name")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: holdfast-docs [-version V] FOLDER\n\nWrites FOLDER/man/*.8 and FOLDER/completions/*. SOURCE_DATE_EPOCH is the date of the pages, if set.")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := write(flag.Arg(0), cli.Command(*version), *version); err != nil {
		fmt.Fprintln(os.Stderr, "holdfast-docs:", err)
		os.Exit(1)
	}
}

// write makes everything in dir.
func write(dir string, root *cobra.Command, version string) error {
	completions := filepath.Join(dir, "completions")
	if err := os.MkdirAll(completions, 0o755); err != nil {
		return fmt.Errorf("make the folder for completions: %w", err)
	}
	// Each shell finds the file by its name. They are first, as the manual pages change what commands say of themselves.
	err := errors.Join(
		root.GenBashCompletionFileV2(filepath.Join(completions, "holdfast"), true),
		root.GenZshCompletionFile(filepath.Join(completions, "_holdfast")),
		root.GenFishCompletionFile(filepath.Join(completions, "holdfast.fish"), true),
	)
	if err != nil {
		return fmt.Errorf("write completions: %w", err)
	}
	return writeManual(filepath.Join(dir, "man"), root, version)
}
