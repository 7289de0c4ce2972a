package lab

import (
	"encoding/binary"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// awakeEvery is how often a guest gets a frame of no meaning. Now and then the user-mode kernel's network driver does not notice that frames have come before the next one does, which may
// be when TCP repeats what was lost to it, 200 ms and more later. Clients of real machines wait for nothing of the kind, so no measurement should contain it.
const awakeEvery = 5 * time.Millisecond

// alarmEvery is how often, in such frames, a guest gets SIGALRM, which is its kernel's timer interrupt. Once in some hundred runs one went missing, and the guest was silent from
// then on, as if its clock, which is set anew at each, stood still; a SIGALRM from outside brought it back. One too many is like any interrupt that comes early.
const alarmEvery = 20

// awakeFrame is for no machine, of an EtherType for experiments (IEEE 802).
var awakeFrame = append([]byte{
	0x02, 0x48, 0x46, 0, 0, 0x01, // to
	0x02, 0x48, 0x46, 0, 0, 0x02, // from
	0x88, 0xb5,
}, make([]byte, 46)...)

// keepAwake sends such frames to a guest, past the bridge, until it ends, and alarms when it is ready for them.
func (g *Guest) keepAwake() error {
	var fd int
	err := inNamespace(g.lab.Net.hub, func() (err error) {
		tap, err := net.InterfaceByName(g.Name)
		if err != nil {
			return fmt.Errorf("find the tap: %w", err)
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil { // of no protocol: it only sends
			return fmt.Errorf("open a packet socket: %w", err)
		}
		to := unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16([]byte{0x88, 0xb5}), Ifindex: tap.Index}
		if err := unix.Bind(fd, &to); err != nil {
			unix.Close(fd)
			return fmt.Errorf("bind to the tap: %w", err)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("keep %s awake: %w", g.Name, err)
	}
	go func() {
		defer unix.Close(fd)
		tick := time.NewTicker(awakeEvery)
		defer tick.Stop()
		for frames := 1; ; frames++ {
			select {
			case <-g.done:
				return
			case <-tick.C:
				_, _ = unix.Write(fd, awakeFrame) // the next one is as good
			}
			if frames%alarmEvery == 0 && g.isReady() {
				_ = g.cmd.Process.Signal(unix.SIGALRM) // it may have ended just now
			}
		}
	}()
	return nil
}
