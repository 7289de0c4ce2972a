package drill

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"time"

	"holdfast/internal/nfsclient"
	"holdfast/internal/rpc"
)

const (
	// RecordBytes is the size of each write.
	RecordBytes = 4096
	places      = 256 // of the file, written to in turn
	// FilePrefix begins the name of the file that a drill writes.
	FilePrefix = ".holdfast-drill-"
	holder     = "holder"
	tester     = "tester"
)

// probe writes small records, each stable before the next, while it holds a lock on all of the file.
type probe struct {
	client, other   Client
	file, otherFile File
	name            string
	acks            ackLog

	quit    chan struct{} // closed by stop
	stopped chan struct{} // closed when the writer has ended

	mu       sync.Mutex // guards the fields below
	next     uint64     // number of the next write; all before it are acknowledged
	writeErr error
	failed   []string
}

// newProbe mounts twice, makes the file and takes the lock.
func newProbe(ctx context.Context, cfg *Config) (_ *probe, err error) {
	ctx, cancel := context.WithTimeout(ctx, mountTimeout)
	defer cancel()
	var random [6]byte
	_, _ = rand.Read(random[:]) // never fails
	p := &probe{name: FilePrefix + hex.EncodeToString(random[:]), quit: make(chan struct{}), stopped: make(chan struct{})}
	defer func() {
		if err != nil {
			cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
			defer cancel()
			err = errors.Join(err, p.close(cleanup))
		}
	}()
	auth, err := p.whom(ctx, cfg)
	if err != nil {
		return nil, err
	}
	for _, c := range []struct {
		client *Client
		file   *File
		create nfsclient.CreateMode
	}{{&p.client, &p.file, nfsclient.Guarded}, {&p.other, &p.otherFile, nfsclient.NoCreate}} {
		m, err := cfg.Mount(ctx, nfsclient.Config{Address: cfg.Address, From: cfg.From, Export: cfg.Export, Auth: auth})
		if err != nil {
			return nil, explainMount(cfg, err)
		}
		*c.client = m
		if *c.file, err = m.OpenFile(ctx, m.Root(), p.name, nfsclient.OpenOptions{Create: c.create, Mode: 0o600}); err != nil {
			return nil, explainOpen(cfg, auth, err)
		}
	}
	if err := p.file.Lock(ctx, holder, nfsclient.WriteLock, 0, nfsclient.ToEnd); err != nil {
		return nil, fmt.Errorf("lock the file of the drill: %w", err)
	}
	return p, nil
}

// whom returns who the drill's client is: the owner of the export's folder. It may write there, and unlike root no export makes it somebody else, unless all are.
func (p *probe) whom(ctx context.Context, cfg *Config) (*rpc.Auth, error) {
	auth := &rpc.Auth{Flavor: rpc.AuthSys, Machine: "holdfast-drill"}
	m, err := cfg.Mount(ctx, nfsclient.Config{Address: cfg.Address, From: cfg.From, Export: cfg.Export, Auth: auth})
	if err != nil {
		return nil, explainMount(cfg, err)
	}
	attr, err := m.GetAttr(ctx, m.Root())
	if err := errors.Join(err, m.Close(ctx)); err != nil {
		return nil, fmt.Errorf("look at the folder of %s: %w", cfg.Export, err)
	}
	auth.UID, auth.GID = attr.UID, attr.GID
	return auth, nil
}

func explainOpen(cfg *Config, auth *rpc.Auth, err error) error {
	var status nfsclient.Status
	if !errors.As(err, &status) {
		return fmt.Errorf("make a file in %s: %w", cfg.Export, err)
	}
	switch status {
	case nfsclient.ErrROFS:
		return fmt.Errorf("this machine may only read %s: give its address the option rw in the export's clients, or name another export with --export: %w", cfg.Export, err)
	case nfsclient.ErrAccess, nfsclient.ErrPerm:
		return fmt.Errorf("this machine may not write to %s as user %d, who owns its folder: its export rules make that user somebody else (root_squash, all_squash). Give this machine no_root_squash, or name another export with --export: %w",
			cfg.Export, auth.UID, err)
	}
	return fmt.Errorf("make a file in %s: %w", cfg.Export, err)
}

