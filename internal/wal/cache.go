package wal

import "go.etcd.io/raft/v3/raftpb"

// cache holds the newest entries of the log, up to a limit of bytes. It shares their data with whoever appended them.
type cache struct {
	limit   int64
	bytes   int64
	entries []raftpb.Entry // consecutive; the last one is the last of the log
}

// entryOverhead is what an entry costs in memory and on disk besides its data, about.
const entryOverhead = 48

func cost(e *raftpb.Entry) int64 { return int64(len(e.Data)) + entryOverhead }

// add appends an entry, dropping old ones to make room.
func (c *cache) add(e raftpb.Entry) {
	if c.limit < 0 {
		return
	}
	c.entries = append(c.entries, e)
	c.bytes += cost(&e)
	for c.bytes > c.limit {
		c.dropFirst()
	}
}

func (c *cache) dropFirst() {
	c.bytes -= cost(&c.entries[0])
	c.entries[0] = raftpb.Entry{} // the array lives on until append moves to another one
	c.entries = c.entries[1:]
}

// cut forgets the entries from index on.
func (c *cache) cut(index uint64) {
	for n := len(c.entries); n > 0 && c.entries[n-1].Index >= index; n-- {
		c.bytes -= cost(&c.entries[n-1])
		c.entries[n-1] = raftpb.Entry{}
		c.entries = c.entries[:n-1]
	}
}

// forget drops the entries up to index.
func (c *cache) forget(index uint64) {
	for len(c.entries) > 0 && c.entries[0].Index <= index {
		c.dropFirst()
	}
}

// from returns the cached entries from the first cached one >= index on.
func (c *cache) from(index uint64) []raftpb.Entry {
	if len(c.entries) == 0 {
		return nil
	}
	first := c.entries[0].Index
	if index <= first {
		return c.entries
	}
	return c.entries[min(index-first, uint64(len(c.entries))):]
}
