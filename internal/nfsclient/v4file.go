package nfsclient

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"sync"
)

// Values of OPEN's arguments and results (RFC 8881 section 18.16).
const (
	accessRead   = 1
	accessWrite  = 2
	wantNoDeleg  = 0x400
	claimNull    = 0
	delegNone    = 0
	delegNoneExt = 3
)

// V4File is an open file of version 4.1.
type V4File struct {
	v      *V4
	handle Handle
	open   stateID
	writes writeState

	mu    sync.Mutex // guards the map and serialises the first lock of each owner
	locks map[string]stateID
}

var _ File = (*V4File)(nil)

// Open opens or creates a file. Every open has an open owner of its own, so that closing one leaves the others.
func (v *V4) Open(ctx context.Context, dir Handle, name string, o OpenOptions) (File, error) {
	f, err := v.OpenFile(ctx, dir, name, o)
	if err != nil {
		return nil, err // a nil File, not a nil *V4File in one
	}
	return f, nil
}

// OpenFile is Open for callers that lock.
func (v *V4) OpenFile(ctx context.Context, dir Handle, name string, o OpenOptions) (*V4File, error) {
	f := &V4File{v: v, locks: make(map[string]stateID)}
	owner := binary.BigEndian.AppendUint64([]byte("open"), v.owners.Add(1))
	verifier := newVerifier()
	err := v.session.do(ctx, request{mutates: true, build: func(c *compound) {
		c.putFH(dir)
		c.mainOp(opOpen)
		c.Uint32(0) // seqid: unused in 4.1
		c.Uint32(o.access() | wantNoDeleg)
		c.Uint32(0) // deny nothing
		c.Uint64(v.session.clientID)
		c.Opaque(owner)
		o.encodeHow(c, verifier)
		c.Uint32(claimNull)
		c.String(name)
		c.op(opGetFH)
	}, parse: f.parseOpen})
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (o *OpenOptions) access() uint32 {
	switch {
	case o.Read == o.Write:
		return accessRead | accessWrite
	case o.Read:
		return accessRead
	}
	return accessWrite
}

func (o *OpenOptions) mode() *uint32 {
	if o.Mode != 0 {
		return &o.Mode
	}
	mode := uint32(0o644)
	return &mode
}

// encodeHow appends openflag4.
func (o *OpenOptions) encodeHow(c *compound, verifier [verifierBytes]byte) {
	if o.Create == NoCreate {
		c.Uint32(0)
		return
	}
	c.Uint32(1)
	set := SetAttr{Mode: o.mode()}
	switch o.Create {
	case Guarded:
		c.Uint32(1) // GUARDED4
	case Exclusive:
		c.Uint32(3) // EXCLUSIVE4_1
		c.Fixed(verifier[:])
	default:
		c.Uint32(0) // UNCHECKED4
		if o.Truncate {
			set.Size = new(uint64)
		}
	}
	encodeSetAttr(c.Encoder, &set)
}

func (f *V4File) parseOpen(r *results) (err error) {
	if err := r.skip(opPutFH, opOpen); err != nil {
		return err
	}
	f.open = decodeStateID(r.Decoder)
	r.changeInfo()
	r.Uint32() // rflags
	decodeBitmap(r.Decoder)
	switch kind := r.Uint32(); kind {
	case delegNone:
	case delegNoneExt:
		if why := r.Uint32(); why == 1 || why == 2 { // WND4_CONTENTION, WND4_RESOURCE
			r.Bool()
		}
	default:
		return fmt.Errorf("nfsclient: OPEN: the server grants a delegation (type %d) that was not wanted", kind)
	}
	f.handle, err = r.getFH()
	return err
}

// Handle returns the file's handle.
func (f *V4File) Handle() Handle { return f.handle }

// Close closes the open; locks under it are released by the server.
func (f *V4File) Close(ctx context.Context) error {
	return f.v.session.do(ctx, request{mutates: true, build: func(c *compound) {
		c.putFH(f.handle)
		c.mainOp(opClose)
		c.Uint32(0)
		f.open.encode(c.Encoder)
	}, parse: func(r *results) error { return r.skip(opPutFH, opClose) }})
}

// Read reads from the file.
func (f *V4File) Read(ctx context.Context, p []byte, off uint64) (n int, eof bool, err error) {
	return readAll(p, off, f.v.readSize, func(part []byte, off uint64) (n int, eof bool, err error) {
		err = f.v.session.do(ctx, request{build: func(c *compound) {
			c.putFH(f.handle)
			c.op(opRead)
			f.open.encode(c.Encoder)
			c.Uint64(off)
			c.Uint32(uint32(len(part)))
		}, parse: func(r *results) error {
			if err := r.skip(opPutFH, opRead); err != nil {
				return err
			}
			eof = r.Bool()
			n = copy(part, r.Opaque(uint32(len(part))))
			return r.check()
		}})
		return n, eof, err
	})
}

// Write writes to the file.
func (f *V4File) Write(ctx context.Context, p []byte, off uint64, how Stability) error {
	return f.writes.writeAll(p, off, f.v.writeSize, how, func(part []byte, off uint64) (w written, err error) {
		err = f.v.session.do(ctx, request{mutates: true, bytes: len(part), build: func(c *compound) {
			c.putFH(f.handle)
			c.mainOp(opWrite)
			f.open.encode(c.Encoder)
			c.Uint64(off)
			c.Uint32(uint32(how))
			c.Opaque(part)
		}, parse: func(r *results) error {
			if err := r.skip(opPutFH, opWrite); err != nil {
				return err
			}
			w.decode(r.Decoder)
			return r.check()
		}})
		return w, err
	})
}

// Commit makes unstable writes stable.
func (f *V4File) Commit(ctx context.Context) error {
	return f.writes.commit(func() (verifier [verifierBytes]byte, err error) {
		err = f.v.session.do(ctx, request{mutates: true, build: func(c *compound) {
			c.putFH(f.handle)
			c.mainOp(opCommit)
			c.Uint64(0)
			c.Uint32(0) // to the end
		}, parse: func(r *results) error {
			if err := r.skip(opPutFH, opCommit); err != nil {
				return err
			}
			copy(verifier[:], r.Fixed(verifierBytes))
			return r.check()
		}})
		return verifier, err
	})
}

// LockType is nfs_lock_type4.
type LockType uint32

// The values of LockType.
const (
	ReadLock  LockType = 1
	WriteLock LockType = 2
)

// ToEnd is the length of a range that reaches to the end of the file, however long it grows.
const ToEnd = math.MaxUint64

// Lock takes a byte-range lock for owner, a name within this client. If another owner is in the way the error is ErrDenied.
func (f *V4File) Lock(ctx context.Context, owner string, typ LockType, off, length uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	held, known := f.locks[owner]
	var got stateID
	err := f.v.session.do(ctx, request{mutates: true, build: func(c *compound) {
		c.putFH(f.handle)
		c.mainOp(opLock)
		c.Uint32(uint32(typ))
		c.Bool(false) // no reclaim
		c.Uint64(off)
		c.Uint64(length)
		c.Bool(!known)
		if known {
			held.encode(c.Encoder)
			c.Uint32(0)
			return
		}
		c.Uint32(0)
		f.open.encode(c.Encoder)
		c.Uint32(0)
		c.Uint64(f.v.session.clientID)
		c.String(owner)
	}, parse: func(r *results) error {
		if err := r.skip(opPutFH, opLock); err != nil {
			return err
		}
		got = decodeStateID(r.Decoder)
		return r.check()
	}})
	if err == nil {
		f.locks[owner] = got
	}
	return err
}

// TestLock reports whether owner could take a lock (LOCKT): nil, or ErrDenied. It changes nothing.
func (f *V4File) TestLock(ctx context.Context, owner string, typ LockType, off, length uint64) error {
	return f.v.session.do(ctx, request{build: func(c *compound) {
		c.putFH(f.handle)
		c.op(opLockT)
		c.Uint32(uint32(typ))
		c.Uint64(off)
		c.Uint64(length)
		c.Uint64(f.v.session.clientID)
		c.String(owner)
	}, parse: func(r *results) error { return r.skip(opPutFH, opLockT) }})
}

// Unlock gives up a range.
func (f *V4File) Unlock(ctx context.Context, owner string, off, length uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	held, known := f.locks[owner]
	if !known {
		return fmt.Errorf("nfsclient: owner %q never locked this file", owner)
	}
	return f.v.session.do(ctx, request{mutates: true, build: func(c *compound) {
		c.putFH(f.handle)
		c.mainOp(opLockU)
		c.Uint32(uint32(WriteLock))
		c.Uint32(0)
		held.encode(c.Encoder)
		c.Uint64(off)
		c.Uint64(length)
	}, parse: func(r *results) error { return r.skip(opPutFH, opLockU) }})
}
