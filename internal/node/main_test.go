package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast/internal/config"
)

// nodeEnv names the file of the node that this binary is to run as, in place of tests: nodes that are killed must be processes.
const nodeEnv = "HOLDFAST_TEST_NODE"

func TestMain(m *testing.M) {
	if path := os.Getenv(nodeEnv); path != "" {
		if err := runAsNode(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func runAsNode(path string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	local, err := config.LoadLocal(path)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return run(ctx, local, "test", log, testTuning)
}

// testTuning makes the log go soon, so that a node that was away for a few seconds needs a snapshot.
var testTuning = tuning{segmentBytes: 1 << 20, checkpointBytes: 512 << 10, retainBytes: 1 << 20, retainMaxBytes: 2 << 20}

// checkGoroutines fails the test if goroutines of this program are left when everything of the test is closed.
func checkGoroutines(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		var left []string
		await(t, 10*time.Second, func() bool {
			left = ourGoroutines()
			return len(left) == 0
		}, func() string {
			return fmt.Sprintf("%d goroutines are left, the first:\n%s", len(left), left[0])
		})
	})
}

// ourGoroutines returns the stacks of goroutines that run our code, but for this test's own.
func ourGoroutines() []string {
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var out []string
	for _, g := range strings.Split(string(buf), "\n\n") {
		if strings.Contains(g, "holdfast/internal/") && !strings.Contains(g, "testing.tRunner") && !strings.Contains(g, "testing.(*T).Run") {
			out = append(out, g)
		}
	}
	return out
}

// await looks until ok is true. What it waits for is seen from outside only, so that there is no event to wait for.
func await(t testing.TB, limit time.Duration, ok func() bool, why func() string) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("waited %v: %s", limit, why())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// occupy takes a TCP address until free is called.
func occupy(t *testing.T, addr string) (free func()) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	free = sync.OnceFunc(func() { ln.Close() })
	t.Cleanup(free)
	return free
}
