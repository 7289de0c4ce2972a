// Package work is what test guests do on a mounted export: mounting itself, a POSIX exercise, a tree of files, load that
// watches for gaps and losses over a failover, and benchmarks. It runs inside a guest, on behalf of internal/lab; nothing
// in it knows which server is at the other end.
package work

import (
	"context"
	"encoding/json"
	"fmt"
	"sort"
	"strings"
)

// runner decodes its arguments and runs. An error means that the work itself could not be carried out; what the work
// found is in the result.
type runner func(ctx context.Context, args json.RawMessage, emit func(any)) (any, error)

var registry = map[string]runner{
	"ping":   func(context.Context, json.RawMessage, func(any)) (any, error) { return nil, nil },
	"mount":  with(mount),
	"umount": with(unmount),
}

// with adapts a function with typed arguments.
func with[A, R any](f func(context.Context, A, func(any)) (R, error)) runner {
	return func(ctx context.Context, raw json.RawMessage, emit func(any)) (any, error) {
		var args A
		if len(raw) > 0 {
			if err := json.Unmarshal(raw, &args); err != nil {
				return nil, fmt.Errorf("decode arguments: %w", err)
			}
		}
		return f(ctx, args, emit)
	}
}

// Run carries out the named work.
func Run(ctx context.Context, name string, args json.RawMessage, emit func(any)) (any, error) {
	run, ok := registry[name]
	if !ok {
		names := make([]string, 0, len(registry))
		for n := range registry {
			names = append(names, n)
		}
		sort.Strings(names)
		return nil, fmt.Errorf("no such work; there are %s", strings.Join(names, ", "))
	}
	return run(ctx, args, emit)
}
