package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// What the package is tried on.
const (
	suite  = "bookworm"
	mirror = "http://deb.debian.org/debian"
	// include is what the package needs, and what a guest that boots does. In a chroot systemd is there but does not run, as when an image is built.
	include = "systemd,systemd-sysv,udev,kmod,iproute2,procps"
)

// chroot is a minimal Debian in a folder.
type chroot struct {
	t    *testing.T
	root string
}

// newChroot unpacks a minimal Debian, or skips the test where that cannot be had. debootstrap makes it once; it is kept in the user's cache folder.
func newChroot(t *testing.T) *chroot {
	t.Helper()
	if testing.Short() {
		t.Skip("builds packages and installs them; not in short mode")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root for chroot")
	}
	for _, tool := range []string{"unshare", "tar", "debootstrap"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s here: apt-get install debootstrap util-linux tar", tool)
		}
	}
	base := debianBase(t)
	c := &chroot{t, filepath.Join(t.TempDir(), "root")}
	if err := os.Mkdir(c.root, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "--extract", "--numeric-owner", "--file", base, "--directory", c.root).CombinedOutput(); err != nil {
		t.Fatalf("unpack %s: %v\n%s", base, err, out)
	}
	return c
}

// debianBase returns an archive of a minimal Debian.
func debianBase(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = "/var/cache"
	}
	dir := filepath.Join(cache, "holdfast-test")
	archive := filepath.Join(dir, "debian-"+suite+"-"+runtime.GOARCH+"-"+strings.ReplaceAll(include, ",", "+")+".tar")
	if _, err := os.Stat(archive); err == nil {
		return archive
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "base")
	if out, err := exec.Command("debootstrap", "--variant=minbase", "--include="+include, "--arch="+runtime.GOARCH, suite, root, mirror).CombinedOutput(); err != nil {
		t.Skipf("debootstrap cannot make a Debian here, is %s out of reach? %v\n%s", mirror, err, out[max(0, len(out)-2000):])
	}
	unfinished := archive + ".tmp"
	cmd := exec.Command("tar", "--create", "--numeric-owner", "--exclude=./var/cache/apt/archives/*.deb", "--exclude=./var/lib/apt/lists/*", "--file", unfinished, "--directory", root, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("archive the Debian: %v\n%s", err, out)
	}
	if err := os.Rename(unfinished, archive); err != nil {
		t.Fatal(err)
	}
	return archive
}

// in returns the same chroot, which reports to a part of the test.
func (c *chroot) in(t *testing.T) *chroot { return &chroot{t, c.root} }

// run runs a command in the chroot, with mounts and processes of its own, and returns what it printed. A command that fails ends the test.
func (c *chroot) run(command ...string) string {
	c.t.Helper()
	args := append([]string{"--mount", "--pid", "--fork", "--mount-proc=" + filepath.Join(c.root, "proc"), "chroot", c.root}, command...)
	cmd := exec.Command("unshare", args...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("%q: %v\n%s", command, err, out)
	}
	return string(out)
}

// write makes a file in the chroot.
func (c *chroot) write(name string, content []byte) {
	c.t.Helper()
	path := filepath.Join(c.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		c.t.Fatal(err)
	}
}

// program makes a file that can be executed in the chroot.
func (c *chroot) program(name, script string) {
	c.t.Helper()
	c.write(name, []byte(script))
	if err := os.Chmod(filepath.Join(c.root, name), 0o755); err != nil {
		c.t.Fatal(err)
	}
}

// has checks whether a file is there.
func (c *chroot) has(name string, want bool) {
	c.t.Helper()
	if _, err := os.Lstat(filepath.Join(c.root, name)); (err == nil) != want {
		c.t.Errorf("%s: %v, want it to be there: %v", name, err, want)
	}
}

// devPackage runs `./dev package` and returns what it printed.
func devPackage(version, dist string) (string, error) {
	cmd := exec.Command("../dev", "package", version, runtime.GOARCH)
	cmd.Env = append(os.Environ(), "DIST="+dist)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
