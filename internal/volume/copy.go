package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"holdfast/internal/store"
)

// PieceKind says what a Piece is.
type PieceKind uint8

// The kinds of Piece; part of the format of backups.
const (
	PieceClear    PieceKind = 1 // object Ino is empty
	PieceData     PieceKind = 2 // object Ino holds Data at Off
	PieceTruncate PieceKind = 3 // object Ino ends at Off
	PiecePunch    PieceKind = 4 // object Ino has a hole of Length at Off
	PieceSet      PieceKind = 5 // metadata Key is Data
	PieceDelete   PieceKind = 6 // there are no metadata keys in [Key, Data)
	PieceGone     PieceKind = 7 // there are no inodes from Ino on, Length of them
)

// Piece is a piece of a Copy: put into a Restorer in their order, pieces make a volume's state.
type Piece struct {
	Kind        PieceKind
	Ino         Ino
	Off, Length uint64
	Key, Data   []byte
}

// Copy copies a volume while it goes on, so that the copy is of exactly one index: that at which Finish is called. See the package documentation of backup for why it works.
type Copy struct {
	v     *Volume
	since uint64
	watch func(p *Piece)
	limit Ino // inodes from here on did not exist when the copy began
	page  int // how many inodes are looked through at a time, with apply waiting

	cursor Ino   // the last inode that Objects has reached; guarded by v.applying
	failed error // why the copy cannot go on; guarded by v.applying
	meta   store.MetaSnapshot
}

var (
	// ErrCopyBusy is returned by BeginCopy while another copy is being made.
	ErrCopyBusy = errors.New("volume: another copy is being made on this node: wait until it is done, or cancel it")
	// ErrCopyLost is returned by a Copy whose volume was replaced by a snapshot.
	ErrCopyLost = errors.New("volume: this node received a snapshot of the volume while it was copied: begin again")
	// ErrNotInHistory is returned by BeginCopy for a since that the volume's state does not stem from.
	ErrNotInHistory = errors.New("volume: what is to be continued is not of this volume's history: begin with a full copy")
)

// BeginCopy begins a copy of what changed after since; 0 means everything. watch gets the changes of objects that Objects has passed already, as pieces that must follow every
// piece that Objects has yielded before; it is called by Apply, must be quick, and what a piece points to is valid during the call only. Close must follow.
//
// After a crash or a snapshot objects can be ahead of the applied index, and a copy would mix the two. So WaitApplied must come before, with an index that was committed after this
// replica was last started or sent a snapshot.
func (v *Volume) BeginCopy(since uint64, watch func(p *Piece)) (*Copy, error) {
	v.applying.Lock()
	defer v.applying.Unlock()
	v.mu.RLock()
	defer v.mu.RUnlock()
	switch {
	case !v.valid:
		return nil, fmt.Errorf("volume %s: copy: %w", v.name, ErrInvalid)
	case v.copy != nil:
		return nil, ErrCopyBusy
	case since > v.state.applied:
		return nil, fmt.Errorf("%w: it ends at entry %d, and this copy of volume %s at %d", ErrNotInHistory, since, v.name, v.state.applied)
	}
	history, err := loadHistory(v.store)
	if err != nil {
		return nil, v.met(fmt.Errorf("volume %s: copy: %w", v.name, err), false)
	}
	for _, h := range history {
		if since > h.backup && since < h.restored {
			return nil, fmt.Errorf("%w: it ends at entry %d, but volume %s was restored as of entry %d later on", ErrNotInHistory, since, v.name, h.backup)
		}
	}
	c := &Copy{v: v, since: since, watch: watch, limit: v.state.nextIno, page: copyPage}
	v.copy = c
	return c, nil
}

// observe passes on changes of objects that Objects will not meet. v.applying is held.
func (c *Copy) observe(ops []objectOp) {
	for i := range ops {
		op := &ops[i]
		if op.ino > c.cursor && op.ino < c.limit {
			continue
		}
		p := Piece{Ino: op.ino, Off: op.off}
		switch op.kind {
		case opWrite:
			p.Kind, p.Data = PieceData, op.data
		case opTruncate:
			p.Kind = PieceTruncate
		case opPunch:
			p.Kind, p.Length = PiecePunch, op.length
		case opRemove:
			p.Kind = PieceClear
		default:
			continue // reserved space is no content
		}
		c.watch(&p)
	}
}

