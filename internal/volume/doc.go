// Package volume is the replicated state machine: a filesystem, and the store for the protocol state above it. Its commands are NFS requests (entries of the raft log); it knows nothing of raft.
package volume
