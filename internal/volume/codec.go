package volume

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Keys of the metadata store. Everything but the local and the effect keys is the same on every replica at the same applied index.
const (
	prefixClient  = 'c' // sequence u64 -> address 16 bytes, port u16
	prefixDirent  = 'd' // directory u64, cookie u64 -> inode u64, type u8, flags u8, name
	prefixEffects = 'e' // log index u64 -> object changes of that entry (local: dropped at checkpoints)
	prefixInline  = 'f' // inode u64 -> content
	prefixInode   = 'i' // inode u64 -> inode
	prefixMeta    = 'm' // name -> value: the records below
	prefixOrphan  = 'o' // inode u64 -> nothing: has no name but is open
	prefixProgram = 'p' // program u8, key -> value
	prefixLocal   = 'x' // name -> value: what this replica alone knows
)

var (
	keyState      = []byte("mstate")      // state record
	keyExports    = []byte("mexports")    // export table
	keySpace      = []byte("mspace")      // total u64, free u64
	keyHistory    = []byte("mhistory")    // restores: for each the backup's index u64, the first index afterwards u64
	keyCheckpoint = []byte("xcheckpoint") // index u64: object writes up to it are durable
	keyAhead      = []byte("xahead")      // index u64: objects may be as of it, by the snapshot that they came with
	keyValid      = []byte("xvalid")      // u8: 0 while an Install is unfinished
)

// errCorrupt is returned for metadata that cannot have been written by this program.
var errCorrupt = errors.New("volume: metadata is corrupt")

// state is the part of the volume's state that changes with almost every entry.
type state struct {
	applied    uint64
	lastTime   int64  // Tx.Now of the last entry
	nextIno    Ino    // the next inode number
	inodes     uint64 // that exist, orphans included
	nextClient uint64 // sequence of the next client
	version    uint32 // cluster version
	used       uint64 // what the inodes cost; means nothing before usageVersion
	limit      uint64 // of used; 0: none
}

const (
	stateBytes = 44
	// stateUsageBytes follow from usageVersion on.
	stateUsageBytes = 16
)

func (s *state) encode() []byte {
	b := make([]byte, 0, stateBytes+stateUsageBytes)
	b = binary.BigEndian.AppendUint64(b, s.applied)
	b = binary.BigEndian.AppendUint64(b, uint64(s.lastTime))
	b = binary.BigEndian.AppendUint64(b, uint64(s.nextIno))
	b = binary.BigEndian.AppendUint64(b, s.inodes)
	b = binary.BigEndian.AppendUint64(b, s.nextClient)
	b = binary.BigEndian.AppendUint32(b, s.version)
	if s.version < usageVersion {
		return b
	}
	b = binary.BigEndian.AppendUint64(b, s.used)
	return binary.BigEndian.AppendUint64(b, s.limit)
}

func decodeState(b []byte) (state, error) {
	if len(b) < stateBytes {
		return state{}, fmt.Errorf("%w: state record of %d bytes", errCorrupt, len(b))
	}
	s := state{
		applied:    binary.BigEndian.Uint64(b),
		lastTime:   int64(binary.BigEndian.Uint64(b[8:])),
		nextIno:    Ino(binary.BigEndian.Uint64(b[16:])),
		inodes:     binary.BigEndian.Uint64(b[24:]),
		nextClient: binary.BigEndian.Uint64(b[32:]),
		version:    binary.BigEndian.Uint32(b[40:]),
	}
	if s.version > MaxVersion {
		return state{}, fmt.Errorf("volume: state of cluster version %d; this program knows only up to %d: install a newer one", s.version, MaxVersion)
	}
	b = b[stateBytes:]
	switch {
	case s.version < usageVersion && len(b) == 0:
	case s.version >= usageVersion && len(b) == stateUsageBytes:
		s.used, s.limit = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	default:
		return state{}, fmt.Errorf("%w: state record of version %d with %d bytes too many", errCorrupt, s.version, len(b))
	}
	return s, nil
}

// key9 is a prefix byte and a number.
func key9(prefix byte, n uint64) []byte {
	k := make([]byte, 9)
	k[0] = prefix
	binary.BigEndian.PutUint64(k[1:], n)
	return k
}

