package loadgen

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"holdfast/internal/nfsclient"
)

// A record is its length, the writer, its number, a checksum of the payload, and the payload.
const (
	recordHeaderBytes = 20
	maxRecordBytes    = 16 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendRecord appends a writer's n-th record, which its numbers determine.
func appendRecord(b []byte, writer int, n uint64) []byte {
	x := (uint64(writer)+1)*0x9e3779b97f4a7c15 + n*0xbf58476d1ce4e5b9
	next := func() uint64 { // splitmix64
		x += 0x9e3779b97f4a7c15
		z := x
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		return z ^ z>>31
	}
	words := 1 + int(next()%((maxRecordBytes-recordHeaderBytes)/8))
	at := len(b)
	b = binary.BigEndian.AppendUint32(b, uint32(recordHeaderBytes+words*8))
	b = binary.BigEndian.AppendUint32(b, uint32(writer))
	b = binary.BigEndian.AppendUint64(b, n)
	b = append(b, 0, 0, 0, 0)
	payload := len(b)
	for range words {
		b = binary.BigEndian.AppendUint64(b, next())
	}
	binary.BigEndian.PutUint32(b[at+16:], crc32.Checksum(b[payload:], castagnoli))
	return b
}

// writer appends records to one file after the other.
type writer struct {
	w      *Workload
	client Client
	id     int
	files  []*written // oldest first; the last one grows
	made   int
	next   uint64 // number of the next record
	buf    []byte
}

// written is a file of acknowledged records.
type written struct {
	name  string
	file  nfsclient.File // nil once it is full
	first uint64         // number of its first record
	acked int            // bytes
}

func (w *Workload) newWriter(ctx context.Context, id int) (worker, error) {
	c, err := w.mount(ctx)
	if err != nil {
		return nil, err
	}
	wr := &writer{w: w, client: c, id: id}
	return wr, wr.newFile(ctx)
}

func (wr *writer) newFile(ctx context.Context) error {
	name := fmt.Sprintf("writer-%d-%d", wr.id, wr.made)
	f, err := wr.client.Open(ctx, wr.w.dir, name, nfsclient.OpenOptions{Create: nfsclient.Guarded, Write: true})
	if err != nil {
		return fmt.Errorf("creating %s: %w", name, err)
	}
	wr.made++
	wr.files = append(wr.files, &written{name: name, file: f, first: wr.next})
	return nil
}

func (wr *writer) step(ctx context.Context) error {
	f := wr.files[len(wr.files)-1]
	if f.file == nil || f.acked >= wr.w.cfg.FileBytes {
		return wr.rotate(ctx, f)
	}
	wr.buf = appendRecord(wr.buf[:0], wr.id, wr.next)
	if err := f.file.Write(ctx, wr.buf, uint64(f.acked), nfsclient.FileSync); err != nil {
		return fmt.Errorf("appending to %s at %d: %w", f.name, f.acked, err)
	}
	f.acked += len(wr.buf)
	wr.next++
	wr.w.did(1, len(wr.buf))
	return nil
}

// rotate goes on in a new file, and gives up the oldest if there are too many.
func (wr *writer) rotate(ctx context.Context, f *written) error {
	if f.file != nil {
		if err := f.file.Close(ctx); err != nil {
			return fmt.Errorf("closing %s: %w", f.name, err)
		}
		f.file = nil
	}
	if len(wr.files) >= wr.w.cfg.Files {
		oldest := wr.files[0]
		if err := wr.check(ctx, wr.client, oldest); err != nil {
			return err
		}
		if err := wr.client.Remove(ctx, wr.w.dir, oldest.name); err != nil {
			return fmt.Errorf("removing %s: %w", oldest.name, err)
		}
		wr.files = wr.files[1:]
	}
	wr.w.did(2, 0)
	return wr.newFile(ctx)
}

func (wr *writer) verify(ctx context.Context, fresh Client) error {
	for _, f := range wr.files {
		if err := wr.check(ctx, fresh, f); err != nil {
			return err
		}
	}
	return nil
}

// check reads a file back and compares every acknowledged byte.
func (wr *writer) check(ctx context.Context, c Client, f *written) error {
	if f.acked == 0 {
		return nil
	}
	file, err := c.Open(ctx, wr.w.dir, f.name, nfsclient.OpenOptions{Read: true})
	if isStatus(err, nfsclient.ErrNoEnt) {
		wr.w.findings.lost(uint64(f.acked), "%s is gone, with %d acknowledged bytes", f.name, f.acked)
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening %s: %w", f.name, err)
	}
	var bad differences
	n := f.first
	got := make([]byte, maxRecordBytes)
	for at := 0; at < f.acked; n++ {
		want := appendRecord(wr.buf[:0], wr.id, n)
		wr.buf = want
		read, _, err := file.Read(ctx, got[:len(want)], uint64(at))
		if err != nil {
			return fmt.Errorf("reading %s at %d: %w", f.name, at, err)
		}
		bad.compare(want, got[:read], at)
		at += len(want)
	}
	if bad.count > 0 {
		wr.w.findings.lost(uint64(bad.count), "%s: %d of %d acknowledged bytes differ, the first at %d", f.name, bad.count, f.acked, bad.first)
	}
	return file.Close(ctx)
}

// differences counts bytes that are not as they were written.
type differences struct{ count, first int }

func (d *differences) compare(want, got []byte, at int) {
	for i := range want {
		if i < len(got) && got[i] == want[i] {
			continue
		}
		if d.count == 0 {
			d.first = at + i
		}
		d.count++
	}
}
