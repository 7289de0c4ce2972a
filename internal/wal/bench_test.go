package wal

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"holdfast/internal/vfs"
)

var benchDir = flag.String("bench.dir", "/var/tmp", "where BenchmarkAppend writes; not a tmpfs")

// BenchmarkAppend measures one Append with a sync on the disk under -bench.dir. "new" writes to segments that are allocated but never
// written, "recycled" to those that were, as a log does in the long run.
func BenchmarkAppend(b *testing.B) {
	for _, mode := range []string{"new", "recycled"} {
		for _, size := range []struct{ count, bytes int }{{1, 4 << 10}, {16, 4 << 10}, {1, 1 << 20}} {
			b.Run(fmt.Sprintf("%s/%dx%dKiB", mode, size.count, size.bytes>>10), func(b *testing.B) {
				benchAppend(b, mode == "recycled", size.count, size.bytes)
			})
		}
	}
}

func benchAppend(b *testing.B, recycled bool, count, size int) {
	dir, err := os.MkdirTemp(*benchDir, "wal-bench-")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	opts := Options{Spares: -1}
	if recycled {
		opts.Spares = 0
	}
	l, err := Open(vfs.OS(), dir, opts)
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i * 7)
	}
	var index uint64
	var written int
	appendBatch := func(entries []raftpb.Entry) {
		for i := range entries {
			index++
			entries[i] = raftpb.Entry{Index: index, Term: 1, Data: data}
		}
		if err := l.Append(Batch{Entries: entries}); err != nil {
			b.Fatal(err)
		}
		if written += len(entries) * size; written > 32<<20 {
			written = 0
			if err := l.TruncatePrefix(index - 1); err != nil {
				b.Fatal(err)
			}
		}
	}
	if recycled {
		// Once through four segments, so that every one that comes has been written before.
		mib := make([]raftpb.Entry, (1<<20)/size)
		for range 260 {
			appendBatch(mib)
		}
	}
	entries := make([]raftpb.Entry, count)
	b.SetBytes(int64(count * size))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		appendBatch(entries)
	}
}
