package node

import (
	"errors"
	"fmt"
	"net"
	"time"

	"holdfast/internal/cluster"
)

// refusesCertificate reports whether the other side of a connection ended it because it does not accept this node's certificate.
func refusesCertificate(err error) bool {
	var remote *net.OpError
	if !errors.As(err, &remote) || remote.Op != "remote error" {
		return false
	}
	switch remote.Err.Error() {
	case "tls: bad certificate", "tls: revoked certificate", "tls: expired certificate":
		return true
	}
	return false
}

// removed says what to do if this node is no node of the cluster any more: it knows that it was removed, or it is refused by others and answered by none. Usually it does not know, as
// it was none any more when that was decided. It is "" otherwise.
func (n *Node) removed(state *cluster.State, answer, refuse int) string {
	const do = "Stop it, and delete its data folder %s, if what is there is not needed any more; to take part again it has to join anew (`holdfast join`), with an empty data folder"
	revoked := state.ID != "" && state.IsRevoked(n.id.Node, n.creds.Self().Serial)
	switch {
	case !revoked && (refuse == 0 || answer > 0):
		return ""
	case !revoked && time.Now().After(n.creds.Certificate().NotAfter):
		return fmt.Sprintf("the other nodes refuse this node's certificate, which ended on %s: get it a new one (`holdfast node replace %s`), if it was not removed",
			n.creds.Certificate().NotAfter.Local().Format(time.DateTime), n.id.Name)
	}
	return fmt.Sprintf("the other nodes refuse this node's certificate, as node %s was removed from the cluster, or its certificate was revoked. "+do, n.id.Name, n.local.Data)
}
