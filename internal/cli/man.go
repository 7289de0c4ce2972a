package cli

import (
	"io"

	"github.com/spf13/cobra"
)

// Command returns the tree of commands as Main runs it, for programs that describe it: manual pages and shell completions are made from it.
func Command(version string) *cobra.Command {
	return newRoot(&options{release: version, out: io.Discard, errOut: io.Discard})
}