func inodeKey(ino Ino) []byte          { return key9(prefixInode, uint64(ino)) }
func inlineKey(ino Ino) []byte         { return key9(prefixInline, uint64(ino)) }
func orphanKey(ino Ino) []byte         { return key9(prefixOrphan, uint64(ino)) }
func effectsKey(index uint64) []byte   { return key9(prefixEffects, index) }
func clientKey(sequence uint64) []byte { return key9(prefixClient, sequence) }

func direntKey(dir Ino, cookie uint64) []byte {
	k := make([]byte, 17)
	k[0] = prefixDirent
	binary.BigEndian.PutUint64(k[1:], uint64(dir))
	binary.BigEndian.PutUint64(k[9:], cookie)
	return k
}

// Inode records: version u8, flags u8, type u8, zero u8, then the fixed fields in the order of encodeInode, the verifier if flagged, the target.
const (
	inodeVersion    = 1
	inodeFixedBytes = 4 + 5*4 + 10*8

	inodeInline   = 1
	inodeSparse   = 2
	inodeVerifier = 4
)

func encodeInode(n *Inode) []byte {
	var flags byte
	if n.Inline {
		flags |= inodeInline
	}
	if n.Sparse {
		flags |= inodeSparse
	}
	if n.HasVerifier {
		flags |= inodeVerifier
	}
	b := make([]byte, 0, inodeFixedBytes+8+len(n.Target))
	b = append(b, inodeVersion, flags, byte(n.Type), 0)
	for _, v := range [...]uint32{n.Gen, n.Mode, n.Nlink, n.UID, n.GID} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	for _, v := range [...]uint64{n.Size, n.Used, n.Rdev, uint64(n.Atime), uint64(n.Mtime), uint64(n.Ctime), uint64(n.Btime),
		n.Change, uint64(n.Parent), n.Entries} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	if n.HasVerifier {
		b = append(b, n.Verifier[:]...)
	}
	return append(b, n.Target...)
}

func decodeInode(ino Ino, b []byte) (*Inode, error) {
	if len(b) < inodeFixedBytes || b[0] != inodeVersion {
		return nil, fmt.Errorf("%w: inode %d: record of %d bytes", errCorrupt, ino, len(b))
	}
	u32 := func(i int) uint32 { return binary.BigEndian.Uint32(b[4+4*i:]) }
	u64 := func(i int) uint64 { return binary.BigEndian.Uint64(b[24+8*i:]) }
	n := &Inode{
		Ino: ino, Type: FileType(b[2]),
		Gen: u32(0), Mode: u32(1), Nlink: u32(2), UID: u32(3), GID: u32(4),
		Size: u64(0), Used: u64(1), Rdev: u64(2),
		Atime: int64(u64(3)), Mtime: int64(u64(4)), Ctime: int64(u64(5)), Btime: int64(u64(6)),
		Change: u64(7), Parent: Ino(u64(8)), Entries: u64(9),
		Inline: b[1]&inodeInline != 0, Sparse: b[1]&inodeSparse != 0, HasVerifier: b[1]&inodeVerifier != 0,
	}
	rest := b[inodeFixedBytes:]
	if n.HasVerifier {
		if len(rest) < 8 {
			return nil, fmt.Errorf("%w: inode %d: verifier is cut off", errCorrupt, ino)
		}
		rest = rest[copy(n.Verifier[:], rest):]
	}
	n.Target = string(rest)
	n.counted = n.cost()
	return n, nil
}

// dirent is a record of a directory. A tombstone holds the place of a removed first ordinal while others of its hash live.
type dirent struct {
	ino  Ino // 0: tombstone
	typ  FileType
	more bool // ordinal 0 only: entries with the same hash exist at higher ordinals
	name string
}

func (d *dirent) encode() []byte {
	b := make([]byte, 10, 10+len(d.name))
	binary.BigEndian.PutUint64(b, uint64(d.ino))
	b[8] = byte(d.typ)
	if d.more {
		b[9] = 1
	}
	return append(b, d.name...)
}

func decodeDirent(b []byte) (dirent, error) {
	if len(b) < 10 {
		return dirent{}, fmt.Errorf("%w: directory entry of %d bytes", errCorrupt, len(b))
	}
	return dirent{
		ino:  Ino(binary.BigEndian.Uint64(b)),
		typ:  FileType(b[8]),
		more: b[9]&1 != 0,
		name: string(b[10:]),
	}, nil
}
