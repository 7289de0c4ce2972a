// Package state is the replicated protocol state of NFSv4.1 and 4.2 (RFC 8881): clients, sessions with their slot reply caches, opens,
// byte-range locks, and the special stateids.
//
// Tables is the replicated part. It is a plain in-memory structure whose every change is mirrored, key by key, into the KV that the
// caller passes, so that Load rebuilds it exactly. It is deterministic: the same calls in the same order give the same tables, the same
// identifiers and the same keys and values on every replica. Time and randomness come as arguments; identifiers come from counters that
// are part of the state; nothing depends on the order of a map.
//
// Front is the leader's own: volatile, created afresh by whoever becomes leader. It watches slot sequence numbers, which requests that
// only read move on without the log's knowledge, renews leases, and knows the connections of the back channels.
//
// # Locking
//
// Tables has no lock. Methods that take a KV need the volume's lock exclusively (they run inside apply); all others only look and need
// it shared. Byte slices that methods return alias the tables and are valid only as long as that lock is held. Front has a mutex of its own
// and its methods never call back into the caller, except for the Recorder given to Admit.
//
// # Exactly once
//
// Only compounds that mutate are recorded in the replicated slot. Apply calls BeginMutating first and Record last; the answer to
// "is this a duplicate" comes from the tables alone. See BeginMutating for the rule and for why late duplicates must be refused.
package state
