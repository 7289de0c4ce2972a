// Package nfs4 is the NFS version 4 program, minor versions 1 and 2 (RFC 8881, RFC 7862, RFC 8275), run against internal/volume.
//
// The path of a COMPOUND: Program.Mutates walks the operations to decide whether the record must be logged; Program.Execute runs them, on a
// read-only Tx for a compound that only reads and inside apply for one that mutates. Both decode with the same table (optable.go),
// so they cannot disagree about where an operation ends. Each operation is a decode function, which only reads bytes, and a run
// function, which appends its result to the reply.
//
// Everything that outlives a compound (clients, sessions, slots and their recorded replies, opens, locks) belongs to
// internal/nfs4/state. What only the leader knows (leases' clocks, connections, the slots' read traffic) is behind Front.
//
// Names: any bytes but NUL and '/' are accepted, also such that are not UTF-8. RFC 8881 section 14.4 lets a server reject them with
// NFS4ERR_INVAL, but Linux clients send what the application gave them, NFSv3 clients of the same volume can create such names, and a
// file that cannot be opened or removed serves nobody. fs_charset_cap tells clients so.
//
// Access: an open stateid proves the access it was opened with, as POSIX descriptors do; permission bits are checked at OPEN and,
// for the special stateids, at each READ and WRITE. Handles carry the export they were reached through; as with any server that exports
// folders of one file system, the export's rule is bound to the handle and not to where the inode lies now (Linux calls it
// no_subtree_check).
package nfs4
