package nfsclient

import (
	"context"
	"errors"
	"fmt"

	"holdfast/internal/rpc"
	"holdfast/internal/xdr"
)

// V3 is a Client of version 3. It has no state on the server.
type V3 struct {
	*transport
	root      Handle
	readSize  int
	writeSize int
	slots     chan struct{}
}

var _ Client = (*V3)(nil)

// MountV3 asks the MOUNT program for the export's handle and connects to the server.
func MountV3(ctx context.Context, cfg Config) (*V3, error) {
	cfg.setDefaults()
	v := &V3{transport: newTransport(cfg, cfg.Address), slots: make(chan struct{}, cfg.Slots)}
	if err := v.mount(ctx); err != nil {
		v.close()
		return nil, fmt.Errorf("mounting %s:%s: %w", cfg.Address, cfg.Export, err)
	}
	return v, nil
}

func (v *V3) mount(ctx context.Context) error {
	m := v.transport
	if v.cfg.MountAddress != v.cfg.Address {
		m = newTransport(v.cfg, v.cfg.MountAddress)
		defer m.close()
	}
	xid := xids.Add(1)
	e := xdr.NewEncoder(make([]byte, 0, 256))
	rpc.AppendCall(e, xid, rpc.ProgMount, mountVersion, procMnt, v.cfg.Auth)
	e.String(v.cfg.Export)
	res, err := m.newFlight(xid, e.Bytes()).await(ctx)
	if err != nil {
		return err
	}
	d := xdr.NewDecoder(res)
	if status := Status(d.Uint32()); d.Err() == nil && status != OK {
		return &Error{Op: "MNT", Status: status}
	}
	if v.root = decodeHandle3(d); d.Err() != nil {
		return fmt.Errorf("nfsclient: malformed answer to MNT: %w", d.Err())
	}
	return v.fsInfo(ctx)
}

// fsInfo asks for the sizes of READ and WRITE.
func (v *V3) fsInfo(ctx context.Context) error {
	var rtmax, wtmax uint32
	err := v.call(ctx, proc3FSInfo, 0, func(e *xdr.Encoder) { e.String(string(v.root)) }, func(d *xdr.Decoder) {
		decodePostAttr(d, new(Attr))
		rtmax = d.Uint32()
		d.Uint32() // preferred
		d.Uint32() // multiple
		wtmax = d.Uint32()
	})
	const noChannel = 1 << 30
	v.readSize = ioSize(v.cfg.IOBytes, noChannel, uint64(rtmax))
	v.writeSize = ioSize(v.cfg.IOBytes, noChannel, uint64(wtmax))
	return err
}

// call executes a procedure: args appends the arguments, results reads what follows an OK status. bytes is the payload, to size the record.
func (v *V3) call(ctx context.Context, proc uint32, bytes int, args func(e *xdr.Encoder), results func(d *xdr.Decoder)) error {
	select {
	case v.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-v.slots }()
	for {
		err := v.callOnce(ctx, proc, bytes, args, results)
		switch {
		case errors.Is(err, ErrDelay):
			v.delays.Add(1)
		case errors.Is(err, ErrStale):
			v.lostState.Add(1)
			return err
		default:
			return err
		}
		if err := pause(ctx, retryDelay); err != nil {
			return err
		}
	}
}

func (v *V3) callOnce(ctx context.Context, proc uint32, bytes int, args func(e *xdr.Encoder), results func(d *xdr.Decoder)) error {
	xid := xids.Add(1)
	e := xdr.NewEncoder(buffers.get(512 + bytes)[:0])
	rpc.AppendCall(e, xid, rpc.ProgNFS, 3, proc, v.cfg.Auth)
	args(e)
	f := v.newFlight(xid, e.Bytes())
	res, err := f.await(ctx)
	if err != nil {
		if f.pending != nil {
			f.pending.Forget()
		}
		return err
	}
	defer f.done()
	d := xdr.NewDecoder(res)
	status := Status(d.Uint32())
	if d.Err() == nil && status != OK {
		return &Error{Op: procNames[proc], Status: status}
	}
	results(d)
	if d.Err() != nil {
		return fmt.Errorf("nfsclient: malformed answer to %s: %w", procNames[proc], d.Err())
	}
	return nil
}

// Version returns "3".
func (v *V3) Version() string { return "3" }

