// Package packaging holds what the Debian package is made of. Its test installs, upgrades and purges the package in a minimal Debian.
package packaging

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"holdfast/internal/config"
)

// unitPath is the unit's place in the package.
const unitPath = "/usr/lib/systemd/system/holdfast.service"

func TestPackage(t *testing.T) {
	debian := newChroot(t)
	// Release candidates come before the release: 1.0.0~rc1 < 1.0.0.
	before, after := buildPackage(t, "1.0.0~rc1"), buildPackage(t, "1.0.0")
	if again := buildPackage(t, "1.0.0"); !bytes.Equal(again, after) {
		t.Error("the same version was built twice and differs")
	}
	debian.write("/root/before.deb", before)
	debian.write("/root/after.deb", after)
	clean := debian.paths()

	t.Run("install", func(t *testing.T) {
		debian := debian.in(t)
		out := debian.run("dpkg", "--install", "/root/before.deb")
		if !strings.Contains(out, "no node of a cluster yet") {
			t.Errorf("the package does not say what to do next:\n%s", out)
		}
		if got := debian.run("holdfast", "--version"); !strings.Contains(got, "1.0.0~rc1") {
			t.Errorf("holdfast --version says %q", got)
		}
		if got := debian.run("holdfast", "__complete", "stat"); !strings.Contains(got, "status") {
			t.Errorf("the completion of stat is %q", got)
		}
		if got := debian.run("getent", "passwd", "holdfast"); !strings.HasSuffix(got, ":/var/lib/holdfast:/usr/sbin/nologin\n") {
			t.Errorf("the user is %q", got)
		}
		if got := debian.run("stat", "--format=%U %G %a", "/var/lib/holdfast"); got != "holdfast holdfast 750\n" {
			t.Errorf("the data folder has owner, group and mode %q", got)
		}
		for _, name := range []string{
			"/etc/holdfast/holdfast.env", "/etc/holdfast/holdfast.yaml", "/usr/share/man/man8/holdfast.8.gz", "/usr/share/man/man8/holdfast-serve.8.gz",
			"/usr/share/bash-completion/completions/holdfast", "/usr/share/zsh/vendor-completions/_holdfast", "/usr/share/fish/vendor_completions.d/holdfast.fish",
			"/usr/share/doc/holdfast/copyright", unitPath,
		} {
			if got := debian.run("stat", "--format=%U %G %a", name); got != "root root 644\n" {
				t.Errorf("%s has owner, group and mode %q", name, got)
			}
		}
		if local, err := config.LoadLocal(filepath.Join(debian.root, config.DefaultLocalPath)); err != nil || !reflect.DeepEqual(local, defaults(t)) {
			t.Errorf("the node's own file as it is installed says %+v, %v; want the defaults, %+v", local, err, defaults(t))
		}
		if got := debian.run("systemctl", "is-enabled", "holdfast"); got != "enabled\n" {
			t.Errorf("the service is %q", got)
		}
	})

	t.Run("unit", func(t *testing.T) {
		debian := debian.in(t)
		if out := debian.run("systemd-analyze", "verify", "--man=no", unitPath); out != "" {
			t.Errorf("systemd-analyze verify:\n%s", out)
		}
		// Fails if the unit is exposed more than 2.5 on systemd's scale of 10.
		debian.run("systemd-analyze", "security", "--offline=true", "--threshold=25", unitPath)
	})

	const setting = "GOMEMLIMIT=1GiB\n"
	t.Run("upgrade", func(t *testing.T) {
		debian := debian.in(t)
		debian.write("/etc/holdfast/holdfast.env", []byte(setting))
		debian.write("/var/lib/holdfast/identity/node.json", []byte("{}"))
		debian.run("systemctl", "disable", "holdfast")
		out := debian.run("dpkg", "--install", "/root/after.deb")
		if strings.Contains(out, "no node of a cluster yet") {
			t.Errorf("the machine is a node, but the package says:\n%s", out)
		}
		if got := debian.run("holdfast", "--version"); !strings.Contains(got, "1.0.0\n") {
			t.Errorf("holdfast --version says %q", got)
		}
		if got := debian.run("cat", "/etc/holdfast/holdfast.env"); got != setting {
			t.Errorf("the changed setting is %q now", got)
		}
		if got := debian.run("sh", "-c", "systemctl is-enabled holdfast || true"); got != "disabled\n" {
			t.Errorf("the service was disabled and is %q now", got)
		}
	})

	t.Run("remove", func(t *testing.T) {
		debian := debian.in(t)
		debian.run("dpkg", "--remove", "holdfast")
		debian.has("/usr/bin/holdfast", false)
		debian.has(unitPath, false)
		debian.has("/etc/holdfast/holdfast.env", true)
		debian.has("/var/lib/holdfast/identity/node.json", true)
		debian.run("dpkg", "--install", "/root/after.deb")
		if got := debian.run("cat", "/etc/holdfast/holdfast.env"); got != setting {
			t.Errorf("after removal and installation the changed setting is %q", got)
		}
		if got := debian.run("sh", "-c", "systemctl is-enabled holdfast || true"); strings.Contains(got, "masked") {
			t.Errorf("after removal and installation the service is %q", got)
		}
	})

	t.Run("purge", func(t *testing.T) {
		debian := debian.in(t)
		out := debian.run("dpkg", "--purge", "holdfast")
		if !strings.Contains(out, "/var/lib/holdfast is kept") {
			t.Errorf("the purge does not say that data is kept:\n%s", out)
		}
		debian.has("/var/lib/holdfast/identity/node.json", true)
		want := []string{"/var/lib/holdfast", "/var/lib/holdfast/identity", "/var/lib/holdfast/identity/node.json"}
		if left := debian.since(clean); !slices.Equal(left, want) {
			t.Errorf("the purge left %q, want %q", left, want)
		}
		debian.run("rm", "-r", "/var/lib/holdfast/identity")
		debian.run("dpkg", "--install", "/root/after.deb")
		debian.run("dpkg", "--purge", "holdfast")
		if left := debian.since(clean); len(left) > 0 {
			t.Errorf("the purge of a node without data left %q", left)
		}
	})

	// From here on the scripts believe that systemd runs.
	t.Run("running", func(t *testing.T) {
		debian := debian.in(t)
		debian.program("/usr/local/sbin/systemctl", "#!/bin/sh\n")
		debian.program("/usr/local/sbin/deb-systemd-invoke", "#!/bin/sh\necho \"$*\" >>/root/calls\n")
		for _, step := range []struct{ name, command, want string }{
			{"first installation", "dpkg --install /root/before.deb", "start holdfast.service\n"},
			// The old daemon runs on until the files are there, then hands over as it stops.
			{"upgrade", "dpkg --install /root/after.deb", "try-restart holdfast.service\n"},
			{"removal", "dpkg --remove holdfast", "stop holdfast.service\n"},
			{"purge", "dpkg --purge holdfast", ""},
		} {
			got := debian.run("sh", "-c", "mkdir -p /run/systemd/system; : >/root/calls; "+step.command+" >/dev/null; cat /root/calls")
			if got != step.want {
				t.Errorf("%s calls systemd with %q, want %q", step.name, got, step.want)
			}
		}
	})
}

