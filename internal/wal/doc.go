// Package wal is the raft log of one replica on disk: entries and hard state, in segments of fixed size that are written once from front to
// back and then used again.
//
// The main path is Append: it gathers the entries' bytes where they lie, writes them as one frame with one system call at the end of the
// active segment, and makes that durable with one fdatasync. Everything else exists to make that call cheap (segments are prepared ahead and
// recycled, so that it overwrites blocks which the file system has already allocated) or to make what it promised come true after a crash
// (recovery, in recover.go).
//
// # Format, version 1
//
// All integers are little-endian, all checksums CRC-32C. The folder holds:
//
//	<seq>.seg       segments, 16 hexadecimal digits, numbered without gaps; the last may be prepared and not used yet
//	<seq>.spare     former segments that wait for reuse; their content means nothing
//	prepare.tmp     a segment on its way to existence
//
// A segment is a header page of 4096 bytes and then frames, each directly after the one before, at multiples of 8.
//
//	segment header: magic "HFastLog", version u32, checksum u32 (of what follows), seq u64, salt u64, size u64; zeros to 4096
//
// The salt is a random number, new for each life of a file. Frames carry it, so those of a former life, or bytes that a client made up and wrote into
// its file, are never taken for frames. A segment gets its name only after its header is durable.
//
//	frame header (104 bytes):
//	  0 salt u64        8 offset u64 (of this frame in the segment)
//	 16 magic u32      20 checksum u32 (of bytes 0-19 and 24-103)
//	 24 synced u64     all of the segment before this offset was durable when the frame was written
//	 32 prevEnd u64    where the frames of the segment before this one end; 0 in the first segment of all
//	 40 term u64       48 vote u64         56 commit u64        (the hard state as of this frame)
//	 64 truncIndex u64 72 truncTerm u64                         (the last entry that is no longer needed)
//	 80 first u64      index of the first entry
//	 88 count u32      of entries
//	 92 length u32     of the whole frame, a multiple of 8
//	 96 checksum u32   of the descriptors
//	100 flags u32      1: everything before is void, the log restarts after truncIndex; 2: the log was closed after this frame
//	count descriptors (24 bytes): term u64, length u32, checksum u32 (of the data), type u32, zero u32
//	the entries' data, back to back, then zeros to a multiple of 8
//
// Entries of a frame have consecutive indexes. A frame whose first index is not beyond the last entry replaces the entries from there on.
// Every frame repeats the whole state, so the newest one tells it and no segment is kept for its sake. The write of a frame goes on with zeros to
// the end of its page: whole pages need not be read before they are written.
//
// A reader accepts a header of exactly version 1; a change of the format raises the number and has to say how it reads the older one.
//
// # What recovery may conclude
//
// A frame is written only after the one before is durable, except after a frame that was written without a sync (nothing but the commit
// index changes in it) and in the parts of one large batch. "synced" tells which. So a bad frame at offset x is torn, and cut, only if no valid
// frame header lies behind it, or only such whose synced <= x: nobody was ever told that the bad frame is durable. Otherwise it had been durable and
// is damaged now. A segment is entirely durable before the next one gets its first frame, and that frame's prevEnd tells how long it was, so a bad frame in an
// older segment is always damage. Damage is reported (CorruptError) and never repaired here: the copies are at the peers.
//
// There is one thing that recovery cannot tell: what only the very last sync made durable, and was damaged in the same crash that hides that it was
// durable, looks torn. Close writes a last frame, so a log that was closed has no such blind spot.
//
// A cut never makes room: frames torn in one crash may have whole ones behind them, which a new frame of the right length would bring back. If
// recovery finds such, writing goes on in a new segment.
//
// What recovery reads may be in the page cache only, left by a process whose last fdatasync failed. So Open writes again what is not known to be durable, and
// syncs it, before it tells anyone about it.
//
// # Locks
//
// writeMu serializes writers and guards the active segment's write state; it is held across I/O. dirMu guards spares and changes of names. mu guards what readers
// see (index, cache, hard state) and is never held across I/O. Order: dirMu and writeMu are never held together by one goroutine; mu comes last.
// A reader holds on to a segment without a lock; if the segment is recycled meanwhile, the checksum does not match and the reader finds
// that it was detached.
package wal