// record is the content of write number n.
func record(n uint64) []byte {
	b := make([]byte, RecordBytes)
	binary.BigEndian.PutUint64(b, n)
	for i := 8; i < RecordBytes-4; i++ {
		b[i] = byte(n) + byte(i)
	}
	binary.BigEndian.PutUint32(b[RecordBytes-4:], crc32.ChecksumIEEE(b[:RecordBytes-4]))
	return b
}

func place(n uint64) uint64 { return n % places * RecordBytes }

// start begins to write, until stop, an error, or the end of ctx.
func (p *probe) start(ctx context.Context, patience time.Duration) {
	go func() {
		defer close(p.stopped)
		for {
			select {
			case <-p.quit:
				return
			default:
			}
			begin := time.Now()
			if err := p.write(ctx, patience); err != nil {
				p.mu.Lock()
				p.writeErr = err
				p.mu.Unlock()
				return
			}
			p.acks.add(begin, time.Now())
		}
	}()
}

func (p *probe) write(ctx context.Context, patience time.Duration) error {
	n := p.written()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := p.file.Write(ctx, record(n), place(n), nfsclient.FileSync); err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("a write was not acknowledged within %v: %w", patience, err)
		}
		return fmt.Errorf("a write failed: %w", err)
	}
	p.mu.Lock()
	p.next = n + 1
	p.mu.Unlock()
	return nil
}

// written returns how many writes were acknowledged.
func (p *probe) written() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next
}

// calm lets the writer write for a while, from its next acknowledgement on. It reports whether the writer has ended meanwhile.
func (p *probe) calm(ctx context.Context, d time.Duration) (stopped bool) {
	for before := p.acks.count(); p.acks.count() == before; {
		select {
		case <-p.stopped:
			return true
		case <-p.acks.wait():
		}
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.stopped:
		return true
	case <-ctx.Done():
		return true
	case <-t.C:
		return false
	}
}

// stop lets the writer finish what it is about and returns why it ended before, if it did.
func (p *probe) stop() error {
	close(p.quit)
	<-p.stopped
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.writeErr
}

func (p *probe) fail(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = append(p.failed, fmt.Sprintf(format, args...))
}

func (p *probe) failures() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

// testLock checks from another client that the lock is held.
func (p *probe) testLock(ctx context.Context) {
	err := p.otherFile.TestLock(ctx, tester, nfsclient.ReadLock, 0, RecordBytes)
	switch {
	case err == nil:
		p.fail("a lock was lost: another client could take it")
	case !errors.Is(err, nfsclient.ErrDenied):
		p.fail("test the lock: %v", err)
	}
}

// verify reads back from the other client what was acknowledged, and gives the lock up.
func (p *probe) verify(ctx context.Context, patience time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	p.testLock(ctx)
	if err := p.file.Unlock(ctx, holder, 0, nfsclient.ToEnd); err != nil {
		p.fail("give up the lock: %v", err)
	}
	next := p.written()
	got := make([]byte, RecordBytes)
	// The write after the last one acknowledged may have been cut off, and then its place holds either.
	for n := next - min(next, places-1); n < next; n++ {
		read, _, err := p.otherFile.Read(ctx, got, place(n))
		if err != nil {
			p.fail("read back write number %d: %v", n, err)
			return
		}
		if string(got[:read]) != string(record(n)) {
			p.fail("write number %d was acknowledged and is not there", n)
		}
	}
}

// close removes the file and everything that the clients have on the server, as far as it was made.
func (p *probe) close(ctx context.Context) error {
	var errs []error
	for _, f := range []File{p.file, p.otherFile} {
		if f != nil {
			errs = append(errs, f.Close(ctx))
		}
	}
	if p.file != nil {
		errs = append(errs, p.client.Remove(ctx, p.client.Root(), p.name))
	}
	for _, c := range []Client{p.client, p.other} {
		if c != nil {
			errs = append(errs, c.Close(ctx))
		}
	}
	return errors.Join(errs...)
}
