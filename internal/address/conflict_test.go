package address

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var (
	strangerMAC = net.HardwareAddr{2, 0, 0, 0, 0, 0x66}
	nodeMAC     = net.HardwareAddr{2, 0, 0, 0, 0, 0x0b}
	nodeIP      = netip.MustParseAddr("10.94.0.12")
)

// neighbours answers questions for addresses with the link addresses of who has them.
func neighbours(table map[netip.Addr]net.HardwareAddr) func(*message) []byte {
	return func(m *message) []byte {
		if mac := table[m.asks]; mac != nil {
			answer := *m
			answer.mac = macAddr(testMAC)
			return answerFrame(mac, &answer)
		}
		return nil
	}
}

func newPeerManager(t *testing.T, prefix string) (*Manager, *fakeNetwork) {
	t.Helper()
	m, f := newTestManager(t, func() bool { return true })
	m.cfg.Prefix = netip.MustParsePrefix(prefix)
	m.cfg.Peers = func() []netip.Addr { return []netip.Addr{nodeIP} }
	return m, f
}

func closeManager(t *testing.T, m *Manager) {
	t.Helper()
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

// TestProbe: what Acquire does with the answers, and how long it takes.
func TestProbe(t *testing.T) {
	ip := netip.MustParseAddr("10.94.0.100")
	for _, c := range []struct {
		name  string
		table map[netip.Addr]net.HardwareAddr
		ahead time.Duration // how long before Acquire the question is asked; 0: not
		takes time.Duration
		taken bool
	}{
		{name: "nobody", takes: probeWait, taken: true},
		{name: "nobody, asked ahead", ahead: 100 * time.Millisecond, taken: true},
		{name: "nobody, asked just before", ahead: 5 * time.Millisecond, takes: probeWait - 5*time.Millisecond, taken: true},
		{name: "nobody, asked long before", ahead: 2 * time.Second, takes: probeWait, taken: true},
		{name: "a node that hangs", table: map[netip.Addr]net.HardwareAddr{ip: nodeMAC, nodeIP: nodeMAC}, taken: true},
		{name: "a stranger", table: map[netip.Addr]net.HardwareAddr{ip: strangerMAC, nodeIP: nodeMAC}, takes: probeWait},
		{name: "a stranger, asked ahead", table: map[netip.Addr]net.HardwareAddr{ip: strangerMAC}, ahead: 100 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, f := newPeerManager(t, "10.94.0.100/24")
				f.answer = neighbours(c.table)
				defer closeManager(t, m)
				if c.ahead > 0 {
					m.Probe()
					time.Sleep(c.ahead)
				}
				start := time.Now()
				err := m.Acquire(t.Context())
				if took := time.Since(start); took != c.takes {
					t.Errorf("took %v, want %v", took, c.takes)
				}
				d := m.Describe()
				if c.taken {
					if err != nil || !d.Held || !f.present() || d.Conflict != nil {
						t.Errorf("%v, %+v", err, d)
					}
					return
				}
				var conflict *ConflictError
				if !errors.As(err, &conflict) || !bytes.Equal(conflict.MAC, strangerMAC) || !strings.Contains(err.Error(), strangerMAC.String()) {
					t.Errorf("got %v", err)
				}
				if f.present() || d.Held || d.Conflict == nil || !bytes.Equal(d.Conflict.MAC, strangerMAC) {
					t.Errorf("%+v", d)
				}
				// The stranger goes away.
				f.answer = nil
				if err := m.Acquire(t.Context()); err != nil || m.Describe().Conflict != nil {
					t.Errorf("second attempt: %v, %+v", err, m.Describe().Conflict)
				}
			})
		})
	}
}

// TestDefence: a stranger that turns up while the address is held is opposed, but not too often, and forgotten when it is gone.
func TestDefence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newPeerManager(t, "10.94.0.100/24")
		defer closeManager(t, m)
		if err := m.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second) // the announcements of the beginning
		announced := func() int {
			f.mu.Lock()
			defer f.mu.Unlock()
			n := 0
			for _, s := range f.sent {
				if s.claim == m.cfg.Prefix.Addr() {
					n++
				}
			}
			return n
		}
		before := announced()
		claim := arpFrame(strangerMAC, m.cfg.Prefix.Addr(), arpReply)
		for range 8 { // for 4 s
			f.arrive(claim)
			time.Sleep(500 * time.Millisecond)
		}
		c := m.Describe().Conflict
		if c == nil || !bytes.Equal(c.MAC, strangerMAC) || !c.Last.After(c.Since) {
			t.Fatalf("conflict %+v", c)
		}
		if n := announced() - before; n != 2 {
			t.Errorf("%d frames in 4 s, want one request and one reply", n)
		}
		if !m.Describe().Held {
			t.Fatal("the address was given up for a stranger")
		}
		// It answers questions from now on, so it is known to be there still.
		f.mu.Lock()
		f.answer = neighbours(map[netip.Addr]net.HardwareAddr{m.cfg.Prefix.Addr(): strangerMAC})
		f.mu.Unlock()
		before = announced()
		time.Sleep(time.Minute)
		if n := announced() - before; n < 10 || n > 12 {
			t.Errorf("%d frames in a minute, want two each 10 s", n)
		}
		if c := m.Describe().Conflict; c == nil || time.Since(c.Last) > defendEvery {
			t.Errorf("conflict %+v", c)
		}
		f.mu.Lock()
		f.answer = nil
		f.mu.Unlock()
		time.Sleep(conflictOver + defendEvery)
		if c := m.Describe().Conflict; c != nil {
			t.Errorf("conflict %+v after the stranger has gone", c)
		}
	})
}

