package volume

import (
	"encoding/binary"
	"hash/crc32"
)

// HandleBytes is the length of an encoded Handle; both NFSv3 (64 bytes) and NFSv4 (128 bytes) have room for it.
const HandleBytes = 28

const handleVersion = 1

// handleTable is CRC-32C: hardware computes it on every machine we run on.
var handleTable = crc32.MakeTable(crc32.Castagnoli)

// AppendHandle appends the encoding of h to b: version u8, three zero bytes, export u32, volume u32, inode u64, generation u32 and a
// CRC-32C of those 24 bytes, all big-endian. The layout is fixed for ever, as clients keep handles across restarts and upgrades. The checksum
// is no secret: it only tells a damaged handle (NFS4ERR_BADHANDLE) from one of a file that is gone (NFS4ERR_STALE).
func AppendHandle(b []byte, h Handle) []byte {
	at := len(b)
	b = append(b, handleVersion, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, h.Export)
	b = binary.BigEndian.AppendUint32(b, h.Volume)
	b = binary.BigEndian.AppendUint64(b, uint64(h.Ino))
	b = binary.BigEndian.AppendUint32(b, h.Gen)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[at:], handleTable))
}

// EncodeHandle returns the encoding that AppendHandle describes.
func EncodeHandle(h Handle) [HandleBytes]byte {
	var out [HandleBytes]byte
	AppendHandle(out[:0], h)
	return out
}

// DecodeHandle is the inverse of EncodeHandle. It returns ErrBadHandle for bytes that EncodeHandle never returned. Whether the
// volume, the export and the inode exist is the caller's to find out.
func DecodeHandle(b []byte) (Handle, Errno) {
	if len(b) != HandleBytes || b[0] != handleVersion || b[1]|b[2]|b[3] != 0 {
		return Handle{}, ErrBadHandle
	}
	if crc32.Checksum(b[:24], handleTable) != binary.BigEndian.Uint32(b[24:]) {
		return Handle{}, ErrBadHandle
	}
	return Handle{
		Export: binary.BigEndian.Uint32(b[4:]),
		Volume: binary.BigEndian.Uint32(b[8:]),
		Ino:    Ino(binary.BigEndian.Uint64(b[12:])),
		Gen:    binary.BigEndian.Uint32(b[20:]),
	}, OK
}
