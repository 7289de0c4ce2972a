package nfsclient

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/internal/xdr"
)

// readDirBytes is how much of a directory one READDIR asks for.
const readDirBytes = 128 << 10

// V4 is a Client of version 4.1.
type V4 struct {
	session   *session
	root      Handle
	readSize  int
	writeSize int
	owners    atomic.Uint64 // open owners given out

	stop     context.CancelFunc // ends the renewal
	renewing sync.WaitGroup
}

var _ Client = (*V4)(nil)

// MountV4 connects to a version 4.1 server and looks the export up.
func MountV4(ctx context.Context, cfg Config) (*V4, error) {
	cfg.setDefaults()
	t := newTransport(cfg, cfg.Address)
	v, err := mountV4(ctx, t)
	if err != nil {
		t.close()
		return nil, fmt.Errorf("mounting %s:%s: %w", cfg.Address, cfg.Export, err)
	}
	return v, nil
}

func mountV4(ctx context.Context, t *transport) (*V4, error) {
	s, ch, err := newSession(ctx, t)
	if err != nil {
		return nil, err
	}
	err = s.do(ctx, request{mutates: true, build: func(c *compound) {
		c.mainOp(opReclaimComplete)
		c.Bool(false)
	}, parse: func(r *results) error { return r.op(opReclaimComplete) }})
	if err != nil {
		return nil, err
	}
	v := &V4{session: s}
	var limits serverLimits
	if v.root, limits, err = v.walk(ctx, t.cfg.Export); err != nil {
		return nil, err
	}
	v.readSize = ioSize(t.cfg.IOBytes, ch.maxReplyBytes, limits.maxRead)
	v.writeSize = ioSize(t.cfg.IOBytes, ch.maxRequestBytes, limits.maxWrite)
	renewing, stop := context.WithCancel(context.Background())
	v.stop = stop
	v.renewing.Go(func() { s.renew(renewing, time.Duration(max(limits.leaseSeconds, 1))*time.Second) })
	return v, nil
}

// ioSize returns the largest payload that we want, the session carries and the server takes.
func ioSize(want int, channel uint32, limit uint64) int {
	n := min(want, int(channel)-1024)
	if limit > 0 && limit < uint64(n) {
		n = int(limit)
	}
	return max(n, 512)
}

// walk looks up a path from the pseudo-root.
func (v *V4) walk(ctx context.Context, path string) (h Handle, limits serverLimits, err error) {
	err = v.session.do(ctx, request{build: func(c *compound) {
		c.op(opPutRootFH)
		c.op(opGetFH)
	}, parse: func(r *results) (err error) {
		if err := r.skip(opPutRootFH); err != nil {
			return err
		}
		h, err = r.getFH()
		return err
	}})
	if err != nil {
		return "", limits, err
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		if h, _, err = v.Lookup(ctx, h, name); err != nil {
			return "", limits, err
		}
	}
	err = v.session.do(ctx, request{build: func(c *compound) {
		c.putFH(h)
		c.getAttr(attrsServer)
	}, parse: func(r *results) error {
		if err := r.skip(opPutFH, opGetAttr); err != nil {
			return err
		}
		decodeAttr(r.Decoder, new(Attr), &limits)
		return r.check()
	}})
	return h, limits, err
}

// Version returns "4.1".
func (v *V4) Version() string { return "4.1" }

// Root returns the handle of the export.
func (v *V4) Root() Handle { return v.root }

// Stats returns the client's counters.
func (v *V4) Stats() Stats { return v.session.snapshot() }

// Close destroys the session and the client id.
func (v *V4) Close(ctx context.Context) error {
	v.stop()
	v.renewing.Wait()
	err := v.session.destroy(ctx)
	v.session.close()
	return err
}

// GetAttr returns a file's attributes.
func (v *V4) GetAttr(ctx context.Context, h Handle) (a Attr, err error) {
	err = v.session.do(ctx, request{build: func(c *compound) {
		c.putFH(h)
		c.getAttr(attrsFull)
	}, parse: func(r *results) error {
		if err := r.skip(opPutFH); err != nil {
			return err
		}
		return r.getAttr(&a)
	}})
	return a, err
}

// SetAttr changes attributes, without an open.
func (v *V4) SetAttr(ctx context.Context, h Handle, set SetAttr) error {
	return v.session.do(ctx, request{mutates: true, build: func(c *compound) {
		c.putFH(h)
		c.mainOp(opSetAttr)
		stateID{}.encode(c.Encoder)
		encodeSetAttr(c.Encoder, &set)
	}, parse: func(r *results) error { return r.skip(opPutFH, opSetAttr) }})
}

