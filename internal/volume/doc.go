// Package volume is the replicated state machine: a filesystem, and the store for the protocol state above it. Its commands are NFS
// requests (entries of the raft log); it knows nothing of raft.
//
// # The way of an entry
//
// Apply decodes the entry and lets a Program run the call on a Tx. The Tx collects changes in memory, where its own reads see them. At the end the changes
// of file data ("object operations") are carried out, with the volume's lock released; then everything else is committed to the
// store in one batch, together with the applied index, and readers see it. So a reader may find new data under an old change
// attribute, never the reverse; readers notice when data is taken away under them (cuts).
//
// # Crashes
//
// The store loses what it was not told to sync: the metadata goes back to some applied index, the objects keep any subset of the later writes.
// The log repeats both: Apply the entries after the index that the metadata shows, and before that Redo those between the last
// checkpoint and that index, whose object operations are recorded as "effects". Repeating object operations in order converges from any
// state that a subset of them leaves: each byte ends up as the last operation that covers it says, whatever it was before. The same holds for a
// snapshot, whose objects are newer than its metadata.
//
// # Determinism
//
// Nothing in apply may depend on anything but the entry and the state: not on time, chance, the order of maps, where the
// host file system has holes, or what an object holds (it may be ahead of the log during recovery). Growth is refused by the entry's
// flag Full and by replicated space figures, never by what the local disk says: a disk that fails or fills stops the replica.
//
// # Time stamps
//
// Reading does not update the access time, as that would make every read a write of the log; atime changes by SETATTR only.
package volume
