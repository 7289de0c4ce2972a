// Package address moves an IP address to the node that leads.
//
// A Manager adds the address with a valid lifetime of a few seconds and renews it while its owner still may hold it, so
// that the kernel itself removes the address of a daemon that hangs or dies. What users feel depends on the order of
// things at a take-over, because a Linux client reopens a connection that was reset at once, one that was refused only
// after seconds, and one that is silent after a minute or more:
//
//  1. the listener is up (ReuseAddr lets it bind before the address is there);
//  2. Acquire adds the address and announces it by gratuitous ARP or unsolicited neighbour advertisements, so that
//     neighbours send here; until then packets are dropped, never refused;
//  3. Tickle makes the clients of the previous holder notice that their connections are gone.
//
// The address is on a device that goes with the process (openCarrier), where another address or a route leads to the network without it.
// For IPv6 that takes two things more: a sentry answers the neighbours' solicitations in the kernel's place, and a guard keeps the kernel from
// sending the resets of a killed process's connections from an address that it no longer has.
//
// # Who else has the address
//
// Before the address is taken the neighbours are asked who has it (RFC 5227 section 2.1, RFC 4862 section 5.4), once, and given 20 ms to answer:
// a kernel at hand answers within 0.1 ms. Acquire refuses an address that a stranger has. It must not refuse one that a node of
// the cluster has: a daemon that hangs leaves a kernel behind that answers for the address until its lifetime ends. So the nodes are asked for
// their own addresses on the same device at the same time, and what they answer with, or have ever answered with, is not a stranger's. If a
// node answers for the address Acquire goes on at once.
//
// After a crash nobody answers, and that takes the whole 20 ms to learn. They need not come on top of a failover: Probe asks ahead, when a node
// begins to campaign, and by the time it leads the answers are there. Acquire waits for what is left of them, never longer. An answer that comes
// later counts as one that comes while the address is held: the sentry sees it, the address is defended by announcing it again, every 10 s at
// most (RFC 5227 section 2.4), and the conflict is in Describe. An address that is held is never given up for a stranger.
package address
