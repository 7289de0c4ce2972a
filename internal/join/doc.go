// Package join makes clusters and brings machines into them: what `holdfast init` and `holdfast join` do before a node runs, and the answer that a running node gives.
//
// A joiner knows the cluster by the hash of its certificate authority, which is in the token. It makes its own key, shows the token's secret over a connection that is verified by
// that hash, and gets a number and a certificate. It is a member from then on, and begins to take part when it is started.
package join
