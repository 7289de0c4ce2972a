package volume

import (
	"errors"

	"holdfast/internal/store"
)

// IsDamage reports whether an error means that the replica's own store gave bad data or none: another replica may have it whole.
func IsDamage(err error) bool {
	return errors.Is(err, store.ErrUnreadable) || errors.Is(err, errCorrupt)
}

// met passes on an error, and tells of it if it is damage. stops: the replica cannot go on after it.
func (v *Volume) met(err error, stops bool) error {
	if err != nil && v.damaged != nil && IsDamage(err) {
		v.damaged(err, stops)
	}
	return err
}