// Lookup finds a name in a directory.
func (v *V4) Lookup(ctx context.Context, dir Handle, name string) (h Handle, a Attr, err error) {
	err = v.session.do(ctx, request{build: func(c *compound) {
		c.putFH(dir)
		c.op(opLookup)
		c.String(name)
		c.op(opGetFH)
		c.getAttr(attrsFull)
	}, parse: func(r *results) (err error) {
		if err := r.skip(opPutFH, opLookup); err != nil {
			return err
		}
		if h, err = r.getFH(); err != nil {
			return err
		}
		return r.getAttr(&a)
	}})
	return h, a, err
}

// Mkdir makes a directory.
func (v *V4) Mkdir(ctx context.Context, dir Handle, name string, mode uint32) (h Handle, err error) {
	err = v.session.do(ctx, request{mutates: true, build: func(c *compound) {
		c.putFH(dir)
		c.mainOp(opCreate)
		c.Uint32(uint32(TypeDir))
		c.String(name)
		encodeSetAttr(c.Encoder, &SetAttr{Mode: &mode})
		c.op(opGetFH)
	}, parse: func(r *results) (err error) {
		if err := r.skip(opPutFH, opCreate); err != nil {
			return err
		}
		r.changeInfo()
		decodeBitmap(r.Decoder)
		h, err = r.getFH()
		return err
	}})
	return h, err
}

// Remove removes a name, of a file or an empty directory: version 4 has one operation for both.
func (v *V4) Remove(ctx context.Context, dir Handle, name string) error {
	return v.session.do(ctx, request{mutates: true, build: func(c *compound) {
		c.putFH(dir)
		c.mainOp(opRemove)
		c.String(name)
	}, parse: func(r *results) error { return r.skip(opPutFH, opRemove) }})
}

// Rmdir is Remove.
func (v *V4) Rmdir(ctx context.Context, dir Handle, name string) error {
	return v.Remove(ctx, dir, name)
}

// Rename gives a file another name, replacing what has it.
func (v *V4) Rename(ctx context.Context, from Handle, oldName string, to Handle, newName string) error {
	return v.session.do(ctx, request{mutates: true, build: func(c *compound) {
		c.putFH(from)
		c.op(opSaveFH)
		c.putFH(to)
		c.mainOp(opRename)
		c.String(oldName)
		c.String(newName)
	}, parse: func(r *results) error { return r.skip(opPutFH, opSaveFH, opPutFH, opRename) }})
}

// ReadDir lists a directory.
func (v *V4) ReadDir(ctx context.Context, dir Handle, attrs bool, fn func(DirEntry) error) error {
	var cookie uint64
	var verifier [verifierBytes]byte
	mask := attrsName
	if attrs {
		mask = attrsList
	}
	for eof := false; !eof; {
		var batch []DirEntry
		err := v.session.do(ctx, request{build: func(c *compound) {
			size := uint32(min(readDirBytes, v.readSize))
			c.putFH(dir)
			c.op(opReadDir)
			c.Uint64(cookie)
			c.Fixed(verifier[:])
			c.Uint32(size)
			c.Uint32(size)
			mask.encode(c.Encoder)
		}, parse: func(r *results) (err error) {
			if err := r.skip(opPutFH, opReadDir); err != nil {
				return err
			}
			copy(verifier[:], r.Fixed(verifierBytes))
			batch, eof = decodeEntries(r.Decoder)
			return r.check()
		}})
		if err != nil {
			return err
		}
		if len(batch) == 0 && !eof {
			return fmt.Errorf("nfsclient: READDIR: no entries, and no end")
		}
		for _, e := range batch {
			if err := fn(e); err != nil {
				return err
			}
			cookie = e.Cookie
		}
	}
	return nil
}

func decodeEntries(d *xdr.Decoder) (batch []DirEntry, eof bool) {
	for d.Bool() {
		e := DirEntry{Cookie: d.Uint64(), Name: d.String(maxNameBytes)}
		decodeAttr(d, &e.Attr, nil)
		if d.Err() != nil {
			return nil, false
		}
		e.FileID = e.Attr.FileID
		batch = append(batch, e)
	}
	return batch, d.Bool()
}

// newVerifier returns the verifier of an exclusive create.
func newVerifier() (v [verifierBytes]byte) {
	_, _ = rand.Read(v[:]) // never fails
	return v
}
