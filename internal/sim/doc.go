// Package sim runs a whole cluster and its NFS clients in one goroutine schedule, under a simulated clock, network and disk, from one seed, and
// checks that the clients get what they were promised.
//
// The code of the product runs unchanged: replica.Core with the workers' own code (replica.Manual), the log on a vfs.Sim disk, the volume with
// all its protocols, the gateway. Only clock, network, disk and randomness are handed in; store.Mem stands for Pebble and the host's files, with the same
// crash semantics. What package replica's and package node's goroutines do (see replica.Replica, node.service) is done by events here.
//
// A cluster is one of three kinds: with members that stay, with members that come and go, or two with data and a witness (Kind).
//
// One World is one run. It sets the cluster up, lets clients work while faults strike, heals everything, waits for all clients to finish, and looks at the
// outcome. The first violation of a promise ends the run (World.Err). The same Config gives the same run, event by event: World.Digest tells.
//
// What is checked always, at each event:
//   - at most one node may serve, by its own clock, at any true moment,
//   - a node that may serve has applied everything that was ever acknowledged,
//   - all replicas apply the same entry at each index and compute the same reply to it.
//
// What is checked of clients, as they saw it:
//   - file contents and the namespace are linearizable (package porcupine), which includes that each call took effect once,
//   - a lock is held by one client at a time, and is not lost by a client that renewed its lease,
//   - a client that renews its lease keeps its session and state,
//   - after the faults stop, every call is answered within a bound.
//
// When most members have lost their disks (Config.Ruin): nobody serves any more, each of those members says that it lost something, and what clients saw is right.
//
// What is checked at the end: all replicas have the same checksum, and what clients read then fits what they were told before.
package sim
