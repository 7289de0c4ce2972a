package forward

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/internal/health"
	"holdfast/internal/rpc"
)

// haproxyConfig is what an operator would write in front of two nodes: the one that serves is up, the others are down.
const haproxyConfig = `
global
	maxconn 100
defaults
	mode tcp
	timeout connect 2s
	timeout client 1h
	timeout server 1h
frontend nfs
	bind %[1]s
	default_backend nodes
backend nodes
	option httpchk%[2]s
	default-server check inter 50ms fall 1 rise 1 on-marked-down shutdown-sessions %[3]s
	server alpha %[4]s port %[5]s
	server delta %[6]s port %[7]s backup
`

// TestHaproxy checks with the real haproxy in front of two nodes that clients get to the node that serves and follow it, and that the server knows
// who they are where haproxy is told to say.
func TestHaproxy(t *testing.T) {
	binary, err := exec.LookPath("haproxy")
	if err != nil {
		t.Skip("haproxy is not installed (apt-get install haproxy)")
	}
	for name, tt := range map[string]struct {
		check, server string
		known         bool // the client's address
	}{
		"default check": {},
		"proxy v1":      {check: " GET /health/home", server: "send-proxy", known: true},
		"proxy v2":      {check: " HEAD /health/7", server: "send-proxy-v2", known: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 1, 1, 2)
			var proxies [2]*testProxy
			var addrs []any
			for i := range proxies {
				self := uint64(i + 1)
				proxies[i] = c.proxy(t, self, func(cfg *ProxyConfig) {
					if tt.known {
						cfg.Balancers = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
					}
				})
				ln := listen(t)
				_, port, _ := net.SplitHostPort(ln.Addr().String())
				run(t, func(ctx context.Context) error {
					return health.Serve(ctx, ln, func() []health.Volume {
						return []health.Volume{{ID: testVolume, Name: "home", Serving: c.leader.seenBy(self)().Local, Why: "another node serves it"}}
					}, quiet())
				})
				addrs = append(addrs, proxies[i].addr, port)
			}
			front := listen(t)
			addr := front.Addr().String()
			front.Close()
			startHaproxy(t, binary, fmt.Sprintf(haproxyConfig, append([]any{addr, tt.check, tt.server}, addrs...)...), addr)

			var last *rpc.Conn
			for _, leader := range []uint64{1, 2, 1} {
				c.leader.set(leader)
				if last != nil {
					_ = awaitEnd(t, last) // by haproxy: the fake server does not mind
				}
				here, elsewhere := proxies[leader-1], proxies[2-leader]
				for deadline := time.Now().Add(10 * time.Second); ; {
					nc, err := net.Dial("tcp", addr)
					if err != nil {
						t.Fatal(err)
					}
					last = converse(t, nc)
					// Until haproxy knows of the change, the other node forwards, or haproxy ends the connection because it learns of it.
					got, err := call(t, last, nil)
					if err == nil && got.node != leader {
						t.Fatalf("node %d served while %d leads", got.node, leader)
					}
					if err == nil && tt.known && got.client != addrPort(nc.LocalAddr()) {
						t.Fatalf("the server saw client %v, it is %v", got.client, nc.LocalAddr())
					}
					if err == nil && here.Stats().Conns > 0 && elsewhere.Stats().Conns == 0 {
						break
					}
					if time.Now().After(deadline) {
						t.Fatalf("haproxy does not send clients to node %d: %v", leader, err)
					}
					last.Close()
				}
			}
		})
	}
}

// startHaproxy runs haproxy until the test ends.
func startHaproxy(t *testing.T, binary, config, addr string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var output strings.Builder
	cmd := exec.Command(binary, "-db", "-f", path)
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { defer close(exited); _ = cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
		if t.Failed() {
			t.Logf("haproxy said:\n%s", output.String())
		}
	})
	for {
		if nc, err := net.Dial("tcp", addr); err == nil {
			nc.Close()
			return
		}
		select {
		case <-exited:
			t.Fatalf("haproxy does not start:\n%s", output.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}