// copyPage is Copy.page; in some hundred microseconds so many inodes are read.
const copyPage = 512

// Objects yields the contents of the objects that changed, as they are when they are read: what changes behind it goes to watch. A piece is valid during the call only.
func (c *Copy) Objects(ctx context.Context, yield func(p *Piece) error) error {
	buf := make([]byte, frameDataBytes)
	for {
		page, more, err := c.nextPage()
		if err != nil {
			return c.v.met(fmt.Errorf("volume %s: copy objects: %w", c.v.name, err), false)
		}
		for _, ino := range page {
			if err := c.object(ctx, ino, buf, yield); err != nil {
				return c.v.met(fmt.Errorf("volume %s: copy object %d: %w", c.v.name, ino, err), false)
			}
		}
		if !more {
			return nil
		}
	}
}

// nextPage moves the cursor on and returns the files up to it whose objects are to be copied. Between two entries objects and metadata agree, so whatever an object was changed by before
// shows in its inode, and whatever it is changed by later is watched.
func (c *Copy) nextPage() (page []Ino, more bool, err error) {
	c.v.applying.Lock()
	defer c.v.applying.Unlock()
	if c.failed != nil {
		return nil, false, c.failed
	}
	seen, last := 0, c.limit-1
	var bad error
	err = c.v.store.Scan(inodeKey(c.cursor+1), inodeKey(c.limit), func(key, value []byte) bool {
		n, err := decodeInode(inoOfKey(key), value)
		if err != nil {
			bad = err
			return false
		}
		// Of a file that has no object any more what is continued may hold one, which the file could grow into again.
		if n.Type == TypeFile && n.Change > c.since && (!n.Inline || c.since > 0) {
			page = append(page, n.Ino)
		}
		if seen++; seen == c.page {
			last, more = n.Ino, true
		}
		return !more
	})
	if err = errors.Join(bad, err); err == nil {
		c.cursor = last
	}
	return page, more, err
}

// object yields one object. The piece that empties it undoes what was yielded of changes since the cursor passed it, so the size within which it is read
// must be one that covers them: that of now, between two entries.
func (c *Copy) object(ctx context.Context, ino Ino, buf []byte, yield func(p *Piece) error) error {
	n, err := c.current(ino)
	if err != nil {
		return err
	}
	if err := yield(&Piece{Kind: PieceClear, Ino: ino}); err != nil {
		return err
	}
	if n == nil || n.Inline {
		return ctx.Err()
	}
	return readExtents(c.v.store, n, buf, func(off uint64, data []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return yield(&Piece{Kind: PieceData, Ino: n.Ino, Off: off, Data: data})
	})
}

// current returns an inode as it is between two entries, nil if it is gone.
func (c *Copy) current(ino Ino) (*Inode, error) {
	c.v.applying.Lock()
	defer c.v.applying.Unlock()
	if c.failed != nil {
		return nil, c.failed
	}
	b, err := get(c.v.store, inodeKey(ino))
	if b == nil || err != nil {
		return nil, err
	}
	return decodeInode(ino, b)
}

// Finish ends the watching and returns the index that the copy is of. What watch got until now belongs to the copy.
func (c *Copy) Finish() (index uint64, err error) {
	c.v.applying.Lock()
	defer c.v.applying.Unlock()
	if c.failed != nil {
		return 0, fmt.Errorf("volume %s: copy: %w", c.v.name, c.failed)
	}
	c.v.copy = nil
	index = c.v.Applied()
	if c.meta, err = c.v.store.SnapshotMeta(); err != nil {
		return 0, fmt.Errorf("volume %s: copy: %w", c.v.name, err)
	}
	return index, nil
}

// Close ends the copy, whether it is finished or not.
func (c *Copy) Close() error {
	c.v.applying.Lock()
	if c.v.copy == c {
		c.v.copy = nil
	}
	c.v.applying.Unlock()
	if c.meta == nil {
		return nil
	}
	return c.meta.Close()
}

// loseCopy tells a copy that the state is being replaced. applying must be held.
func (v *Volume) loseCopy() {
	if v.copy != nil {
		v.copy.failed = ErrCopyLost
		v.copy = nil
	}
}

