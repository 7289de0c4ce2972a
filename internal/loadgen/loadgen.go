// Package loadgen loads an NFS server through package nfsclient, for two purposes. Bench measures: throughput, latencies and CPU time of
// the common operations. Workload checks: it writes, locks, creates and renames for as long as it is left running, remembers every
// acknowledgement, and tells at the end whether the server kept all that it had acknowledged.
package loadgen

import (
	"context"

	"holdfast/internal/nfsclient"
)

// Client is what the workload needs of an NFS client; version 4.1, as it locks.
type Client interface {
	nfsclient.Client
	// OpenLocker is Open for a file that is to be locked.
	OpenLocker(ctx context.Context, dir nfsclient.Handle, name string, o nfsclient.OpenOptions) (Locker, error)
}

// Locker is an open file with byte-range locks; *nfsclient.V4File.
type Locker interface {
	nfsclient.File
	// Lock takes a byte-range lock for owner, a name within this client. If another owner is in the way the error is nfsclient.ErrDenied.
	Lock(ctx context.Context, owner string, typ nfsclient.LockType, off, length uint64) error
	// TestLock reports whether owner could take a lock: nil, or nfsclient.ErrDenied. It changes nothing.
	TestLock(ctx context.Context, owner string, typ nfsclient.LockType, off, length uint64) error
	// Unlock gives up a range.
	Unlock(ctx context.Context, owner string, off, length uint64) error
}

// MountFunc makes a client with a session of its own.
type MountFunc func(ctx context.Context) (Client, error)

type v4Client struct{ *nfsclient.V4 }

func (c v4Client) OpenLocker(ctx context.Context, dir nfsclient.Handle, name string, o nfsclient.OpenOptions) (Locker, error) {
	f, err := c.OpenFile(ctx, dir, name, o)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// MountWith returns a MountFunc that mounts with cfg, version 4.1 whatever cfg says.
func MountWith(cfg nfsclient.Config) MountFunc {
	return func(ctx context.Context) (Client, error) {
		c, err := nfsclient.MountV4(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return v4Client{c}, nil
	}
}
