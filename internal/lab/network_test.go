package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestPartitions connects two nodes and breaks the connection in every way that the network offers.
func TestPartitions(t *testing.T) {
	l := newLab(t)
	a, err := l.Net.AddNode("a", "10.94.0.11")
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Net.AddNode("b", "10.94.0.12")
	if err != nil {
		t.Fatal(err)
	}
	// Datagrams show one direction at a time.
	var from, to net.PacketConn
	if err := inNamespace(a, func() (err error) { from, err = net.ListenPacket("udp4", "10.94.0.11:5000"); return err }); err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	if err := inNamespace(b, func() (err error) { to, err = net.ListenPacket("udp4", "10.94.0.12:5000"); return err }); err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	// arrives tells whether one of many datagrams gets through within a time.
	arrives := func(from, to net.PacketConn, wait time.Duration) bool {
		got := make(chan bool, 1)
		to.SetReadDeadline(time.Now().Add(wait))
		go func() {
			_, _, err := to.ReadFrom(make([]byte, 100))
			got <- err == nil
		}()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			// An error here is what a link that is down looks like.
			from.WriteTo([]byte("x"), to.LocalAddr())
			select {
			case ok := <-got:
				for to.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); ; { // what else was on its way
					if _, _, err := to.ReadFrom(make([]byte, 100)); err != nil {
						return ok
					}
				}
			case <-tick.C:
			}
		}
	}
	expect := func(state string, there, back bool) {
		t.Helper()
		wait := func(want bool) time.Duration {
			if want {
				return 5 * time.Second
			}
			return 200 * time.Millisecond
		}
		if got := arrives(from, to, wait(there)); got != there {
			t.Errorf("%s: from a to b gets through: %v", state, got)
		}
		if got := arrives(to, from, wait(back)); got != back {
			t.Errorf("%s: from b to a gets through: %v", state, got)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	expect("at first", true, true)
	must(l.Net.LinkDown("a"))
	expect("link down", false, false)
	must(l.Net.LinkUp("a"))
	expect("link up again", true, true)
	must(l.Net.Cut("a"))
	expect("cut", false, false)
	must(l.Net.Mend("a"))
	expect("mended", true, true)
	if err := l.Net.DropFrom("a"); err != nil {
		t.Skipf("no one-way loss on this kernel: %v", err)
	}
	expect("one way", false, true)
	must(l.Net.Pass("a"))
	expect("both ways again", true, true)
	must(l.Net.DropTo("a"))
	expect("the other way", true, false)
	must(l.Net.Pass("a"))
	expect("both ways at last", true, true)
}

// TestStaleNetworks: what a harness that was killed has left is removed by the next one, with the processes in it.
func TestStaleNetworks(t *testing.T) {
	newLab(t) // for its skips
	// A process id that is free, of a process that has just ended.
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	stale := fmt.Sprintf("%s%d-1-hub", netnsPrefix, gone.Process.Pid)
	if err := ip("", "netns", "add", stale); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(labsDir, fmt.Sprintf("%s%d-1", labPrefix, gone.Process.Pid))
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	left := exec.Command("ip", "netns", "exec", stale, "sleep", "600")
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- left.Wait() }()
	defer left.Process.Kill()
	// The process has to be in the namespace before it can be found there.
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for out := []byte(nil); len(out) == 0; {
		var err error
		if out, err = exec.CommandContext(ctx, "ip", "netns", "pids", stale).Output(); err != nil {
			t.Fatal(err)
		}
	}
	removeStale()
	select {
	case <-ended:
	case <-ctx.Done():
		t.Error("a process in a stale namespace lives on")
	}
	for _, path := range []string{filepath.Join(netnsDir, stale), folder} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
}
