package address

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// ReuseAddr is a net.ListenConfig.Control function for a listener on an address that moves: the socket may be bound before
// the address is on this machine (IP_FREEBIND, which needs no privilege), and while connections of an earlier listener
// linger.
func ReuseAddr(network, _ string, c syscall.RawConn) error {
	var err error
	set := func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			err = fmt.Errorf("set SO_REUSEADDR: %w", err)
			return
		}
		// The IPv4 option is honoured by IPv6 sockets too, whose own came later.
		if err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1); err != nil {
			err = fmt.Errorf("set IP_FREEBIND on a %s socket: %w", network, err)
		}
	}
	if cErr := c.Control(set); cErr != nil {
		return cErr
	}
	return err
}
