// Package cluster is the replicated state of a cluster: who its nodes are, who may join, which volumes there are, who keeps and who should lead them.
//
// It is a small state machine that raft group 0 replicates to all nodes, the witness included. Commands come from people (by way of package api) and from the
// leaders' reconciliation; each is applied whole or not at all. State is never changed in place: readers hold on to a *State for as long as they like.
//
// Plan and Place are pure functions of a State and of what was observed, so that they can be asked what they would do, and why.
package cluster
