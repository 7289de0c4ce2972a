package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"holdfast/internal/identity"
	"holdfast/internal/identity/identitytest"
	"holdfast/internal/link"
	"holdfast/internal/rpc"
)

// linked makes the nodes' streams go over the node port, as they do in a cluster. It returns the ports.
func (c *cluster) linked(t testing.TB) map[uint64]*link.Mux {
	t.Helper()
	ids := identitytest.New(t)
	ports := make(map[uint64]*link.Mux)
	addrs := make(map[uint64]string)
	for id, n := range c.nodes {
		ln := listen(t)
		addrs[id] = ln.Addr().String()
		m := link.Listen(ln, ids.Node(id), link.Options{Logger: quiet()})
		r := NewReceiver(ReceiverConfig{Log: quiet(), Server: func(volume uint64) func(context.Context, net.Conn) {
			if volume != testVolume || !c.leader.seenBy(id)().Local {
				return nil
			}
			return n.server.ServeConn
		}})
		nfs := m.Listener(link.ProtoNFS)
		run(t, m.Serve)
		run(t, func(ctx context.Context) error { return r.Serve(ctx, nfs) })
		ports[id] = m
	}
	d := link.Dialer{Creds: ids.Node(99)}
	c.dialer = func(ctx context.Context, id uint64) (net.Conn, error) {
		return d.Dial(ctx, addrs[id], id, link.ProtoNFS)
	}
	return ports
}

// TestLink checks calls over the node port, that a client is reset whatever ends them, and that nothing is left then.
func TestLink(t *testing.T) {
	ends := map[string]func(c *cluster, p *testProxy, ports map[uint64]*link.Mux){
		"leader changes": func(c *cluster, _ *testProxy, _ map[uint64]*link.Mux) { c.leader.set(3) },
		"server resets":  func(c *cluster, _ *testProxy, _ map[uint64]*link.Mux) { c.nodes[2].server.CloseConns(true) },
		"server closes":  func(c *cluster, _ *testProxy, _ map[uint64]*link.Mux) { c.nodes[2].server.CloseConns(false) },
		"proxy ends":     func(_ *cluster, p *testProxy, _ map[uint64]*link.Mux) { p.stop() },
		"certificate revoked": func(_ *cluster, _ *testProxy, ports map[uint64]*link.Mux) {
			ports[2].Disconnect(func(identity.Peer) bool { return true })
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 2, 1, 2, 3)
			ports := c.linked(t)
			p := c.proxy(t, 1, nil)
			before := runtime.NumGoroutine()
			conn := connect(t, p.addr)
			var calls sync.WaitGroup
			for i := range 8 {
				calls.Go(func() {
					args := bytes.Repeat([]byte{byte(i + 1)}, i*140<<10)
					if got, err := call(t, conn, args); err != nil || got.node != 2 || !bytes.Equal(got.args, args) {
						t.Errorf("node %d answered %d bytes with %d: %v", got.node, len(args), len(got.args), err)
					}
				})
			}
			calls.Wait()
			end(c, p, ports)
			if err := awaitEnd(t, conn); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the connection ended with %v, want a reset", err)
			}
			until(t, fmt.Sprintf("no more than the %d goroutines of before", before), func() bool { return runtime.NumGoroutine() <= before })
		})
	}
}

func BenchmarkLink(b *testing.B) {
	for _, size := range []int{128, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			c := newCluster(b, 2, 1, 2)
			c.linked(b)
			p := c.proxy(b, 1, nil)
			conn := connect(b, p.addr)
			args := make([]byte, size)
			b.SetBytes(int64(2 * size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := conn.Call(b.Context(), rpc.ProgNFS, 4, 1, &rpc.Auth{}, args); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
