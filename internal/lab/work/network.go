package work

import (
	"context"
	"encoding/json"
	"os"
	"strings"
)

func init() {
	registry["network"] = func(context.Context, json.RawMessage, func(any)) (any, error) { return networkState(), nil }
}

// networkState is what the kernel says of connections, neighbours and NFS transports, for a person who wonders why nothing goes on.
func networkState() string {
	var b strings.Builder
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6", "/proc/net/arp", "/proc/self/mountstats"} {
		text, err := os.ReadFile(file)
		if err != nil {
			b.WriteString(err.Error() + "\n")
			continue
		}
		for line := range strings.Lines(string(text)) {
			if !strings.HasSuffix(file, "mountstats") || strings.Contains(line, "xprt:") || strings.Contains(line, "fstype nfs") {
				b.WriteString(line)
			}
		}
	}
	return b.String()
}
