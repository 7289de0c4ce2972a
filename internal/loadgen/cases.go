package loadgen

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"holdfast/internal/nfsclient"
)

// seqWrite writes a file in large chunks, several under way, and ends with an fsync that is part of the time.
func (b *bench) seqWrite(ctx context.Context) error {
	f, err := b.client.Open(ctx, b.dir, "sequential", nfsclient.OpenOptions{Create: nfsclient.Guarded})
	if err != nil {
		return err
	}
	b.file = f
	chunk := make([]byte, chunkBytes)
	rng := rand.NewChaCha8([32]byte{})
	_, _ = rng.Read(chunk) // never fails; data that a clever disk cannot squeeze
	chunks := int(max(b.cfg.Bytes/chunkBytes, 1))
	r, err := measure(ctx, plan{inFlight: chunksInFlight, count: chunks}, b.cpu, func(ctx context.Context, _, i int) error {
		return f.Write(ctx, chunk, uint64(i)*chunkBytes, nfsclient.Unstable)
	})
	if err != nil {
		return err
	}
	before, start := b.cpu.read(), time.Now()
	if err := f.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	r.Seconds += time.Since(start).Seconds()
	r.CPUSeconds += b.cpu.read() - before
	r.Name, r.Version, r.Bytes = "sequential write with fsync, 1 MiB", b.client.Version(), int64(chunks)*chunkBytes
	b.add(r)
	return nil
}

// seqRead reads the file of seqWrite. It comes from the server's page cache: what is measured is the server, not the disk.
func (b *bench) seqRead(ctx context.Context) error {
	select {
	case <-time.After(b.cfg.Settle):
	case <-ctx.Done():
		return ctx.Err()
	}
	bufs := make([][]byte, chunksInFlight)
	for i := range bufs {
		bufs[i] = make([]byte, chunkBytes)
	}
	chunks := int(max(b.cfg.Bytes/chunkBytes, 1))
	return b.run(ctx, "sequential read, 1 MiB", plan{inFlight: chunksInFlight, count: chunks}, chunkBytes, func(ctx context.Context, worker, i int) error {
		n, _, err := b.file.Read(ctx, bufs[worker], uint64(i)*chunkBytes)
		if err == nil && n != chunkBytes {
			err = io.ErrUnexpectedEOF
		}
		return err
	})
}

// syncWrite overwrites 4 KiB blocks of a file, each stable before the next one of that worker.
func (b *bench) syncWrite(ctx context.Context) error {
	const blocks = 1024
	f, err := b.client.Open(ctx, b.dir, "sync", nfsclient.OpenOptions{Create: nfsclient.Guarded})
	if err != nil {
		return err
	}
	if err := f.Write(ctx, make([]byte, blocks*smallBytes), 0, nfsclient.FileSync); err != nil {
		return err
	}
	block := make([]byte, smallBytes)
	for _, inFlight := range []int{1, manyInFlight} {
		name := fmt.Sprintf("4 KiB O_SYNC write, %d in flight", inFlight)
		err := b.run(ctx, name, plan{inFlight: inFlight, duration: b.cfg.Duration}, smallBytes, func(ctx context.Context, _, i int) error {
			return f.Write(ctx, block, uint64(i%blocks)*smallBytes, nfsclient.FileSync)
		})
		if err != nil {
			return err
		}
	}
	return f.Close(ctx)
}

// smallFiles creates, writes and closes files of 4 KiB, half of them one at a time and half with several under way.
func (b *bench) smallFiles(ctx context.Context) error {
	for i := range smallFolders {
		h, err := b.client.Mkdir(ctx, b.dir, fmt.Sprintf("small-%d", i), 0o755)
		if err != nil {
			return err
		}
		b.folders = append(b.folders, h)
	}
	b.files = make([]nfsclient.Handle, b.cfg.Files)
	data := make([]byte, smallBytes)
	first := 0
	for _, inFlight := range []int{1, manyInFlight} {
		count := b.cfg.Files / 2
		if first > 0 {
			count = b.cfg.Files - first
		}
		name := fmt.Sprintf("create, write 4 KiB, close, %d in flight", inFlight)
		err := b.run(ctx, name, plan{inFlight: inFlight, count: count}, smallBytes, func(ctx context.Context, _, i int) error {
			return b.smallFile(ctx, first+i, data)
		})
		if err != nil {
			return err
		}
		first += count
	}
	return nil
}

