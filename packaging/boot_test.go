package packaging

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// guestScript runs in a Debian with systemd as process 1. Each line that begins with "check" is a finding.
const guestScript = `#!/bin/bash
exec >/dev/console 2>&1
echo
check() { name=$1; shift; echo "check $name: $("$@" | tr '\n' ' ')"; }
property() { systemctl show holdfast --value --property="$1"; }
# await COMMAND...: until it succeeds, or half a minute is over.
await() { for i in $(seq 300); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; }
gone() { [ "$(property MainPID)" != "$1" ]; }
back() { [ "$(property MainPID)" != "$1" ] && [ "$(property ActiveState)" = active ]; }

ip link add v0 type veth peer name v1
ip link set v0 up
ip link set v1 up
ip addr add 10.94.0.1/24 dev v0

check "no node yet" property ConditionResult
check "no node yet, state" property ActiveState
check "system" systemctl is-system-running

mkdir -p /var/lib/holdfast/identity
echo '{}' >/var/lib/holdfast/identity/node.json
systemctl start holdfast
check "started" property ActiveState
check "status" property StatusText
journalctl --unit holdfast --output cat | grep '^probe:' | while read -r _ what; do echo "check $what"; done

before=$(property MainPID)
touch /var/lib/holdfast/hang
await gone "$before"
rm /var/lib/holdfast/hang
await back "$before"
check "restarts after a hang" property NRestarts
check "stacks in the journal" sh -c "journalctl --unit holdfast | grep -c 'SIGABRT: abort'"

before=$(property MainPID)
kill -KILL "$before"
await back "$before"
check "restarts after a kill" property NRestarts

before=$(property MainPID)
dpkg --install /root/holdfast.deb >/dev/null
check "after an upgrade" property ActiveState
[ "$(property MainPID)" != "$before" ] && echo "check upgrade restarts: yes"

systemctl stop holdfast
check "stopped" property ActiveState
check "stopped, result" property Result
check "stopped in order" sh -c "journalctl --unit holdfast --output cat | grep -c '^probe: stopped'"
systemctl start holdfast
dpkg --purge holdfast >/dev/null
check "after a purge" pgrep --exact --count probe
check "data after a purge" ls /var/lib/holdfast
sync
systemctl poweroff --force --force
`

const guestService = `[Unit]
After=multi-user.target
[Service]
ExecStart=/root/check
[Install]
WantedBy=multi-user.target
`

// The probe in the daemon's place, and a watchdog that a test can wait for.
const probeDropIn = `[Service]
ExecStart=
ExecStart=/usr/local/bin/probe
WatchdogSec=3s
`

// TestUnit boots a Debian with the package under user-mode Linux and has a program in the daemon's place try what the daemon needs.
func TestUnit(t *testing.T) {
	debian := newChroot(t)
	for _, tool := range []string{"linux.uml", "mke2fs"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s here: apt-get install user-mode-linux e2fsprogs", tool)
		}
	}
	copyModules(t, debian, "tun", "veth")
	debian.write("/root/holdfast.deb", buildPackage(t, "1.0.0"))
	debian.run("dpkg", "--install", "/root/holdfast.deb")
	build := exec.Command("go", "build", "-o", filepath.Join(debian.root, "usr/local/bin/probe"), "./probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the probe: %v\n%s", err, out)
	}
	debian.write("/etc/systemd/system/holdfast.service.d/probe.conf", []byte(probeDropIn))
	debian.program("/root/check", guestScript)
	debian.write("/etc/systemd/system/check.service", []byte(guestService))
	debian.run("systemctl", "enable", "check")

	console := boot(t, debian)
	got := make(map[string]string)
	for line := range strings.Lines(console) {
		if finding, ok := strings.CutPrefix(strings.TrimSpace(line), "check "); ok {
			name, value, _ := strings.Cut(finding, ":")
			got[name] = strings.TrimSpace(value)
		}
	}
	want := map[string]string{
		"no node yet": "no", "no node yet, state": "inactive", "system": "running",
		"started": "active", "status": "holds the address",
		"address": "ok", "privileged port": "ok", "data folder": "ok", "runtime folder": "ok", "timer slack": "ok", "listen backlog": "ok", "files": "ok", "confinement": "ok",
		"restarts after a hang": "1", "stacks in the journal": "1", "restarts after a kill": "2",
		"after an upgrade": "active", "upgrade restarts": "yes",
		"stopped": "inactive", "stopped, result": "success", "stopped in order": "2",
		"after a purge": "0", "data after a purge": "identity",
	}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s: %q, want %q", name, got[name], value)
		}
	}
	if t.Failed() {
		t.Logf("console:\n%s", console)
	}
}

// boot runs a guest on a copy of the chroot until it powers itself off, and returns what it wrote to its console.
func boot(t *testing.T, c *chroot) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "root.img")
	if out, err := exec.Command("mke2fs", "-q", "-t", "ext4", "-d", c.root, image, "1536M").CombinedOutput(); err != nil {
		t.Fatalf("make the guest's disk: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "linux.uml", "ubd0="+image, "root=/dev/ubda", "rw", "mem=512M", "con=null", "con0=null,fd:1", "quiet", "systemd.show_status=0")
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the guest did not power itself off: %v\n%s", err, out)
	}
	return string(out)
}

// copyModules gives the chroot modules of the user-mode kernel, and those that they need.
func copyModules(t *testing.T, c *chroot, names ...string) {
	t.Helper()
	versions, err := filepath.Glob("/usr/lib/uml/modules/*")
	if err != nil || len(versions) == 0 {
		t.Skip("no modules of user-mode Linux here: apt-get install user-mode-linux")
	}
	from := versions[len(versions)-1]
	to := filepath.Join("/lib/modules", filepath.Base(from))
	copyFile := func(name string) {
		content, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		c.write(filepath.Join(to, name), content)
	}
	indexes, _ := filepath.Glob(filepath.Join(from, "modules.*"))
	for _, index := range indexes {
		copyFile(filepath.Base(index))
	}
	dep, err := os.ReadFile(filepath.Join(from, "modules.dep"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(dep)) {
		module, needs, _ := strings.Cut(strings.TrimSpace(line), ":")
		if slices.Contains(names, strings.TrimSuffix(filepath.Base(module), ".ko")) {
			for _, name := range append(strings.Fields(needs), module) {
				copyFile(name)
			}
		}
	}
}