// defaults are a node's own settings where its file says nothing.
func defaults(t *testing.T) *config.Local {
	t.Helper()
	local, err := config.ParseLocal(config.DefaultLocalPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	return local
}

// TestVersionIsChecked gives `./dev package` what Debian would refuse.
func TestVersionIsChecked(t *testing.T) {
	for _, version := range []string{"v1.0", "1.0-1", "1.0 ", "1:2"} {
		out, err := devPackage(version, t.TempDir())
		if err == nil || !strings.Contains(out, "is no version of a package") {
			t.Errorf("./dev package %q: %v\n%s", version, err, out)
		}
	}
}

// buildPackage returns a package for this machine's architecture.
func buildPackage(t *testing.T, version string) []byte {
	t.Helper()
	dist := t.TempDir()
	if out, err := devPackage(version, dist); err != nil {
		t.Fatalf("./dev package %s: %v\n%s", version, err, out)
	}
	b, err := os.ReadFile(filepath.Join(dist, "holdfast_"+version+"_"+runtime.GOARCH+".deb"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// paths returns all files and folders but for those that any use of dpkg leaves.
func (c *chroot) paths() map[string]bool {
	c.t.Helper()
	all := make(map[string]bool)
	err := filepath.WalkDir(c.root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		path = strings.TrimPrefix(path, c.root)
		switch path {
		case "/var/lib/dpkg", "/var/log", "/root", "/run", "/proc", "/tmp":
			return filepath.SkipDir
		}
		all[path] = true
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return all
}

// since returns what is there and was not when before was made, copies of the user database aside.
func (c *chroot) since(before map[string]bool) []string {
	c.t.Helper()
	var added []string
	for path := range c.paths() {
		database := strings.HasPrefix(path, "/etc/") && strings.HasSuffix(path, "-") || path == "/etc/.pwd.lock"
		if !before[path] && !database {
			added = append(added, path)
		}
	}
	slices.Sort(added)
	return added
}
