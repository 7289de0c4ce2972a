// Package nfs3 is the NFS version 3 protocol (RFC 1813): it decodes a call, runs it against a volume and encodes the reply.
//
// The main path is Program.Execute: look the call up in the duplicate-request cache (drc.go), run the procedure (one file per
// family of procedures), record the reply. Procedures that change nothing run on a read-only Tx and never touch the cache.
//
// Locking: everything here runs under the volume's lock, exclusively for procedures that mutate. The duplicate-request cache is
// the only state; it is read and written by mutating procedures alone, before and after the procedure, never across file I/O.
//
// Determinism: a reply depends on the Tx and the Request only, so that every replica computes the same bytes.
package nfs3
