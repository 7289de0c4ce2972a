package forward

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
)

// Headers as the specification has them (doc/proxy-protocol.txt, sections 2.1 and 2.2).
var (
	proxyV2    = signatureV2 + "\x21\x11\x00\x0c" + "\xc0\x00\x02\x01" + "\xc0\x00\x02\x02" + "\x03\xff\x08\x01"
	proxyV2IP6 = signatureV2 + "\x21\x21\x00\x24" + string(header6.Client.Addr().AsSlice()) + string(header6.Local.Addr().AsSlice()) + "\x02\xbc\x08\x01"
	proxyLocal = signatureV2 + "\x20\x00\x00\x00"
)

func TestReadProxyHeader(t *testing.T) {
	tests := []struct {
		name, in      string
		client, local netip.AddrPort
		bad           bool
	}{
		{name: "version 1", in: "PROXY TCP4 192.0.2.1 192.0.2.2 1023 2049\r\n", client: header4.Client, local: header4.Local},
		{name: "version 1, IPv6", in: "PROXY TCP6 2001:db8::1 2001:db8::2 700 2049\r\n", client: header6.Client, local: header6.Local},
		{name: "version 1, unknown", in: "PROXY UNKNOWN\r\n"},
		{name: "version 1, unknown with more", in: "PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n"},
		{name: "version 2", in: proxyV2, client: header4.Client, local: header4.Local},
		{name: "version 2, IPv6", in: proxyV2IP6, client: header6.Client, local: header6.Local},
		{name: "version 2, local", in: proxyLocal},
		{name: "version 2, more behind", in: signatureV2 + "\x21\x11\x00\x10" + proxyV2[16:] + "\x04\x00\x01x", client: header4.Client, local: header4.Local},
		{name: "version 2, UDP", in: signatureV2 + "\x21\x12" + proxyV2[14:]},

		{name: "NFS", in: "\x80\x00\x00\x28\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02", bad: true},
		{name: "version 3", in: signatureV2 + "\x31" + proxyV2[13:], bad: true},
		{name: "command", in: signatureV2 + "\x22" + proxyV2[13:], bad: true},
		{name: "short body", in: signatureV2 + "\x21\x11\x00\x0b" + proxyV2[16:], bad: true},
		{name: "huge body", in: signatureV2 + "\x21\x11\xff\xff" + proxyV2[16:], bad: true},
		{name: "no address", in: "PROXY TCP4 here there 1023 2049\r\n", bad: true},
		{name: "no port", in: "PROXY TCP4 192.0.2.1 192.0.2.2 1023 99999\r\n", bad: true},
		{name: "fields", in: "PROXY TCP4 192.0.2.1 192.0.2.2 1023\r\n", bad: true},
		{name: "endless", in: "PROXY TCP4 " + string(bytes.Repeat([]byte{'1'}, 200)), bad: true},
		{name: "cut", in: "PROXY TCP4 192.0.2.1", bad: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := bytes.NewReader([]byte(tt.in))
			client, local, err := readProxyHeader(r)
			if tt.bad {
				if !errors.Is(err, errProxyHeader) {
					t.Errorf("read as %v, %v, %v", client, local, err)
				}
				return
			}
			if err != nil || client != tt.client || local != tt.local || r.Len() != 0 {
				t.Errorf("read as %v, %v, %v with %d bytes left; want %v, %v", client, local, err, r.Len(), tt.client, tt.local)
			}
		})
	}
}

func FuzzReadProxyHeader(f *testing.F) {
	f.Add([]byte(proxyV2))
	f.Add([]byte(proxyV2IP6))
	f.Add([]byte(proxyLocal))
	f.Add([]byte("PROXY TCP4 192.0.2.1 192.0.2.2 1023 2049\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		client, local, err := readProxyHeader(bytes.NewReader(in))
		if err == nil && client.IsValid() != local.IsValid() {
			t.Errorf("client %v, local %v", client, local)
		}
	})
}

// TestBalancer checks that a balancer's word for who the client is reaches the server, forwarded or not, and that nobody else's is heard.
func TestBalancer(t *testing.T) {
	c := newCluster(t, 2, 1, 2)
	trust := func(cfg *ProxyConfig) { cfg.Balancers = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }
	for self := range c.nodes {
		p := c.proxy(t, self, trust)
		nc, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(nc, proxyV2); err != nil {
			t.Fatal(err)
		}
		got, err := call(t, converse(t, nc), make([]byte, 600<<10))
		if err != nil || got.client != header4.Client || got.server != header4.Local {
			t.Errorf("by node %d the server saw client %v at %v: %v", self, got.client, got.server, err)
		}

		if _, err := call(t, connect(t, p.addr), nil); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("node %d answered a balancer's connection without a header: %v", self, err)
		}

		nc, err = net.Dial("tcp", c.proxy(t, self, nil).addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if _, err := io.WriteString(nc, proxyV2); err != nil {
			t.Fatal(err)
		}
		if n, err := nc.Read(make([]byte, 1)); err == nil {
			t.Errorf("node %d answered %d bytes to a header from who is no balancer", self, n)
		}
	}
}
