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

// Files says whose files a replica's are. Those of the first release do not.
type Files struct {
	// Group is Config.Group, Member Config.ID.
	Group  string `json:"group,omitempty"`
	Member uint64 `json:"member,omitempty"`
	// Incarnation is which of the member's incarnations they are of (IncarnationStore).
	Incarnation uint64 `json:"incarnation,omitempty"`
}

var (
	// ErrOldFiles is why a replica does not start that has gone on without the files that it finds now.
	ErrOldFiles = errors.New("its files are older than what it has promised since")
	// ErrForeignFiles is why a replica does not start that finds the files of another member, or of a member of another group.
	ErrForeignFiles = errors.New("its files are another member's")
)

// known checks that the files are those of this member, and returns whose those are that it begins if it has to do without.
func known(cfg Config, meta *Meta) (Files, error) {
	mine := Files{Group: cfg.Group, Member: cfg.ID}
	if cfg.Incarnations != nil {
		mine.Incarnation = cfg.Incarnations.Incarnation()
	}
	switch {
	case meta == nil:
	case meta.Member == 0:
		meta.Files = mine
		if err := cfg.Meta.Save(meta); err != nil {
			return mine, err
		}
	case meta.Group != mine.Group:
		return mine, fmt.Errorf("replica: %w: they are of group %s, and this is group %s", ErrForeignFiles, meta.Group, mine.Group)
	case meta.Member != mine.Member:
		return mine, fmt.Errorf("replica: %w: they are of member %d (%s), and this is member %d (%s)", ErrForeignFiles, meta.Member, cfg.Name(meta.Member), mine.Member, cfg.Name(mine.Member))
	case meta.Incarnation < mine.Incarnation:
		return mine, fmt.Errorf("replica: %w: it went on when they were gone, and got its data from the others. If the newer files are still there, as under a mount, put them back and start it again", ErrOldFiles)
	default:
		mine.Incarnation = meta.Incarnation
	}
	mine.Incarnation++
	return mine, nil
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