func smallName(i int) string { return fmt.Sprintf("file-%d", i) }

func (b *bench) smallFile(ctx context.Context, i int, data []byte) error {
	f, err := b.client.Open(ctx, b.folders[i%smallFolders], smallName(i), nfsclient.OpenOptions{Create: nfsclient.Guarded, Write: true})
	if err != nil {
		return err
	}
	b.files[i] = f.Handle()
	if err := f.Write(ctx, data, 0, nfsclient.FileSync); err != nil {
		return err
	}
	return f.Close(ctx)
}

// stat asks for the attributes of the small files, by handle and by name.
func (b *bench) stat(ctx context.Context) error {
	n := b.cfg.Files
	for _, inFlight := range []int{1, manyInFlight} {
		p := plan{inFlight: inFlight, duration: b.cfg.Duration / 2}
		err := b.run(ctx, fmt.Sprintf("GETATTR, %d in flight", inFlight), p, 0, func(ctx context.Context, _, i int) error {
			_, err := b.client.GetAttr(ctx, b.files[i%n])
			return err
		})
		if err != nil {
			return err
		}
		err = b.run(ctx, fmt.Sprintf("LOOKUP, %d in flight", inFlight), p, 0, func(ctx context.Context, _, i int) error {
			_, _, err := b.client.Lookup(ctx, b.folders[i%n%smallFolders], smallName(i%n))
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// remove removes the small files.
func (b *bench) remove(ctx context.Context) error {
	err := b.run(ctx, fmt.Sprintf("remove, %d in flight", manyInFlight), plan{inFlight: manyInFlight, count: b.cfg.Files}, 0, func(ctx context.Context, _, i int) error {
		return b.client.Remove(ctx, b.folders[i%smallFolders], smallName(i))
	})
	b.files = nil
	return err
}

// readDir fills a directory, lists it without and with attributes, and empties it.
func (b *bench) readDir(ctx context.Context) error {
	dir, err := b.client.Mkdir(ctx, b.dir, "many", 0o755)
	if err != nil {
		return err
	}
	fill := plan{inFlight: prepareInFlight, count: b.cfg.Entries}
	err = b.run(ctx, fmt.Sprintf("create empty file, %d in flight", prepareInFlight), fill, 0, func(ctx context.Context, _, i int) error {
		f, err := b.client.Open(ctx, dir, smallName(i), nfsclient.OpenOptions{Create: nfsclient.Guarded, Write: true})
		if err != nil {
			return err
		}
		return f.Close(ctx)
	})
	if err != nil {
		return err
	}
	for _, attrs := range []bool{false, true} {
		if err := b.list(ctx, dir, attrs); err != nil {
			return err
		}
	}
	return b.run(ctx, fmt.Sprintf("remove from a large directory, %d in flight", prepareInFlight), fill, 0, func(ctx context.Context, _, i int) error {
		return b.client.Remove(ctx, dir, smallName(i))
	})
}

// list measures a whole listing; its operations are entries, and it has no latencies.
func (b *bench) list(ctx context.Context, dir nfsclient.Handle, attrs bool) error {
	r := Result{Name: fmt.Sprintf("readdir of %d entries", b.cfg.Entries), Version: b.client.Version(), InFlight: 1}
	if attrs {
		r.Name += " with attributes"
	}
	before, start := b.cpu.read(), time.Now()
	err := b.client.ReadDir(ctx, dir, attrs, func(nfsclient.DirEntry) error {
		r.Ops++
		return nil
	})
	if err != nil {
		return err
	}
	r.Seconds, r.CPUSeconds = time.Since(start).Seconds(), b.cpu.read()-before
	if r.Ops != b.cfg.Entries {
		return fmt.Errorf("%d of %d entries were listed", r.Ops, b.cfg.Entries)
	}
	b.add(r)
	return nil
}