// Root returns the handle of the export.
func (v *V3) Root() Handle { return v.root }

// Stats returns the client's counters.
func (v *V3) Stats() Stats { return v.snapshot() }

// Close closes the connection.
func (v *V3) Close(context.Context) error {
	v.close()
	return nil
}

// dirOp appends a diropargs3.
func dirOp(dir Handle, name string) func(e *xdr.Encoder) {
	return func(e *xdr.Encoder) {
		e.String(string(dir))
		e.String(name)
	}
}

// GetAttr returns a file's attributes.
func (v *V3) GetAttr(ctx context.Context, h Handle) (a Attr, err error) {
	err = v.call(ctx, proc3GetAttr, 0, func(e *xdr.Encoder) { e.String(string(h)) }, func(d *xdr.Decoder) { decodeFattr3(d, &a) })
	return a, err
}

// SetAttr changes attributes.
func (v *V3) SetAttr(ctx context.Context, h Handle, set SetAttr) error {
	return v.call(ctx, proc3SetAttr, 0, func(e *xdr.Encoder) {
		e.String(string(h))
		encodeSattr3(e, &set)
		e.Bool(false) // no guard
	}, skipWCC)
}

// Lookup finds a name in a directory.
func (v *V3) Lookup(ctx context.Context, dir Handle, name string) (h Handle, a Attr, err error) {
	present := false
	err = v.call(ctx, proc3Lookup, 0, dirOp(dir, name), func(d *xdr.Decoder) {
		h = decodeHandle3(d)
		present = decodePostAttr(d, &a)
	})
	if err == nil && !present {
		a, err = v.GetAttr(ctx, h)
	}
	return h, a, err
}

// Open looks a file up or creates it.
func (v *V3) Open(ctx context.Context, dir Handle, name string, o OpenOptions) (File, error) {
	var h Handle
	var err error
	if o.Create == NoCreate {
		h, _, err = v.Lookup(ctx, dir, name)
	} else {
		h, err = v.create(ctx, dir, name, &o)
	}
	if err != nil {
		return nil, err
	}
	return &v3File{v: v, handle: h}, nil
}

func (v *V3) create(ctx context.Context, dir Handle, name string, o *OpenOptions) (Handle, error) {
	verifier := newVerifier()
	h, err := v.make(ctx, proc3Create, dir, name, func(e *xdr.Encoder) {
		set := SetAttr{Mode: o.mode()}
		switch o.Create {
		case Exclusive:
			e.Uint32(2)
			e.Fixed(verifier[:])
			return
		case Guarded:
			e.Uint32(1)
		default:
			e.Uint32(0)
			if o.Truncate {
				set.Size = new(uint64)
			}
		}
		encodeSattr3(e, &set)
	})
	if err == nil && o.Create == Exclusive {
		// An exclusive create carries no attributes (RFC 1813 section 3.3.8), and leaves any that hold the verifier.
		err = v.SetAttr(ctx, h, SetAttr{Mode: o.mode()})
	}
	return h, err
}

// make creates a file or directory; what follows the name is up to how.
func (v *V3) make(ctx context.Context, proc uint32, dir Handle, name string, how func(e *xdr.Encoder)) (h Handle, err error) {
	err = v.call(ctx, proc, 0, func(e *xdr.Encoder) {
		dirOp(dir, name)(e)
		how(e)
	}, func(d *xdr.Decoder) {
		if d.Bool() {
			h = decodeHandle3(d)
		}
		decodePostAttr(d, new(Attr))
		skipWCC(d)
	})
	if err == nil && h == "" {
		h, _, err = v.Lookup(ctx, dir, name)
	}
	return h, err
}

// Mkdir makes a directory.
func (v *V3) Mkdir(ctx context.Context, dir Handle, name string, mode uint32) (Handle, error) {
	return v.make(ctx, proc3Mkdir, dir, name, func(e *xdr.Encoder) { encodeSattr3(e, &SetAttr{Mode: &mode}) })
}

// Remove removes a file.
func (v *V3) Remove(ctx context.Context, dir Handle, name string) error {
	return v.call(ctx, proc3Remove, 0, dirOp(dir, name), skipWCC)
}

// Rmdir removes an empty directory.
func (v *V3) Rmdir(ctx context.Context, dir Handle, name string) error {
	return v.call(ctx, proc3Rmdir, 0, dirOp(dir, name), skipWCC)
}

