package backup

import (
	"context"
	"fmt"
	"io"

	"holdfast/internal/volume"
)

// Target is where and as what a volume is restored.
type Target struct {
	// Config is the volume's, with its store, which must be empty or hold an unfinished restore, and its programs. File handles that clients have stay valid if the ID is that
	// of the volume that was backed up.
	Config volume.Config
	// Now is the time in nanoseconds since the epoch: log indexes go on from it, see the package documentation.
	Now int64
	// Random differs from one restore to the next.
	Random uint64
}

// Restore makes a volume of the backups that r yields one after the other, a full one and those that continue it. The store is valid and durable when it returns without an error; the
// log of the volume's replicas begins after the volume's applied index. After an error, or if the process dies, the store holds no volume.
func Restore(ctx context.Context, to Target, r io.Reader) (*volume.Volume, Summary, error) {
	in := NewReader(r)
	out, err := volume.NewRestorer(to.Config.Store)
	if err != nil {
		return nil, Summary{}, fmt.Errorf("backup: %w", err)
	}
	var last Summary
	for part := 1; ; part++ {
		h, err := in.Begin()
		if err == io.EOF && part > 1 {
			break
		}
		if err == io.EOF {
			err = ErrTruncated
		}
		if err == nil {
			err = follows(&last, &h)
		}
		if err == nil {
			err = restorePart(ctx, in, out)
		}
		if err != nil {
			return nil, Summary{}, fmt.Errorf("restore, backup %d: %w", part, err)
		}
		last = in.Summary()
	}
	v, err := out.Finish(to.Config, to.Now, to.Random)
	if err != nil {
		return nil, Summary{}, fmt.Errorf("backup: %w", err)
	}
	return v, last, nil
}

func restorePart(ctx context.Context, in *Reader, out *volume.Restorer) error {
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		var p volume.Piece
		err := in.Next(&p)
		if err == io.EOF {
			s := in.Summary()
			return out.EndPart(s.Index)
		}
		if err == nil {
			err = out.Put(&p)
		}
		if err != nil {
			return err
		}
	}
}

// follows reports why a backup does not continue the one before; before.Index is 0 if there is none.
func follows(before *Summary, h *Header) error {
	switch {
	case before.Index == 0 && h.Full():
		return nil
	case before.Index == 0:
		return fmt.Errorf("%w: the first one is not full, it continues one that ends at %d: begin with the full one", ErrChain, h.Since)
	case h.Cluster != before.Cluster || h.VolumeID != before.VolumeID:
		return fmt.Errorf("%w: one is of volume %s (%d) of cluster %s, the next of volume %s (%d) of cluster %s", ErrChain,
			before.Volume, before.VolumeID, before.Cluster, h.Volume, h.VolumeID, h.Cluster)
	case h.Full():
		return fmt.Errorf("%w: a full one follows another backup: restore it alone", ErrChain)
	case h.Since > before.Index:
		return fmt.Errorf("%w: after the one that ends at %d comes one that continues %d: what is between is missing", ErrChain, before.Index, h.Since)
	case h.Since < before.Index:
		return fmt.Errorf("%w: after the one that ends at %d comes one that continues %d: they are in the wrong order, or one is too many", ErrChain, before.Index, h.Since)
	}
	return nil
}
