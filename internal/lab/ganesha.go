package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// GaneshaMissing says why Ganesha cannot be run here; it is empty when it can.
func GaneshaMissing() string {
	if _, err := exec.LookPath("ganesha.nfsd"); err != nil {
		return "NFS-Ganesha is not here; apt-get install nfs-ganesha nfs-ganesha-vfs"
	}
	if vfs, _ := filepath.Glob("/usr/lib/*/ganesha/libfsalvfs.so"); len(vfs) == 0 {
		return "NFS-Ganesha has no VFS back end here; apt-get install nfs-ganesha-vfs"
	}
	return ""
}

const ganeshaConfig = `NFS_CORE_PARAM {
	Protocols = 3, 4; NFS_Port = 2049; MNT_Port = 20048;
	Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; mount_path_pseudo = true;
}
NFSV4 { Graceless = true; RecoveryRoot = %[1]q; Minor_Versions = 0, 1, 2; Only_Numeric_Owners = true; }
NFS_KRB5 { Active_krb5 = false; }
EXPORT { Export_Id = 1; Path = %[2]q; Pseudo = "/data"; Access_Type = RW; Squash = No_Root_Squash; SecType = sys;
	FSAL { Name = VFS; } }
LOG { Default_Log_Level = EVENT; }
`

// ganeshaScript runs its arguments with an rpcbind beside them, without which Ganesha refuses to serve NFSv3. The mount
// namespace is the one that "ip netns exec" has made, so the socket in /run is nobody else's.
const ganeshaScript = `mount -t tmpfs none /run && { rpcbind -f & } &&
for i in $(seq 500); do [ -S /run/rpcbind.sock ] && break; sleep 0.01; done; exec "$0" "$@"`

// Ganesha is NFS-Ganesha on one node, without replication, on a folder of the host: the yardstick for measurements, and
// a check of the workloads themselves.
type Ganesha struct {
	// Process is the server, for its log and the CPU time it used.
	Process *Process
	addr    string
}

// StartGanesha starts it on a node of its own, storing in the lab's folder.
func (l *Lab) StartGanesha(ctx context.Context) (*Ganesha, error) {
	dir := filepath.Join(l.Dir, "ganesha")
	data, recovery := filepath.Join(dir, "data"), filepath.Join(dir, "recovery")
	for _, d := range []string{data, recovery} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	// The root of the export is as open as that of a fresh volume.
	if err := os.Chmod(data, 0o777); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "ganesha.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, ganeshaConfig, recovery, data), 0o644); err != nil {
		return nil, err
	}
	g := &Ganesha{addr: "10.94.0.40"}
	netns, err := l.Net.AddNode("ganesha", g.addr)
	if err != nil {
		return nil, err
	}
	log := filepath.Join(dir, "log")
	g.Process, err = startProcess(l.spawn, netns, "ganesha", log,
		"sh", "-c", ganeshaScript, "ganesha.nfsd", "-F", "-f", config, "-L", log, "-p", filepath.Join(dir, "pid"))
	if err != nil {
		return nil, err
	}
	l.onClose(g.Process.Kill)
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := l.awaitPort(ctx, g.Process, fmt.Sprintf("%s:%d", g.addr, g.Export().Port)); err != nil {
		return nil, err
	}
	return g, nil
}

// Export implements Server.
func (g *Ganesha) Export() Export {
	return Export{Addr: g.addr, Path: "/data", Port: 2049, MountPort: 20048}
}

// awaitPort waits until a process accepts connections. There is no event for that across processes, so it asks.
func (l *Lab) awaitPort(ctx context.Context, p *Process, addr string) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := l.Net.Dial(ctx, addr); err == nil {
			return c.Close()
		}
		select {
		case <-p.Done():
			return fmt.Errorf("%s ended (%v); its log:\n%s", p.Name, p.err, p.tail(20))
		case <-ctx.Done():
			return fmt.Errorf("%s does not accept connections on %s: %w; its log:\n%s", p.Name, addr, ctx.Err(), p.tail(20))
		case <-tick.C:
		}
	}
}