// Metadata yields the metadata at the index that Finish returned: all of it, or what changed after since.
func (c *Copy) Metadata(ctx context.Context, yield func(p *Piece) error) (err error) {
	if c.since == 0 {
		err = c.each(ctx, []byte{0}, []byte{0xff}, yield)
	} else {
		err = c.changedMetadata(ctx, yield)
	}
	if err != nil {
		return c.v.met(fmt.Errorf("volume %s: copy metadata: %w", c.v.name, err), false)
	}
	return nil
}

// each yields the pairs in [lo, hi), those of this replica alone left out.
func (c *Copy) each(ctx context.Context, lo, hi []byte, yield func(p *Piece) error) error {
	var failed error
	err := c.meta.Scan(lo, hi, func(key, value []byte) bool {
		if key[0] == prefixEffects || key[0] == prefixLocal {
			return true
		}
		if failed = ctx.Err(); failed == nil {
			failed = yield(&Piece{Kind: PieceSet, Key: key, Data: value})
		}
		return failed == nil
	})
	return errors.Join(failed, err)
}

// replace yields what makes the pairs in [lo, hi) what they are.
func (c *Copy) replace(ctx context.Context, lo, hi []byte, yield func(p *Piece) error) error {
	if err := yield(&Piece{Kind: PieceDelete, Key: lo, Data: hi}); err != nil {
		return err
	}
	return c.each(ctx, lo, hi, yield)
}

// changedMetadata goes by the inodes: whatever changes a file's content or a directory's entries stamps the inode. Of the rest, which is small, it yields all.
func (c *Copy) changedMetadata(ctx context.Context, yield func(p *Piece) error) error {
	for _, prefix := range []byte{prefixClient, prefixMeta, prefixOrphan, prefixProgram} {
		if err := c.replace(ctx, []byte{prefix}, []byte{prefix + 1}, yield); err != nil {
			return err
		}
	}
	next := Ino(0)
	var changed []*Inode
	flush := func() error {
		for _, n := range changed {
			if err := c.inode(ctx, n, yield); err != nil {
				return err
			}
		}
		changed = changed[:0]
		return nil
	}
	err := scanInodes(c.meta, func(n *Inode) error {
		if n.Ino > next {
			if err := yield(&Piece{Kind: PieceGone, Ino: next, Length: uint64(n.Ino - next)}); err != nil {
				return err
			}
		}
		next = n.Ino + 1
		if n.Change > c.since {
			changed = append(changed, n)
		}
		if len(changed) < copyPage {
			return ctx.Err()
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return err
	}
	return yield(&Piece{Kind: PieceGone, Ino: next, Length: ^uint64(0) - uint64(next)})
}

func (c *Copy) inode(ctx context.Context, n *Inode, yield func(p *Piece) error) error {
	if err := yield(&Piece{Kind: PieceSet, Key: inodeKey(n.Ino), Data: encodeInode(n)}); err != nil {
		return err
	}
	switch n.Type {
	case TypeFile:
		return c.replace(ctx, inlineKey(n.Ino), inlineKey(n.Ino+1), yield)
	case TypeDir:
		return c.replace(ctx, direntKey(n.Ino, 0), direntKey(n.Ino+1, 0), yield)
	}
	return nil
}

// waiting is one WaitApplied.
type waiting struct {
	index uint64
	done  chan struct{}
}

// WaitApplied returns when this replica has applied the entry at index.
func (v *Volume) WaitApplied(ctx context.Context, index uint64) error {
	v.mu.Lock()
	if v.state.applied >= index {
		v.mu.Unlock()
		return nil
	}
	w := waiting{index, make(chan struct{})}
	v.waiting = append(v.waiting, w)
	v.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		v.mu.Lock()
		v.waiting = slices.DeleteFunc(v.waiting, func(o waiting) bool { return o == w })
		v.mu.Unlock()
		return fmt.Errorf("volume %s: wait until entry %d is applied, the last one is %d: %w", v.name, index, v.Applied(), context.Cause(ctx))
	}
}

// wakeWaiting ends the waits that are over. mu must be held.
func (v *Volume) wakeWaiting() {
	v.waiting = slices.DeleteFunc(v.waiting, func(w waiting) bool {
		if w.index > v.state.applied {
			return false
		}
		close(w.done)
		return true
	})
}
