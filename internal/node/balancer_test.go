package node

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/internal/nfsclient"
)

// testBalancer is a TCP balancer in front of one address. It begins each connection with a header, as haproxy's send-proxy-v2 does.
type testBalancer struct {
	t      *testing.T
	target string
	header []byte
	dialer net.Dialer
	work   sync.WaitGroup
}

// balance runs a balancer at an address of its own until the test ends, which says that all of its clients are client; without one it says nothing.
func balance(t *testing.T, own, target string, client netip.AddrPort) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(own, "2049"))
	if err != nil {
		t.Fatal(err)
	}
	b := &testBalancer{t: t, target: target, dialer: net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(own)}}}
	if client.IsValid() {
		b.header = proxyHeader(client, netip.MustParseAddrPort("192.0.2.100:2049"))
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.work.Go(func() { b.serve(ctx, ln) })
	t.Cleanup(func() {
		cancel()
		ln.Close()
		b.work.Wait()
	})
	return ln.Addr().String()
}

// proxyHeader is a header of version 2 of haproxy's protocol, for TCP over IPv4.
func proxyHeader(client, local netip.AddrPort) []byte {
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), 0x21, 0x11, 0, 12)
	b = append(b, client.Addr().AsSlice()...)
	b = append(b, local.Addr().AsSlice()...)
	return append(b, byte(client.Port()>>8), byte(client.Port()), byte(local.Port()>>8), byte(local.Port()))
}

func (b *testBalancer) serve(ctx context.Context, ln net.Listener) {
	for {
		client, err := ln.Accept()
		if err != nil {
			return
		}
		b.work.Go(func() {
			defer client.Close()
			server, err := b.dialer.DialContext(ctx, "tcp", b.target)
			if err != nil {
				return
			}
			defer server.Close()
			stop := context.AfterFunc(ctx, func() { client.Close(); server.Close() })
			defer stop()
			if _, err := server.Write(b.header); err != nil {
				return
			}
			b.work.Go(func() {
				defer client.Close()
				_, _ = io.Copy(client, server) // until one of them ends
			})
			_, _ = io.Copy(server, client)
		})
	}
}

// TestBalancer has clients mount through balancers at the node ports of the leader and of another node: where the nodes' files list the balancer, a client is judged by
// the address that the balancer's header has; who is not listed and sends a header, and who is listed and sends none, is refused.
func TestBalancer(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{
		extra: "    node_port: 2050\n",
		local: "balancers: [NETWORK.90, NETWORK.96/28]\n",
		exports: `
      - path: /data
        mode: "1777"
        clients:
          - {match: 127.0.0.0/8, options: [rw, no_root_squash]}
      - path: /far
        mode: "1777"
        clients:
          - {match: 192.0.2.0/24, options: [rw, no_root_squash]}`,
	}).startAll()
	client := netip.MustParseAddrPort("192.0.2.7:812")
	mount := func(t *testing.T, own, export string, via *testNode, says netip.AddrPort, patience time.Duration) error {
		t.Helper()
		addr := balance(t, c.network+own, strings.Replace(via.peer, ":7420", ":2050", 1), says)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		cl, err := nfsclient.Mount(ctx, nfsclient.Config{Address: addr, Export: export})
		if err != nil {
			return err
		}
		defer cl.Close(ctx)
		return c.write(cl, "by"+own, []byte("x"))
	}
	leader := c.leader()
	for name, via := range map[string]*testNode{"leader": leader, "follower": c.other(leader)} {
		for _, tt := range []struct {
			name, own, export string
			says              netip.AddrPort
			refused           error
		}{
			{"listed", ".90", "/far", client, nil},
			{"in a listed network", ".98", "/far", client, nil},
			{"listed, for a client that may not", ".90", "/data", client, nfsclient.ErrNoEnt},
			{"listed, for another client", ".90", "/far", netip.MustParseAddrPort("198.51.100.7:812"), nfsclient.ErrNoEnt},
			{"listed, without a header", ".90", "/data", netip.AddrPort{}, context.DeadlineExceeded},
			{"not listed", ".91", "/far", client, context.DeadlineExceeded},
			{"not listed, for a client that may", ".91", "/data", netip.MustParseAddrPort("127.0.0.1:812"), context.DeadlineExceeded},
			{"not listed, without a header", ".91", "/data", netip.AddrPort{}, nil},
		} {
			t.Run(name+"/"+tt.name, func(t *testing.T) {
				patience := testTimeout
				if errors.Is(tt.refused, context.DeadlineExceeded) {
					patience = 300 * time.Millisecond // the client tries on: its connection is reset each time
				}
				if err := mount(t, tt.own, tt.export, via, tt.says, patience); !errors.Is(err, tt.refused) {
					t.Errorf("error %v, want %v", err, tt.refused)
				}
			})
		}
	}
}
