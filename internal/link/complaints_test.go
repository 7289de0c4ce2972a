package link

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"holdfast/internal/identity"
)

func TestComplaintsAreFew(t *testing.T) {
	book := newLogbook()
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	c := newComplaints(slog.New(slog.NewTextHandler(book, nil)))
	c.now = func() time.Time { return now }
	from := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 1} }
	lines := func() int { return strings.Count(book.text.String(), "\n") }
	step := func(what string, want int, f func()) {
		t.Helper()
		before := lines()
		f()
		if got := lines() - before; got != want {
			t.Errorf("%s: %d lines, not %d", what, got, want)
		}
	}
	expired := fmt.Errorf("%w: at some time", identity.ErrExpired)
	step("the same again and again", 1, func() {
		for range 100 {
			c.log(from("192.0.2.1"), expired)
		}
	})
	step("another reason, another source", 2, func() {
		c.log(from("192.0.2.1"), identity.ErrForeign)
		c.log(from("192.0.2.2"), expired)
	})
	step("words that the other side chooses", 1, func() {
		for i := range 100 {
			c.log(from("192.0.2.1"), fmt.Errorf("no such thing as %d%s", i, strings.Repeat("x", 1000)))
		}
	})
	step("a network of IPv6", 1, func() {
		for i := range 100 {
			c.log(from(fmt.Sprintf("2001:db8::%x", i+1)), expired)
		}
	})
	step("probes", 0, func() {
		c.log(from("192.0.2.3"), io.EOF)
		c.log(from("192.0.2.3"), fmt.Errorf("read: %w", net.ErrClosed))
	})
	now = now.Add(complaintInterval)
	step("a minute later", 1, func() { c.log(from("192.0.2.1"), expired) })
	if !strings.Contains(book.text.String(), "times_since_last=99") {
		t.Error("the log does not say how often it was silent")
	}
	step("thousands of sources", maxComplainers-1, func() { // all but the one that was logged just now
		for i := range 5000 {
			c.log(from(fmt.Sprintf("10.0.%d.%d", i/256, i%256)), errors.New("some reason"))
		}
	})
	if len(c.seen) > maxComplainers {
		t.Errorf("%d are kept", len(c.seen))
	}
	for _, line := range strings.Split(book.text.String(), "\n") {
		if len(line) > maxReason+200 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
}
