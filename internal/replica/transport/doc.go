// Package transport carries the messages of raft groups between nodes.
//
// A node has two connections to each peer that it writes to, and the peer two to it: one for what is small and must not wait (heartbeats, votes,
// leases), one for entries and their acknowledgements. A snapshot gets a third, for its time. All groups share them.
//
// Connections are made and accepted by package link, with TLS, which proves who is at the other end. Each begins with a hello in which both sides say what
// they take each other for. What follows is frames: length, checksum, message. Entries are encrypted from where they lie and read into one buffer that they
// then alias. There is no protocol buffer on the wire.
//
// Nothing waits for a peer: queues are bounded, what does not fit or cannot be sent is dropped and reported as unreachable, and raft sends it again. What was
// queued for a connection that broke is never sent on the next one, so a peer that restarted hears nothing that was meant for its former self.
//
// The peers can change at any time (SetPeers).
package transport
