// Package portmap tells NFSv3 clients at which ports NFS and MOUNT are, as rpcbind does: port mapper version 2 and rpcbind versions 3 and 4 (RFC
// 1833), over UDP and TCP. Clients that are told the ports (mount options port and mountport) and NFSv4 clients do not need it.
//
// A Server answers on port 111 of the addresses that it is given. Where a program holds that port already, which should be rpcbind, the services
// are registered there instead.
//
// It only answers questions. Nobody can register anything with it, and it calls nobody on behalf of others (CALLIT). By UDP, where a sender can be
// forged, an answer is at most twice as long as its question, and there are only so many answers a second to one network; DUMP is for TCP.
package portmap
