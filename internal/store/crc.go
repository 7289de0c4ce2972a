package store

import (
	"context"
	"errors"
	"hash/crc32"
)

// checksumBytes is how much of an object is read at once.
const checksumBytes = 256 << 10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crcZeros returns the CRC-32C of data followed by n zero bytes, given the CRC of data, in time proportional to log n. Appending one zero bit is a linear map over
// GF(2) on the CRC register; its powers come by squaring (the method of zlib's crc32_combine).
func crcZeros(crc uint32, n int64) uint32 {
	if n <= 0 {
		return crc
	}
	var odd, even [32]uint32
	odd[0] = crc32.Castagnoli
	for i, row := 1, uint32(1); i < 32; i, row = i+1, row<<1 {
		odd[i] = row
	}
	square(&even, &odd) // two zero bits
	square(&odd, &even) // four
	// The register is inverted at both ends of a CRC; the map works on the register itself.
	reg := ^crc
	for n > 0 {
		square(&even, &odd)
		if n&1 != 0 {
			reg = times(&even, reg)
		}
		n >>= 1
		if n == 0 {
			break
		}
		square(&odd, &even)
		if n&1 != 0 {
			reg = times(&odd, reg)
		}
		n >>= 1
	}
	return ^reg
}

func times(m *[32]uint32, v uint32) uint32 {
	var sum uint32
	for i := 0; v != 0; i, v = i+1, v>>1 {
		if v&1 != 0 {
			sum ^= m[i]
		}
	}
	return sum
}

func square(dst, m *[32]uint32) {
	for i := range dst {
		dst[i] = times(m, m[i])
	}
}

// checksumObject is ObjectChecksum by way of SeekObject and ReadObject: holes cost nothing, however large.
func checksumObject(ctx context.Context, s Store, id uint64, size int64) (uint32, error) {
	var crc uint32
	var buf []byte
	for off := int64(0); off < size; {
		data, err := s.SeekObject(id, off, false)
		if errors.Is(err, ErrNoData) || err == nil && data >= size {
			return crcZeros(crc, size-off), nil
		}
		if err != nil {
			return 0, err
		}
		crc = crcZeros(crc, data-off)
		end, err := s.SeekObject(id, data, true)
		if errors.Is(err, ErrNoData) { // cut short meanwhile
			end, err = data, nil
		}
		if err != nil {
			return 0, err
		}
		end = min(max(end, data+1), size)
		for off = data; off < end; {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			if want := min(checksumBytes, end-off); int64(len(buf)) < want {
				buf = make([]byte, want)
			}
			part := buf[:min(int64(len(buf)), end-off)]
			if err := s.ReadObject(id, off, part); err != nil {
				return 0, err
			}
			crc = crc32.Update(crc, castagnoli, part)
			off += int64(len(part))
		}
	}
	return crc, nil
}
