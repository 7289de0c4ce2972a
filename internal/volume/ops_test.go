package volume

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"holdfast/internal/rpc"
	"holdfast/internal/store"
	"holdfast/internal/xdr"
)

// opsProgram runs file system operations that are encoded in its calls, so that log entries are bytes as in production. It keeps a counter of its own
// and a set of open files as program state.
type opsProgram struct {
	open map[Ino]bool
}

const opsProg = 0x20000002

// The operations of opsProgram.
const (
	opsCreate = iota
	opsMkdir
	opsSymlink
	opsLink
	opsRemove
	opsRename
	opsWriteFile
	opsResize
	opsDealloc
	opsAlloc
	opsChmod
	opsOpen
	opsClose
	opsReadFile
	opsLookup
	opsKinds
)

// opsCall is one operation.
type opsCall struct {
	kind        uint32
	dir, ino    Ino // directory, object
	dir2        Ino
	name, name2 string
	off, length uint64
	data        []byte
}

func (c *opsCall) String() string {
	return fmt.Sprintf("%d(dir %d, ino %d, dir2 %d, %q, %q, %d, %d, %d bytes)",
		c.kind, c.dir, c.ino, c.dir2, c.name, c.name2, c.off, c.length, len(c.data))
}

func (c *opsCall) args() []byte {
	var e xdr.Encoder
	e.Uint64(uint64(c.dir))
	e.Uint64(uint64(c.ino))
	e.Uint64(uint64(c.dir2))
	e.String(c.name)
	e.String(c.name2)
	e.Uint64(c.off)
	e.Uint64(c.length)
	e.Opaque(c.data)
	return e.Bytes()
}

func (c *opsCall) decode(req *Request) error {
	d := xdr.NewDecoder(req.Call.Args)
	*c = opsCall{
		kind: req.Call.Proc,
		dir:  Ino(d.Uint64()), ino: Ino(d.Uint64()), dir2: Ino(d.Uint64()),
		name: d.String(1000), name2: d.String(5000),
		off: d.Uint64(), length: d.Uint64(), data: d.Opaque(1 << 20),
	}
	return d.Err()
}

func (c *opsCall) entry(now int64) []byte {
	e := Entry{Kind: EntryCall, Time: now, Payload: record(opsProg, 2, c.kind, c.args())}
	return e.Encode()
}

func (p *opsProgram) Number() (uint32, uint32) { return opsProg, 2 }
func (p *opsProgram) Mutates(*Request) bool    { return true }
func (p *opsProgram) InUse(ino Ino) bool       { return p.open[ino] }

func (p *opsProgram) Command(tx *Tx, payload []byte) error {
	tx.Put(9, []byte("command"), payload)
	return nil
}

func (p *opsProgram) Load(tx *Tx) error {
	p.open = map[Ino]bool{}
	return tx.ScanState(9, func(key, value []byte) error {
		if len(key) == 8 {
			p.open[inoOfKey(append([]byte{0}, key...))] = true
		}
		return nil
	})
}

func (p *opsProgram) Execute(tx *Tx, req *Request, reply *xdr.Encoder) rpc.AcceptStat {
	var c opsCall
	if c.decode(req) != nil {
		return rpc.GarbageArgs
	}
	n, data, errno := p.run(tx, &c)
	reply.Uint32(uint32(errno))
	if errno == OK && n != nil {
		reply.Uint64(uint64(n.Ino))
		reply.Opaque(encodeInode(n))
	}
	reply.Opaque(data)
	return rpc.Success
}

func (p *opsProgram) run(tx *Tx, c *opsCall) (n *Inode, data []byte, errno Errno) {
	obj := func(ino Ino) *Inode {
		n, e := tx.Inode(ino, 0)
		if e != OK && errno == OK {
			errno = e
		}
		return n
	}
	switch c.kind {
	case opsCreate, opsMkdir, opsSymlink, opsLookup, opsRemove, opsLink, opsRename:
		dir := obj(c.dir)
		if errno != OK {
			return nil, nil, errno
		}
		return p.runName(tx, c, dir, obj)
	}
	if n = obj(c.ino); errno != OK {
		return nil, nil, errno
	}
	switch c.kind {
	case opsWriteFile:
		n, errno = tx.Write(nil, n, c.off, c.data)
	case opsResize:
		n, errno = tx.SetAttr(nil, n, SetAttr{Size: &c.length}, false)
	case opsDealloc:
		n, errno = tx.Deallocate(n, c.off, c.length)
	case opsAlloc:
		n, errno = tx.Allocate(n, c.off, c.length)
	case opsChmod:
		n, errno = tx.SetAttr(nil, n, SetAttr{Mode: ptr(uint32(c.length))}, false)
	case opsOpen:
		p.open[c.ino] = true
		tx.Put(9, key9(0, uint64(c.ino))[1:], nil)
	case opsClose:
		delete(p.open, c.ino)
		tx.Del(9, key9(0, uint64(c.ino))[1:])
		tx.ReleaseOrphan(c.ino)
	case opsReadFile:
		// Only what is the same on replicas that catch up may be in a reply.
		buf := make([]byte, min(c.length, 1<<20))
		var count int
		count, _, errno = tx.Read(n, c.off, buf)
		data = []byte(fmt.Sprint(count))
		if n.Inline {
			data = buf[:count]
		}
	default:
		errno = ErrNotSupp
	}
	return n, data, errno
}

