// Package forward lets every node accept a volume's NFS clients on an address of its own, for places where no address can move and for TCP
// balancers, which find the node that serves by package health.
//
// A Proxy accepts. If its own node serves the volume it hands the connection to the server as it is; otherwise it opens a stream to the node that
// does, and copies both ways. The stream begins with a header that says which volume is meant and who the client is, so that export rules
// apply to the client and not to the node in between. A Receiver is the other end: it reads the header, refuses if its node does not serve the
// volume, or hands on a connection that has the client's address.
//
// What a Linux client does when its connection ends decides what its user feels (it reopens one that was reset at once; one that was closed in order,
// or refused, only after 3 s), so a Proxy resets: when the leader changes, when the stream breaks or ends, and when no leader was found. While none
// is known, new connections wait.
//
// Who may open a stream, and its encryption, are the business of whoever gives the Receiver its connections: it believes what the header says.
package forward
