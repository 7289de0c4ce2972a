package backup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"holdfast/internal/volume"
)

// magic is the first line of a stream.
const magic = "Holdfast backup 1\n"

// formatVersion is Header.Format.
const formatVersion = 1

const (
	kindHeader = 'H'
	kindEnd    = 'E'

	recordHeadBytes = 9
	endFieldBytes   = 24
	endBytes        = endFieldBytes + 32
	// maxHeaderBytes and maxRecordBytes bound what a reader takes: a record holds one write of a client or one value of the metadata.
	maxHeaderBytes = 64 << 10
	maxRecordBytes = 64 << 20
)

var (
	// ErrDamaged is returned for a backup whose checksums are wrong, or that cannot have been written by Holdfast.
	ErrDamaged = errors.New("backup: damaged: use another copy of it")
	// ErrTruncated is returned for a backup that ends before its end record.
	ErrTruncated = errors.New("backup: cut off: it was not written, or not copied, to its end")
	// ErrNotBackup is returned for a file that is no backup.
	ErrNotBackup = errors.New("backup: this is not a backup of Holdfast")
	// ErrTooNew is returned for a backup of a newer release.
	ErrTooNew = errors.New("backup: written by a newer release of Holdfast: restore it with that one")
	// ErrChain is returned for backups that do not continue each other: a gap, a wrong order, or another volume.
	ErrChain = errors.New("backup: these backups do not make a chain")
)

// Header says what a backup is of.
type Header struct {
	Format   int       `json:"format"`
	Cluster  string    `json:"cluster"`
	Volume   string    `json:"volume"`
	VolumeID uint32    `json:"volumeID"`
	Since    uint64    `json:"since"` // index of the backup that it continues; 0: a full one
	Begun    time.Time `json:"begun"`
}

// Summary is what is known of a whole backup.
type Summary struct {
	Header
	Index  uint64    // the log index that it is of
	Ended  time.Time // when the index was reached
	Pieces uint64
	Bytes  int64 // of the stream
}

// Full reports whether the backup needs no other.
func (h *Header) Full() bool { return h.Since == 0 }

// String returns the summary in words.
func (s *Summary) String() string {
	kind := "full"
	if !s.Full() {
		kind = fmt.Sprintf("since %d", s.Since)
	}
	return fmt.Sprintf("volume %s (%d) at %d, %s", s.Volume, s.VolumeID, s.Index, kind)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// beginRecord makes room for a record's head in b; endRecord fills it in once the body is behind it.
func beginRecord(b []byte) []byte { return append(b, make([]byte, recordHeadBytes)...) }

func endRecord(b []byte, at int, kind byte) []byte {
	head := b[at : at+recordHeadBytes]
	head[0] = kind
	binary.BigEndian.PutUint32(head[1:], uint32(len(b)-at-recordHeadBytes))
	sum := crc32.Update(crc32.Checksum(head[:5], castagnoli), castagnoli, b[at+recordHeadBytes:])
	binary.BigEndian.PutUint32(head[5:], sum)
	return b
}

// appendPiece appends the record of a piece.
func appendPiece(b []byte, p *volume.Piece) []byte {
	at := len(b)
	b = beginRecord(b)
	b = binary.AppendUvarint(b, uint64(p.Ino))
	b = binary.AppendUvarint(b, p.Off)
	b = binary.AppendUvarint(b, p.Length)
	b = binary.AppendUvarint(b, uint64(len(p.Key)))
	b = append(b, p.Key...)
	b = append(b, p.Data...)
	return endRecord(b, at, byte(p.Kind))
}

// decodePiece is the inverse of appendPiece, for the body alone. The piece aliases it.
func decodePiece(kind byte, body []byte, p *volume.Piece) error {
	var fields [4]uint64
	for i := range fields {
		v, n := binary.Uvarint(body)
		if n <= 0 {
			return fmt.Errorf("%w: a piece is cut off", ErrDamaged)
		}
		fields[i], body = v, body[n:]
	}
	if fields[3] > uint64(len(body)) {
		return fmt.Errorf("%w: a key sticks out of its record", ErrDamaged)
	}
	*p = volume.Piece{
		Kind: volume.PieceKind(kind), Ino: volume.Ino(fields[0]), Off: fields[1], Length: fields[2], Key: body[:fields[3]], Data: body[fields[3]:],
	}
	return nil
}