func (p *opsProgram) runName(tx *Tx, c *opsCall, dir *Inode, obj func(Ino) *Inode) (n *Inode, data []byte, errno Errno) {
	switch c.kind {
	case opsCreate:
		n, errno = tx.Create(nil, dir, c.name, TypeFile, CreateAttr{})
	case opsMkdir:
		n, errno = tx.Mkdir(nil, dir, c.name, SetAttr{})
	case opsSymlink:
		n, errno = tx.Create(nil, dir, c.name, TypeSymlink, CreateAttr{Target: c.name2})
	case opsLookup:
		n, errno = tx.Lookup(nil, dir, c.name)
	case opsRemove:
		errno = tx.Remove(nil, dir, c.name, RemoveAny)
	case opsLink:
		if n = obj(c.ino); n == nil {
			return nil, nil, ErrStale
		}
		errno = tx.Link(nil, n, dir, c.name)
	case opsRename:
		to := obj(c.dir2)
		if to == nil {
			return nil, nil, ErrStale
		}
		errno = tx.Rename(nil, dir, c.name, to, c.name2)
	}
	return n, data, errno
}

// collidingHash makes names collide often.
func collidingHash(name string) uint64 { return uint64(len(name)) % 3 * 7 }

// replica is a volume with an opsProgram.
type replica struct {
	t     testing.TB
	store store.Store
	ops   *opsProgram
	v     *Volume
}

func newReplica(t testing.TB, s store.Store) *replica {
	r := &replica{t: t, store: s}
	r.reopen()
	return r
}

func (r *replica) reopen() {
	r.t.Helper()
	r.ops = &opsProgram{}
	v, err := Open(Config{ID: 7, Name: "test", Store: r.store, Programs: []Program{r.ops}})
	if err != nil {
		r.t.Fatal(err)
	}
	v.hash = collidingHash
	r.v = v
}

func (r *replica) apply(entry []byte) []byte {
	r.t.Helper()
	reply, err := r.v.Apply(r.v.Applied()+1, entry)
	if err != nil {
		r.t.Fatal(err)
	}
	return reply
}

func (r *replica) checksum() Digest {
	r.t.Helper()
	_, sum, err := r.v.Checksum(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	return sum
}

// result is a decoded reply of opsProgram.
type result struct {
	errno Errno
	n     *Inode
	data  []byte
}

func decodeResult(t testing.TB, kind uint32, reply []byte) result {
	t.Helper()
	d := xdr.NewDecoder(reply)
	for range 6 {
		d.Uint32()
	}
	r := result{errno: Errno(d.Uint32())}
	if r.errno == OK && d.Remaining() > 4 && kind != opsRemove && kind != opsRename {
		ino := Ino(d.Uint64())
		n, err := decodeInode(ino, d.Opaque(10000))
		if err != nil {
			t.Fatal(err)
		}
		r.n = n
	}
	r.data = d.Opaque(1 << 20)
	if d.Err() != nil {
		t.Fatal(d.Err())
	}
	return r
}

// randomOps makes operations out of inode numbers that were seen and a few names, so that most of them hit something.
type randomOps struct {
	rnd  *rand.Rand
	inos []Ino
}

func newRandomOps(seed uint64) *randomOps {
	return &randomOps{rnd: rand.New(rand.NewPCG(seed, 7)), inos: []Ino{RootIno}}
}

func (g *randomOps) ino() Ino {
	if g.rnd.IntN(4) == 0 {
		return RootIno
	}
	return g.inos[max(0, len(g.inos)-1-g.rnd.IntN(25))]
}

func (g *randomOps) name() string {
	return []string{"a", "b", "cc", "dd", "e", "ffff", "long name", "x\xff"}[g.rnd.IntN(8)]
}

func (g *randomOps) offset() uint64 {
	base := []uint64{0, 0, 4096, 8192, 20000}[g.rnd.IntN(5)]
	return base + uint64(g.rnd.IntN(3000))
}

func (g *randomOps) next() *opsCall {
	c := &opsCall{
		kind: uint32(g.rnd.IntN(opsKinds)), dir: g.ino(), ino: g.ino(), dir2: g.ino(), name: g.name(), name2: g.name(),
		off: g.offset(), length: g.offset(),
	}
	if g.rnd.IntN(3) == 0 {
		c.kind = opsWriteFile
	}
	switch c.kind {
	case opsWriteFile:
		c.data = bytes.Repeat([]byte{byte(1 + g.rnd.IntN(255))}, 1+g.rnd.IntN(6000))
	case opsChmod:
		c.length &= 0o7777
	}
	return c
}

// seen adds what an operation made to the inodes to play with.
func (g *randomOps) seen(r result) {
	if r.n != nil && r.n.Ino > g.inos[len(g.inos)-1] {
		g.inos = append(g.inos, r.n.Ino)
	}
}
