package transport

import (
	"bufio"
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/raft/v3/raftpb"
)

func sampleMessages() []raftpb.Message {
	return []raftpb.Message{
		{Type: raftpb.MsgHeartbeat, From: 1, To: 2, Term: 3, Commit: 4, Context: []byte("0123456789abcdef")},
		{Type: raftpb.MsgAppResp, From: 2, To: 1, Term: 3, Index: 9, LogTerm: 2, Reject: true, RejectHint: 7},
		{Type: raftpb.MsgApp, From: 1, To: 2, Term: 3, Index: 9, LogTerm: 2, Commit: 8, Entries: []raftpb.Entry{
			{Index: 10, Term: 3, Data: []byte("first")},
			{Index: 11, Term: 3},
			{Index: 12, Term: 3, Type: raftpb.EntryConfChangeV2, Data: bytes.Repeat([]byte("x"), 5000)},
		}},
		{Type: 64, From: 1, To: 2, LogTerm: 99, Context: []byte("nonce...")},
	}
}

func frame(t testing.TB, group uint64, m *raftpb.Message) []byte {
	t.Helper()
	bufs, n, err := AppendFrame(nil, group, m)
	if err != nil {
		t.Fatal(err)
	}
	b := slices.Concat(bufs...)
	if len(b) != n {
		t.Fatalf("%d bytes announced, %d made", n, len(b))
	}
	return b
}

func TestMessagesSurviveTheWire(t *testing.T) {
	for _, want := range sampleMessages() {
		b, err := readFrame(bufio.NewReader(bytes.NewReader(frame(t, 77, &want))), MaxFrameBytes)
		if err != nil {
			t.Fatal(err)
		}
		group, got, err := DecodeMessage(b)
		if err != nil || group != 77 {
			t.Fatalf("group %d, %v", group, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
}

func TestPayloadIsNotCopied(t *testing.T) {
	m := sampleMessages()[2]
	bufs, _, err := AppendFrame(nil, 1, &m)
	if err != nil {
		t.Fatal(err)
	}
	last := bufs[len(bufs)-1]
	if &last[0] != &m.Entries[2].Data[0] {
		t.Error("the data was copied on its way out")
	}
	b := slices.Concat(bufs...)[frameHeaderBytes:]
	_, got, err := DecodeMessage(b)
	if err != nil {
		t.Fatal(err)
	}
	if &got.Entries[2].Data[4999] != &b[len(b)-1] {
		t.Error("the data was copied on its way in")
	}
}

func TestMessagesThatCannotBeSent(t *testing.T) {
	for name, m := range map[string]raftpb.Message{
		"gap":     {Type: raftpb.MsgApp, Index: 3, Entries: []raftpb.Entry{{Index: 5}}},
		"context": {Type: raftpb.MsgHeartbeat, Context: make([]byte, maxContextBytes+1)},
		"size":    {Type: raftpb.MsgApp, Entries: []raftpb.Entry{{Index: 1, Data: make([]byte, MaxFrameBytes)}}},
	} {
		if bufs, n, err := AppendFrame(nil, 1, &m); err == nil || n != 0 || len(bufs) != 0 {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
	}
}

func TestDamagedFrames(t *testing.T) {
	m := sampleMessages()[2]
	good := frame(t, 1, &m)
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 0x40
		got, err := readFrame(bufio.NewReader(bytes.NewReader(b)), MaxFrameBytes)
		if err == nil {
			t.Fatalf("a flipped bit in byte %d was not noticed: %d bytes", i, len(got))
		}
	}
	huge := bytes.Clone(good)
	huge[0] = 0xff
	if _, err := readFrame(bufio.NewReader(bytes.NewReader(huge)), MaxFrameBytes); !errors.Is(err, ErrBadFrame) {
		t.Errorf("a huge frame: %v", err)
	}
}

func FuzzDecodeMessage(f *testing.F) {
	for _, m := range sampleMessages() {
		f.Add(frame(f, 5, &m)[frameHeaderBytes:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		group, m, err := DecodeMessage(b)
		if err != nil {
			if !errors.Is(err, ErrBadFrame) {
				t.Fatalf("error %v", err)
			}
			return
		}
		// What decodes must encode to the same bytes.
		if again := frame(t, group, &m)[frameHeaderBytes:]; !bytes.Equal(again, b) {
			t.Fatalf("%x decodes and encodes as %x", b, again)
		}
	})
}

func BenchmarkFrame(b *testing.B) {
	m := raftpb.Message{Type: raftpb.MsgApp, From: 1, To: 2, Term: 1, Index: 0}
	for i := range 16 {
		m.Entries = append(m.Entries, raftpb.Entry{Index: uint64(i + 1), Term: 1, Data: make([]byte, 4096)})
	}
	b.SetBytes(16 * 4096)
	b.ReportAllocs()
	var bufs [][]byte
	for b.Loop() {
		bufs, _, _ = AppendFrame(bufs[:0], 1, &m)
	}
}
