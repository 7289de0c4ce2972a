// Package export is the leader's side of exports: which clients may use which folder of a volume, and as whom.
//
// An Export is what an administrator wrote, parsed. A Table answers, for a client's address, with the rules that travel in the log
// entry of each of its requests (volume.Rule); the replicas never see the client lists. Answers are cached per address, so that the
// usual request costs one look into a map.
//
// Client lists may name hosts. Names are resolved in the background by Table.Run and refreshed from time to time; no request ever
// waits for a name server, and when a name server does not answer, what it said last stays in force.
package export