// Rename gives a file another name, replacing what has it.
func (v *V3) Rename(ctx context.Context, from Handle, oldName string, to Handle, newName string) error {
	return v.call(ctx, proc3Rename, 0, func(e *xdr.Encoder) {
		dirOp(from, oldName)(e)
		dirOp(to, newName)(e)
	}, func(d *xdr.Decoder) {
		skipWCC(d)
		skipWCC(d)
	})
}

// ReadDir lists a directory.
func (v *V3) ReadDir(ctx context.Context, dir Handle, attrs bool, fn func(DirEntry) error) error {
	var cookie uint64
	var verifier [verifierBytes]byte
	for eof := false; !eof; {
		var batch []DirEntry
		var err error
		if batch, eof, err = v.readDirOnce(ctx, dir, attrs, cookie, &verifier); err != nil {
			return err
		}
		if len(batch) == 0 && !eof {
			return errors.New("nfsclient: READDIR: no entries, and no end")
		}
		for _, e := range batch {
			cookie = e.Cookie
			if e.Name == "." || e.Name == ".." {
				continue
			}
			if err := fn(e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *V3) readDirOnce(ctx context.Context, dir Handle, attrs bool, cookie uint64, verifier *[verifierBytes]byte) (batch []DirEntry, eof bool, err error) {
	proc := uint32(proc3ReadDir)
	if attrs {
		proc = proc3ReadDirPlus
	}
	size := uint32(min(readDirBytes, v.readSize))
	err = v.call(ctx, proc, 0, func(e *xdr.Encoder) {
		e.String(string(dir))
		e.Uint64(cookie)
		e.Fixed(verifier[:])
		e.Uint32(size)
		if attrs {
			e.Uint32(size)
		}
	}, func(d *xdr.Decoder) {
		decodePostAttr(d, new(Attr))
		copy(verifier[:], d.Fixed(verifierBytes))
		for d.Bool() {
			e := DirEntry{FileID: d.Uint64(), Name: d.String(maxNameBytes), Cookie: d.Uint64()}
			if attrs {
				decodePostAttr(d, &e.Attr)
				if d.Bool() {
					decodeHandle3(d)
				}
			}
			if d.Err() != nil {
				return
			}
			batch = append(batch, e)
		}
		eof = d.Bool()
	})
	return batch, eof, err
}

// v3File is a File of version 3: a handle.
type v3File struct {
	v      *V3
	handle Handle
	writes writeState
}

func (f *v3File) Handle() Handle { return f.handle }

func (f *v3File) Close(context.Context) error { return nil }

func (f *v3File) Read(ctx context.Context, p []byte, off uint64) (n int, eof bool, err error) {
	return readAll(p, off, f.v.readSize, func(part []byte, off uint64) (n int, eof bool, err error) {
		err = f.v.call(ctx, proc3Read, 0, func(e *xdr.Encoder) {
			e.String(string(f.handle))
			e.Uint64(off)
			e.Uint32(uint32(len(part)))
		}, func(d *xdr.Decoder) {
			decodePostAttr(d, new(Attr))
			d.Uint32() // count, again in the data
			eof = d.Bool()
			n = copy(part, d.Opaque(uint32(len(part))))
		})
		return n, eof, err
	})
}

func (f *v3File) Write(ctx context.Context, p []byte, off uint64, how Stability) error {
	return f.writes.writeAll(p, off, f.v.writeSize, how, func(part []byte, off uint64) (w written, err error) {
		err = f.v.call(ctx, proc3Write, len(part), func(e *xdr.Encoder) {
			e.String(string(f.handle))
			e.Uint64(off)
			e.Uint32(uint32(len(part)))
			e.Uint32(uint32(how))
			e.Opaque(part)
		}, func(d *xdr.Decoder) {
			skipWCC(d)
			w.decode(d)
		})
		return w, err
	})
}

func (f *v3File) Commit(ctx context.Context) error {
	return f.writes.commit(func() (verifier [verifierBytes]byte, err error) {
		err = f.v.call(ctx, proc3Commit, 0, func(e *xdr.Encoder) {
			e.String(string(f.handle))
			e.Uint64(0)
			e.Uint32(0) // to the end
		}, func(d *xdr.Decoder) {
			skipWCC(d)
			copy(verifier[:], d.Fixed(verifierBytes))
		})
		return verifier, err
	})
}
