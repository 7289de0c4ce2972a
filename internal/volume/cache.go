package volume

import "sync"

// inodeCache keeps recently used inodes decoded. It is filled by readers under the shared volume lock and by apply under the exclusive one, so what it holds is always
// what is published. Eviction is by generations: what was not used while the young generation filled up goes with the old one.
type inodeCache struct {
	shards [cacheShards]cacheShard
}

const (
	cacheShards = 16
	// shardInodes bounds one generation of one shard: 2*16*2048 inodes of some 250 bytes are 16 MiB at most.
	shardInodes = 2048
)

type cacheShard struct {
	mu         sync.Mutex
	young, old map[Ino]*Inode
}

func (c *inodeCache) shard(ino Ino) *cacheShard { return &c.shards[ino%cacheShards] }

func (c *inodeCache) get(ino Ino) *Inode {
	s := c.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.young[ino]; n != nil {
		return n
	}
	n := s.old[ino]
	if n != nil {
		s.put(n)
	}
	return n
}

func (c *inodeCache) put(n *Inode) {
	s := c.shard(n.Ino)
	s.mu.Lock()
	s.put(n)
	s.mu.Unlock()
}

func (s *cacheShard) put(n *Inode) {
	if s.young == nil || len(s.young) >= shardInodes {
		s.old, s.young = s.young, make(map[Ino]*Inode)
	}
	s.young[n.Ino] = n
}

func (c *inodeCache) remove(ino Ino) {
	s := c.shard(ino)
	s.mu.Lock()
	delete(s.young, ino)
	delete(s.old, ino)
	s.mu.Unlock()
}

func (c *inodeCache) clear() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.young, s.old = nil, nil
		s.mu.Unlock()
	}
}
