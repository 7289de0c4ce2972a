// Package identity says who a node is: the cluster's certificate authority, the certificates that it signs, the files that keep them, the tokens with which
// a node asks to join, and the TLS configurations that follow from all this.
//
// A certificate names its owner in a URI: holdfast://CLUSTER/node/NUMBER for a node, holdfast://CLUSTER/admin/NAME for an administrator. Host names and addresses
// play no part. Both sides of every connection verify the other's certificate (the cluster's CA, the dates, the number that was expected, whether it is revoked),
// except where a node that has no certificate yet asks to join: it verifies the cluster's CA by the hash in its token.
package identity
