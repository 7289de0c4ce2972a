package backup

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"holdfast/internal/rpc"
	"holdfast/internal/store"
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

// script is a program each of whose calls does a few random operations, which follow from the number in the call and the state.
type script struct{ restored int }

const (
	scriptProg = 0x20000003
	testVolume = 7
)

func (p *script) Number() (uint32, uint32)            { return scriptProg, 1 }
func (p *script) Mutates(*volume.Request) bool        { return true }
func (p *script) Command(*volume.Tx, []byte) error    { return nil }
func (p *script) Load(*volume.Tx) error               { return nil }
func (p *script) InUse(volume.Ino) bool               { return false }
func (p *script) Restored(tx *volume.Tx, rand uint64) { p.restored++ }

func (p *script) Execute(tx *volume.Tx, req *volume.Request, reply *xdr.Encoder) rpc.AcceptStat {
	rnd := rand.New(rand.NewPCG(xdr.NewDecoder(req.Call.Args).Uint64(), 1))
	tx.Put(9, []byte("last"), binary.BigEndian.AppendUint64(nil, rnd.Uint64()))
	for range 1 + rnd.IntN(3) {
		p.operate(tx, rnd)
	}
	return rpc.Success
}

func (p *script) operate(tx *volume.Tx, rnd *rand.Rand) {
	root, _ := tx.Inode(volume.RootIno, 0)
	dir, errno := tx.Inode(volume.Ino(1+rnd.IntN(30)), 0)
	if errno != volume.OK || dir.Type != volume.TypeDir {
		dir = root
	}
	name := fmt.Sprint(rnd.IntN(40))
	n, errno := tx.Lookup(nil, dir, name)
	off := uint64(rnd.IntN(5)) * 20_000
	switch kind := rnd.IntN(20); {
	case kind == 0:
		tx.Mkdir(nil, dir, name, volume.SetAttr{})
	case errno != volume.OK:
		tx.Create(nil, dir, name, volume.TypeFile, volume.CreateAttr{})
	case kind == 1:
		tx.Remove(nil, dir, name, volume.RemoveAny)
	case kind == 2:
		tx.Rename(nil, dir, name, root, fmt.Sprint(rnd.IntN(40)))
	case kind == 3:
		tx.Link(nil, n, root, fmt.Sprint(rnd.IntN(40)))
	case kind == 4:
		tx.SetAttr(nil, n, volume.SetAttr{Size: &off}, true)
	case kind == 5:
		tx.Deallocate(n, off, 10_000)
	default:
		tx.Write(nil, n, off+uint64(rnd.IntN(9000)), bytes.Repeat([]byte{byte(rnd.Uint32())}, 1+rnd.IntN(12_000)))
	}
}

// member is a replica and the log that it applied.
type member struct {
	t *testing.T
	v *volume.Volume

	mu  sync.Mutex
	log [][]byte
	rnd *rand.Rand
}

func config(s store.Store) volume.Config {
	return volume.Config{ID: testVolume, Name: "home", Store: s, Programs: []volume.Program{&script{}}}
}

func newMember(t *testing.T, s store.Store, seed uint64) *member {
	t.Helper()
	v, err := volume.Open(config(s))
	if err != nil {
		t.Fatal(err)
	}
	return &member{t: t, v: v, rnd: rand.New(rand.NewPCG(seed, 2))}
}

// advance applies n more entries.
func (m *member) advance(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for range n {
		var e xdr.Encoder
		for _, v := range []uint32{99, 0, 2, scriptProg, 1, 0, 0, 0, 0, 0} {
			e.Uint32(v)
		}
		e.Uint64(m.rnd.Uint64())
		m.log = append(m.log, (&volume.Entry{Kind: volume.EntryCall, Time: int64(len(m.log)), Payload: e.Bytes()}).Encode())
		if _, err := m.v.Apply(uint64(len(m.log)), m.log[len(m.log)-1]); err != nil {
			m.t.Error(err)
		}
	}
}

// digests returns what a replica's state is at the given indexes of the log.
func (m *member) digests(indexes ...uint64) []volume.Digest {
	m.t.Helper()
	r := newMember(m.t, store.NewMem(), 0)
	var out []volume.Digest
	for _, index := range indexes {
		for at := r.v.Applied() + 1; at <= index; at++ {
			if _, err := r.v.Apply(at, m.log[at-1]); err != nil {
				m.t.Fatal(err)
			}
		}
		_, sum, err := r.v.Checksum(context.Background())
		if err != nil {
			m.t.Fatal(err)
		}
		out = append(out, sum)
	}
	return out
}

func (m *member) backup(since uint64) ([]byte, Summary) {
	m.t.Helper()
	var b bytes.Buffer
	s, err := Write(context.Background(), m.v, &b, Options{Cluster: "c", Since: since, SpoolDir: m.t.TempDir()})
	if err != nil {
		m.t.Fatal(err)
	}
	return b.Bytes(), s
}

// restoredDigests restores a chain and returns its state after each backup.
func restoredDigests(t *testing.T, chain ...[]byte) []volume.Digest {
	t.Helper()
	out, err := volume.NewRestorer(store.NewMem())
	if err != nil {
		t.Fatal(err)
	}
	in := NewReader(bytes.NewReader(bytes.Join(chain, nil)))
	var sums []volume.Digest
	for {
		if _, err := in.Begin(); err == io.EOF {
			return sums
		} else if err != nil {
			t.Fatal(err)
		}
		if err := restorePart(context.Background(), in, out); err != nil {
			t.Fatal(err)
		}
		sum, err := out.Checksum(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, sum)
	}
}
