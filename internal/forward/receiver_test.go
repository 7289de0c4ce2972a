package forward

import (
	"bytes"
	"context"
	"encoding/hex"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

func encode(t testing.TB, h Header) []byte {
	t.Helper()
	b, err := h.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var (
	header4 = Header{Volume: testVolume, Client: netip.MustParseAddrPort("192.0.2.1:1023"), Local: netip.MustParseAddrPort("192.0.2.2:2049")}
	header6 = Header{Volume: 1 << 40, Client: netip.MustParseAddrPort("[2001:db8::1]:700"), Local: netip.MustParseAddrPort("[2001:db8::2]:2049")}
)

func TestHeader(t *testing.T) {
	for _, h := range []Header{header4, header6} {
		b := encode(t, h)
		r := bytes.NewReader(append(b, "and more"...))
		if got, err := readHeader(r); err != nil || got != h {
			t.Errorf("%+v came back as %+v: %v", h, got, err)
		}
		if r.Len() != len("and more") {
			t.Errorf("%d bytes are left of those that follow", r.Len())
		}
		for n := range len(b) {
			if _, err := readHeader(bytes.NewReader(b[:n])); err == nil {
				t.Errorf("%d bytes of %d pass for a header", n, len(b))
			}
		}
	}
	// The form is for other releases to rely on.
	const want = "68666e66" + "01" + "0016" + "0000000000000007" + "04c000020103ff" + "04c00002020801"
	if got := hex.EncodeToString(encode(t, header4)); got != want {
		t.Errorf("encoded as %s, want %s", got, want)
	}
	if _, err := (Header{Client: header4.Client}).AppendBinary(nil); err == nil {
		t.Error("a header without a local address is encoded")
	}
	// A mapped address is IPv4's.
	mapped := Header{Client: netip.MustParseAddrPort("[::ffff:192.0.2.1]:1"), Local: header4.Local}
	if got, err := readHeader(bytes.NewReader(encode(t, mapped))); err != nil || !got.Client.Addr().Is4() {
		t.Errorf("client is %v: %v", got.Client, err)
	}
	// Later releases may append.
	longer := append(encode(t, header4), 1, 2, 3)
	longer[len(magic)+2] += 3
	if got, err := readHeader(bytes.NewReader(longer)); err != nil || got != header4 {
		t.Errorf("with more behind it: %+v, %v", got, err)
	}
}

func FuzzReadHeader(f *testing.F) {
	f.Add(encode(f, header4))
	f.Add(encode(f, header6))
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := readHeader(bytes.NewReader(in))
		if err != nil {
			return
		}
		if again, err := readHeader(bytes.NewReader(encode(t, h))); err != nil || again != h {
			t.Errorf("%+v came back as %+v: %v", h, again, err)
		}
	})
}

// TestReceiverRefuses checks what a stream is answered that is not taken, and that it is closed then.
func TestReceiverRefuses(t *testing.T) {
	other := header4
	other.Volume++
	badVersion := encode(t, header4)
	badVersion[len(magic)] = 2
	tests := []struct {
		name string
		in   []byte
		max  int
		want status
	}{
		{"not serving", encode(t, other), 1, statusNotServing},
		{"rubbish", []byte("GET / HTTP/1.1\r\n"), 1, statusBadHeader},
		{"version", badVersion, 1, statusBadHeader},
		{"silence", []byte(magic), 1, statusBadHeader},
		{"full", encode(t, header4), -1, statusFull},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := NewReceiver(ReceiverConfig{
				MaxConns: tt.max, HeaderTimeout: 50 * time.Millisecond, Log: quiet(),
				Server: func(volume uint64) func(context.Context, net.Conn) {
					if volume == testVolume {
						return func(context.Context, net.Conn) { t.Error("it was taken") }
					}
					return nil
				},
			})
			a, b := net.Pipe()
			run(t, func(ctx context.Context) error { r.ServeConn(ctx, b); return nil })
			go func() { _, _ = a.Write(tt.in) }()
			got, err := io.ReadAll(a)
			if err != nil || len(got) != 1 || status(got[0]) != tt.want {
				t.Errorf("answered %v, %v; want status %d", got, err, tt.want)
			}
		})
	}
}

// TestReceiverShutdown checks that streams that have not said who they are do not hold up the end.
func TestReceiverShutdown(t *testing.T) {
	r := NewReceiver(ReceiverConfig{HeaderTimeout: time.Hour, Log: quiet()})
	a, b := net.Pipe()
	stop := run(t, func(ctx context.Context) error { r.ServeConn(ctx, b); return nil })
	if _, err := a.Write([]byte(magic)); err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := a.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the stream ended with %v", err)
	}
}
