// Package node runs one node of a cluster: for each volume a store, a log, a raft group, a gateway and an NFS listener, and what they
// share. It owns the goroutines that the packages below do without, and decides what happens when a volume's leadership comes and goes.
//
// The main path: Node.Run starts the services; service.Handle takes each NFS record to the gateway; service.lead and service.follow
// react to raft.
package node
