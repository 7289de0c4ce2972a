package wal

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3"
)

var (
	// ErrCompacted is returned for an index before FirstIndex; it is raft's.
	ErrCompacted = raft.ErrCompacted
	// ErrUnavailable is returned for an index behind LastIndex; it is raft's.
	ErrUnavailable = raft.ErrUnavailable
	// ErrCorrupt is what errors.Is finds in every CorruptError.
	ErrCorrupt = errors.New("wal: log is damaged")
	// ErrTooLarge is returned for an entry that does not fit a segment.
	ErrTooLarge = errors.New("wal: entry is larger than a segment")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("wal: log is closed")
	// ErrFailed is what errors.Is finds in every error after a write or a sync failed: the Log is unusable from then on.
	ErrFailed = errors.New("wal: log has failed")
)

// CorruptError is a log whose durable part is not what was written. The replica cannot know what it has promised, so it must not take part
// in its group any more.
type CorruptError struct {
	File   string // path of the segment
	Offset int64  // where in it
	Reason string
}

// Error says what is damaged and what to do.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("wal: %s is damaged at offset %d: %s; this replica can no longer vouch for its data: remove it and let it be rebuilt from its peers",
		e.File, e.Offset, e.Reason)
}

// Is makes every CorruptError an ErrCorrupt.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// VersionError is a log that another release of Holdfast wrote in a format which this one does not read.
type VersionError struct {
	Version uint32
}

// Error says which version it is.
func (e *VersionError) Error() string {
	return fmt.Sprintf("wal: the log has format version %d, this release reads version %d: it was written by another release", e.Version, version)
}

// failure wraps the error that ended a Log.
type failure struct{ cause error }

func (f *failure) Error() string        { return "wal: log has failed: " + f.cause.Error() }
func (f *failure) Unwrap() error        { return f.cause }
func (f *failure) Is(target error) bool { return target == ErrFailed }
