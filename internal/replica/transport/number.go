package transport

// nodeBits is how many bits of a member's number are its node's.
const nodeBits = 40

// MemberID is the number of a node's part in a group. A node that gave its part up, has forgotten what it promised in it, and comes again gets another part, so to the group it is
// another member: nothing that was said by the old one or to it can be mistaken. Part 0 is the one that has the node's own number; node must be less than 2^40.
func MemberID(node uint64, part uint32) uint64 { return node | uint64(part)<<nodeBits }

// NodeOf returns the number of the node that a member is on.
func NodeOf(member uint64) uint64 { return member & (1<<nodeBits - 1) }
