// Command holdfast is a highly available NFS server; see `holdfast --help`.
package main

import (
	"os"
	"runtime/debug"
	"slices"

	"holdfast/internal/cli"
)

// version is set by release builds with -ldflags "-X main.version=...".
var version = ""

func main() {
	if version == "" {
		version = buildVersion()
	}
	if slices.Contains(os.Args[1:], "serve") {
		relaxTimers()
	}
	os.Exit(cli.Main(version, os.Args[1:], os.Stdout, os.Stderr))
}

// buildVersion describes a build from a checkout.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "dev-" + s.Value[:12]
		}
	}
	return "dev"
}