// TestReassert: a node that hung and whose kernel speaks for the address is no conflict, but the neighbours are told again where the address is.
func TestReassert(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newPeerManager(t, "10.94.0.100/24")
		defer closeManager(t, m)
		f.answer = neighbours(map[netip.Addr]net.HardwareAddr{nodeIP: nodeMAC})
		if err := m.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		f.mu.Lock()
		before := f.frames
		f.mu.Unlock()
		f.arrive(arpFrame(nodeMAC, m.cfg.Prefix.Addr(), arpRequest))
		synctest.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.frames != before+2 {
			t.Errorf("%d frames, want an announcement", f.frames-before)
		}
		if c := m.currentConflict(); c != nil {
			t.Errorf("conflict %+v with a node", c)
		}
	})
}

// TestAnswers: where the kernel is silent the sentry answers who asks for the address, as long as it is held.
func TestAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newPeerManager(t, "fd00::64/64")
		m.cfg.Peers = nil
		client := message{mac: macAddr(strangerMAC), from: netip.MustParseAddr("fd00::33")}
		question := solicitationFrame(strangerMAC, m.cfg.Prefix.Addr())
		if err := m.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := m.Describe(); !d.Vanishes || d.Carrier != "holdfast0" || d.Device != "eth0" || !f.isGuarded() {
			t.Errorf("%+v, guarded %v", d, f.isGuarded())
		}
		time.Sleep(5 * time.Second)
		f.mu.Lock()
		f.sent = nil
		f.mu.Unlock()
		f.arrive(question)
		f.arrive(solicitationFrame(strangerMAC, client.from)) // somebody else's
		synctest.Wait()
		f.mu.Lock()
		if len(f.sent) != 1 || f.sent[0].claim != m.cfg.Prefix.Addr() {
			t.Errorf("answers: %+v", f.sent)
		}
		f.mu.Unlock()
		closeManager(t, m)
		if f.isGuarded() {
			t.Error("packets from an address that is gone may leave")
		}
	})
}

// TestPlainWithoutSentry: where nobody can answer for an address on a carrier it is put where the kernel answers.
func TestPlainWithoutSentry(t *testing.T) {
	m, f := newPeerManager(t, "fd00::64/64")
	f.listenErr = errors.New("no packet sockets here")
	if err := m.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f.where != "eth0 fd00::64/64" || m.Describe().Vanishes {
		t.Errorf("on %s", f.where)
	}
	closeManager(t, m)
}

// TestCheck asks without taking anything.
func TestCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newPeerManager(t, "10.94.0.100/24")
		defer closeManager(t, m)
		f.answer = neighbours(map[netip.Addr]net.HardwareAddr{m.cfg.Prefix.Addr(): strangerMAC})
		d, err := m.Check(t.Context())
		if err != nil || d.Conflict == nil || d.Held || f.present() || d.Device != "eth0" || !d.Vanishes {
			t.Errorf("%v, %+v", err, d)
		}
		if d.Carrier != "" {
			t.Errorf("%s was made for a question", d.Carrier)
		}
		f.answer = nil
		if d, err = m.Check(t.Context()); err != nil || d.Conflict != nil {
			t.Errorf("%v, %+v", err, d)
		}
	})
}

// FuzzParseFrame: any frame is refused or says something that makes sense.
func FuzzParseFrame(f *testing.F) {
	v4, v6 := netip.MustParseAddr("10.94.0.100"), netip.MustParseAddr("fd00::64")
	for _, frame := range [][]byte{
		arpFrame(testMAC, v4, arpRequest), arpProbe(testMAC, v4), advertisementFrame(testMAC, v6), solicitationFrame(testMAC, v6),
		answerFrame(testMAC, &message{asks: v6, from: netip.MustParseAddr("fe80::1")}),
	} {
		f.Add(frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		m, ok := parseFrame(frame)
		if !ok {
			return
		}
		if !m.claim.IsValid() && !m.asks.IsValid() {
			t.Fatalf("%x says nothing", frame)
		}
		if m.asks.IsValid() {
			if a, ok := parseFrame(answerFrame(testMAC, &m)); !ok || a.claim != m.asks || a.mac != macAddr(testMAC) {
				t.Fatalf("the answer to %x says %+v", frame, a)
			}
		}
	})
}
