package replica

import (
	"errors"
	"fmt"
)

// IncarnationStore is what a node keeps of a member apart from the member's files: how often the member has come back without them. With files of an earlier incarnation, as
// when a file system is mounted again that had not been at an earlier start, it would go back in time: forget votes, and what it has acknowledged since (DESIGN.md, "A blank replica").
type IncarnationStore interface {
	// Incarnation returns what was noted last, 0 if nothing was.
	Incarnation() uint64
	// SetIncarnation durably notes n.
	SetIncarnation(n uint64) error
}

var (
	// ErrOldFiles is why a replica does not start that has gone on without the files that it finds now.
	ErrOldFiles = errors.New("its files are older than what it has promised since")
	// ErrForeignFiles is why a replica does not start that finds the files of another member.
	ErrForeignFiles = errors.New("its files are another member's")
)

// known checks that the files are those of this member, and settles which incarnation begins if it has to do without.
func known(cfg Config, meta *Meta, start *CoreConfig) error {
	if cfg.Incarnations != nil {
		start.Incarnation = cfg.Incarnations.Incarnation()
	}
	switch {
	case meta == nil:
	case meta.Member == 0:
		// The first release wrote them, which knew of no incarnations.
		meta.Member, meta.Incarnation = cfg.ID, start.Incarnation
		if err := cfg.Meta.Save(meta); err != nil {
			return err
		}
	case meta.Member != cfg.ID:
		return fmt.Errorf("replica: %w: they are of member %d (%s), and this is member %d (%s)", ErrForeignFiles, meta.Member, cfg.Name(meta.Member), cfg.ID, cfg.Name(cfg.ID))
	case meta.Incarnation < start.Incarnation:
		return fmt.Errorf("replica: %w: it went on when they were gone, and got its data from the others. If the newer files are still there, as under a mount, put them back and start it again", ErrOldFiles)
	default:
		start.Incarnation = meta.Incarnation
	}
	start.Incarnation++
	return nil
}

// noteIncarnation makes durable that the member goes on with the files that meta belongs to, and with no earlier ones.
func noteIncarnation(cfg Config, meta *Meta) error {
	if cfg.Incarnations == nil || meta.Incarnation <= cfg.Incarnations.Incarnation() {
		return nil
	}
	if err := cfg.Incarnations.SetIncarnation(meta.Incarnation); err != nil {
		return fmt.Errorf("note that the member goes on without its old files: %w", err)
	}
	return nil
}
