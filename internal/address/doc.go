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
package address
