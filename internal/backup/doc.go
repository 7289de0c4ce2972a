// Package backup writes a volume to a stream while it is in use, and makes a volume of such streams again.
//
// # Exactly one index
//
// A backup is of one log index: every entry up to it is in the backup with all it did, none after it with anything. It is taken on any replica, best on one that does not lead; the
// log, the leader and the clients take no notice. Nothing is paused, frozen or copied on write. It works as the recovery from a crash does, which rests on a
// property of object changes: to repeat them in order makes an object what it was after the last one, whatever subset of them it showed before (package volume, "Crashes").
//
//   - A cursor passes the inodes in order, a page at a time, moving between two log entries. The objects that it passed and that changed since the last
//     backup are read, as they are at that moment.
//   - From then on apply reports every change that it made of an object behind the cursor (and of one younger than the backup), after it made it. The changes go to a spool, and
//     from there to the stream, between any two pieces of what is read, never between the reading of a piece and its writing. So a change that a piece may have missed, or shows
//     half, follows it in the stream. Changes ahead of the cursor are not reported: they will be read.
//   - An object begins in the stream by being emptied, which undoes what the stream had of changes since the cursor passed it. So it is read up to the size that it has, between two
//     entries, when its turn comes, which covers them.
//   - When the cursor is through, between two entries, the reporting ends and the metadata is captured. That entry's index is the backup's. What is left in the
//     spool follows, then the metadata, which is exact as it is.
//
// The index is thus known at the end only. What it costs is one more write to the page cache for each reported change, and as much space in the
// spool as the taker of the stream is behind; if that grows beyond Options.SpoolBytes the backup fails, and nothing else does. Memory is bounded
// by some MiB, whatever the size of the volume.
//
// One thing the caller has to see to: after a crash, or a snapshot from another member, objects are ahead of the applied index until the log is repeated. Options.After is an index
// that was committed after the request for the backup was made (a mark, volume.EntryMark, gives one); Write waits until the replica is there.
//
// # Incremental backups
//
// Every change stamps an inode with its log index, so what changed since an index is found by looking through the inodes: contents of
// files that changed are in the backup as a whole, files of up to 4 KiB are in the metadata, of directories that changed all entries. Inodes that are gone are recognised by the gaps in
// the numbers. Every replica can continue any chain of its volume. After a restore log indexes go on far beyond any of the former life; a chain that holds entries of that life is refused.
//
// # The stream
//
// A line that names the format, then records: kind u8, length u32, CRC-32C u32 of kind, length and body, body. Numbers are big-endian. The first is the header (kind H, JSON:
// see Header), the last is the end (kind E: index u64, time i64 in nanoseconds, number of pieces u64, SHA-256 of everything before this record and of those 24
// bytes). Between them are pieces, their kind being the volume.PieceKind: uvarints inode, offset, length, length of the key; key; data. Holes of files are left out.
//
// # Restore
//
// Restore puts the pieces of a full backup and of those that continue it into an empty store. The result is a volume's state without clients, sessions, opens, locks
// and recorded replies. Clients of the former volume notice by NFS4ERR_BADSESSION; those that held opens may reclaim them and their locks in a grace period, which begins with the
// first client that returns. File handles are the same if the volume's number is. The log index goes on from a number made of the restore's time, as clients remember change
// attributes, and inode numbers that were given out after the backup get another generation. Until the end the state is marked invalid: after a crash it
// is an incomplete restore, which opens as nothing, and the next Restore begins anew.
package backup
