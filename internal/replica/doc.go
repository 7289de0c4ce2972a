// Package replica runs one replica of a replicated state machine: one raft group's member with its lease, its log, the snapshots it sends
// and receives, and the handing over of leadership.
//
// It comes in two layers. Core is the protocol: single-threaded, without goroutines, clock, disk or network; time, messages and finished
// work go in through methods, messages to send and work to do come out of Take. Replica is the driver that production uses: it feeds a Core in turns, taken
// by whoever has news for it (loop.go), with a thread that ticks, a worker that appends to the log, one that applies entries, one that takes checkpoints. A simulator
// drives Cores of a whole cluster in one goroutine instead, with the same workers' rules (see Work in work.go).
//
// Members are added, replaced and removed at run time (SetMembers). A group with two copies of the data may have a third voter that holds none, a witness (WitnessBit).
//
// DESIGN.md beside this file argues why the lease, the transfer of leadership, the return of a node that lost its disk and changes of the membership are safe, and why a
// group with a witness goes on when any member is lost.
//
// A turn never waits for disk or network, nor for a lock that is held across either. Whatever storage fails ends the replica for good: Config.Fatal is called
// and the process is expected to exit, because nothing is known of the page cache after a failed fsync.
package replica
