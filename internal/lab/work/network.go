package work

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func init() {
	registry["network"] = func(context.Context, json.RawMessage, func(any)) (any, error) { return networkState(), nil }
}

// networkState is what the kernel says of connections, neighbours, NFS transports and its clock, and of what the threads of this process wait for, for a person who wonders why nothing goes on.
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
	timers, _ := os.ReadFile("/proc/timer_list")
	for line := range strings.Lines(string(timers)) {
		if strings.HasPrefix(line, "now at") || strings.Contains(line, "jiffies:") || strings.Contains(line, "next_event") || strings.Contains(line, ".expires_next") {
			b.WriteString(line)
		}
	}
	threads, _ := filepath.Glob("/proc/self/task/*")
	for _, thread := range threads {
		stat, _ := os.ReadFile(thread + "/stat")
		channel, _ := os.ReadFile(thread + "/wchan")
		call, _ := os.ReadFile(thread + "/syscall")
		if fields := strings.Fields(string(stat)); len(fields) > 2 {
			fmt.Fprintf(&b, "thread %s %s %s %s\n", fields[0], fields[2], channel, bytes.TrimSpace(call))
		}
	}
	return b.String()
}
