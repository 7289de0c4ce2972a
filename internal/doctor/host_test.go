package doctor

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// summed is the result of a check on a host.
func summed(t *testing.T, h *host, cfg *Config, id string) Result {
	t.Helper()
	for _, c := range checks {
		if c.id == id {
			return c.result(t.Context(), h, cfg)
		}
	}
	t.Fatalf("there is no check %s", id)
	return Result{}
}

const (
	tcpHeader = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	// All addresses, port 2049; 127.0.0.1, port 7420; a connection from port 111.
	tcpSockets = tcpHeader +
		"   0: 00000000:0801 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1001 1 0000000000000000 100 0 0 10 0\n" +
		"   1: 0100007F:1CFC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1002 1 0000000000000000 100 0 0 10 0\n" +
		"   2: 0100007F:006F 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 1003 1 0000000000000000 100 0 0 10 0\n"
	tcp6Sockets = tcpHeader +
		"   0: 00000000000000000000000000000000:006F 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1004 1 0 100 0 0 10 0\n"
)

func TestPorts(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		cfg   Config
		want  Status
		says  string
	}{
		{"free", nil, Config{Listen: ":7420", NFS: []string{":2049"}}, OK, "Port 2049 (NFS) is free"},
		{"kernel", map[string]string{"proc/net/tcp": tcpSockets}, Config{NFS: []string{":2049"}}, Problem, "by the kernel"},
		{"ganesha", map[string]string{"proc/net/tcp": tcpSockets, "proc/77/comm": "ganesha.nfsd\n", "proc/77/fd/5": "-> socket:[1001]"},
			Config{NFS: []string{":2049"}}, Problem, "ganesha.nfsd"},
		{"holdfast", map[string]string{"proc/net/tcp": tcpSockets, "proc/77/comm": "holdfast\n", "proc/77/fd/5": "-> socket:[1001]"},
			Config{NFS: []string{"192.0.2.1:2049"}}, OK, "Holdfast has port 2049"},
		{"another address", map[string]string{"proc/net/tcp": tcpSockets}, Config{Listen: "192.0.2.1:7420"}, OK, "7420 (other nodes) is free"},
		{"any address", map[string]string{"proc/net/tcp": tcpSockets}, Config{Listen: ":7420"}, Problem, "7420"},
		{"a name", map[string]string{"proc/net/tcp": tcpSockets}, Config{Listen: "n1.example:7420"}, Problem, "7420"},
		{"rpcbind", map[string]string{"proc/net/tcp": tcpSockets, "proc/net/tcp6": tcp6Sockets, "proc/9/comm": "rpcbind\n", "proc/9/fd/4": "-> socket:[1004]"},
			Config{Portmap: true}, Warning, "rpcbind"},
		{"a connection only", map[string]string{"proc/net/tcp": tcpSockets}, Config{Portmap: true}, OK, "111"},
		{"nonsense", nil, Config{Listen: "here"}, Problem, `"here"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := summed(t, fakeHost(t, tt.files), &tt.cfg, "ports")
			if r.Status != tt.want || !strings.Contains(r.Found, tt.says) {
				t.Errorf("it is %s: %q; want %s with %q", r.Status, r.Found, tt.want, tt.says)
			}
		})
	}
}

func TestParseSocket(t *testing.T) {
	addr, port, ok := parseSocket("B80D0120000000000000000001000000:0801")
	if want := netip.MustParseAddr("2001:db8::1"); !ok || addr != want || port != 2049 {
		t.Errorf("read as %v, %d, %v", addr, port, ok)
	}
	for _, s := range []string{"", ":", "0100007F", "0100007F:", "01007F:0801", "0100007F:10801", "xx00007F:0801"} {
		if _, _, ok := parseSocket(s); ok {
			t.Errorf("%q passes for an address", s)
		}
	}
}

func TestServers(t *testing.T) {
	for _, tt := range []struct {
		files map[string]string
		want  Status
		says  string
	}{
		{map[string]string{"proc/1/comm": "systemd\n"}, OK, "none"},
		{map[string]string{"proc/fs/nfsd/threads": "0\n"}, OK, "none"},
		{map[string]string{"proc/fs/nfsd/threads": "8\n"}, Warning, "8 threads"},
		{map[string]string{"proc/5/comm": "ganesha.nfsd\n", "proc/6/comm": "ganesha.nfsd\n"}, Warning, "Ganesha"},
		{map[string]string{"proc/5/comm": "rpcbind\n"}, OK, "rpcbind runs"},
	} {
		if r := summed(t, fakeHost(t, tt.files), &Config{}, "servers"); r.Status != tt.want || !strings.Contains(r.Found, tt.says) {
			t.Errorf("%v: %s, %q", tt.files, r.Status, r.Found)
		}
	}
}

func TestDisk(t *testing.T) {
	const sda, vda = "sys/devices/pci/block/sda/", "sys/devices/virtio/block/vda/"
	h := fakeHost(t, map[string]string{
		sda + "queue/rotational": "1\n", sda + "queue/write_cache": "write back\n", sda + "device/vendor": "ATA     \n",
		sda + "sda1/partition":   "1\n",
		"sys/dev/block/8:0":      "-> ../../devices/pci/block/sda",
		"sys/dev/block/8:1":      "-> ../../devices/pci/block/sda/sda1",
		vda + "queue/rotational": "1\n", vda + "queue/write_cache": "write through\n",
		"sys/dev/block/254:0": "-> ../../devices/virtio/block/vda",
	})
	for number, want := range map[string]disk{
		"8:0":   {name: "sda", rotational: true, cached: true},
		"8:1":   {name: "sda", rotational: true, cached: true},
		"254:0": {name: "vda", virtual: true},
		"0:42":  {},
	} {
		if got := h.diskAt(number); got != want {
			t.Errorf("%s is %+v, want %+v", number, got, want)
		}
	}
}

const mountinfo = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
30 22 8:1 / /srv rw,noatime shared:9 - ext4 /dev/sda1 rw,nobarrier
31 30 8:17 / /srv/my\040data rw,sync - xfs /dev/sdb1 rw,attr2
32 22 0:5 / /dev rw - devtmpfs udev rw
`

func TestMounts(t *testing.T) {
	all := parseMounts(mountinfo)
	for folder, want := range map[string]string{
		"/": "/", "/var/lib/holdfast": "/", "/srv": "/srv", "/srv/x": "/srv", "/srvx": "/", "/srv/my data/holdfast": "/srv/my data",
	} {
		if got, ok := findMount(all, folder); !ok || got.point != want {
			t.Errorf("%s is on %+v, want %s", folder, got, want)
		}
	}
	for folder, want := range map[string]Status{"/var": OK, "/srv": Problem, "/srv/my data": Warning} {
		m, _ := findMount(all, folder)
		var r Result
		if r.sum(judgeMount(m)); r.Status != want {
			t.Errorf("%s is %s: %s", folder, r.Status, r.Found)
		}
	}
}

func TestExisting(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "disk"), 0o700), os.Symlink("disk", link)); err != nil {
		t.Fatal(err)
	}
	for folder, want := range map[string]string{dir: dir, dir + "/a/b": dir, link: dir + "/disk", link + "/holdfast": dir + "/disk"} {
		if got, err := existing(folder); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", folder, got, err, want)
		}
	}
}

func TestClockAndSteal(t *testing.T) {
	got, ok := stolen("cpu  10 20 30 40 50 60 70 250 0 0\ncpu0 1 2 3\n")
	if !ok || got != 2500*time.Millisecond {
		t.Errorf("stolen: %v, %v", got, ok)
	}
	if _, ok := stolen("intr 1 2 3"); ok {
		t.Error("a line of interrupts passes for processor time")
	}
	h := fakeHost(t, map[string]string{"proc/7/comm": "chronyd\n"})
	if r := summed(t, h, &Config{}, "clock"); !strings.Contains(r.Found, "chronyd") && r.Status != Skipped {
		t.Errorf("clock: %+v", r)
	}
}

func TestLowPortIsAllowed(t *testing.T) {
	files := map[string]string{"proc/self/status": "Name:\tx\nCapEff:\t0000000000000000\n", "proc/sys/net/ipv4/ip_unprivileged_port_start": "0\n"}
	if r := summed(t, fakeHost(t, files), &Config{Portmap: true}, "capabilities"); r.Status != OK {
		t.Errorf("%s: %s", r.Status, r.Found)
	}
	delete(files, "proc/sys/net/ipv4/ip_unprivileged_port_start")
	if r := summed(t, fakeHost(t, files), &Config{Portmap: true}, "capabilities"); r.Status != Problem {
		t.Errorf("%s: %s", r.Status, r.Found)
	}
}

func TestFirewall(t *testing.T) {
	commands := func(outputs map[string]string) func(context.Context, string, ...string) (string, error) {
		return func(_ context.Context, name string, arg ...string) (string, error) {
			out, ok := outputs[name]
			switch {
			case !ok:
				return "", exec.ErrNotFound
			case out == "denied":
				return "", errors.New("exit status 1")
			}
			return out, nil
		}
	}
	read := func(name string) string {
		b, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	tests := []struct {
		name    string
		outputs map[string]string
		want    Status
		says    string
	}{
		{"none", nil, Skipped, "neither"},
		{"not allowed to look", map[string]string{"nft": "denied"}, Skipped, "cannot be read"},
		{"empty", map[string]string{"nft": ""}, OK, "Nothing is dropped"},
		{"open", map[string]string{"nft": read("nft-open")}, OK, "let our ports in"},
		{"closed", map[string]string{"nft": read("nft-closed")}, Warning, "none names port 2049"},
		{"sets", map[string]string{"nft": read("nft-sets")}, OK, "named sets"},
		{"last rule", map[string]string{"nft": read("nft-last")}, Warning, "none names port 7420"},
		{"drops", map[string]string{"nft": "table inet f {\nchain i {\ntype filter hook input priority 0; policy accept;\ntcp dport { 111, 2000-2100 } drop\n}\n}\n"}, Warning, "drops packets for port 2049"},
		{"other port", map[string]string{"nft": "table inet f {\nchain i {\ntype filter hook input priority 0; policy accept;\nudp dport 2049 drop\n}\n}\n"}, OK, "Nothing is dropped"},
		{"iptables closed", map[string]string{"iptables": "-P INPUT DROP\n-P OUTPUT ACCEPT\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n"}, Warning, "none names port 7420"},
		{"iptables open", map[string]string{"iptables": "-P INPUT DROP\n-A INPUT -p tcp -m multiport --dports 22,2049,7000:8000 -j ACCEPT\n"}, OK, "let our ports in"},
		{"iptables last rule", map[string]string{"iptables": "-P INPUT ACCEPT\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A INPUT -j REJECT --reject-with icmp-host-prohibited\n"}, Warning, "port 2049"},
		{"iptables below nft", map[string]string{
			"nft":      "table ip filter {\nchain INPUT {\ntype filter hook input priority 0; policy drop;\nmeta l4proto tcp xt match \"multiport\" counter packets 0 bytes 0 accept\n}\n}\n",
			"iptables": "-P INPUT DROP\n-A INPUT -p tcp -m multiport --dports 2049,7420 -j ACCEPT\n",
		}, OK, "let our ports in"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := fakeHost(t, nil)
			h.command = commands(tt.outputs)
			r := summed(t, h, &Config{Listen: ":7420", NFS: []string{":2049"}}, "firewall")
			if r.Status != tt.want || !strings.Contains(r.Found, tt.says) {
				t.Errorf("it is %s: %q; want %s with %q", r.Status, r.Found, tt.want, tt.says)
			}
		})
	}
}

func TestParsePorts(t *testing.T) {
	for _, tt := range []struct {
		in    string
		want  []portRange
		named bool
	}{
		{"22 2049 7000-8000 counter", []portRange{{22, 22}, {2049, 2049}, {7000, 8000}}, false},
		{"1:5", []portRange{{1, 5}}, false},
		{"@nfs", nil, true},
		{"70000", nil, false},
		{"", nil, false},
	} {
		if got, named := parsePorts(strings.Fields(tt.in)); !reflect.DeepEqual(got, tt.want) || named != tt.named {
			t.Errorf("%q: %v, %v", tt.in, got, named)
		}
	}
}

// FuzzParse checks that nothing that commands and the kernel may print makes a check panic.
func FuzzParse(f *testing.F) {
	f.Add(mountinfo)
	f.Add(tcpSockets + tcp6Sockets)
	f.Add("cpu  10 20 30 40 50 60 70 250 0 0")
	f.Add("MemTotal: 16000000 kB\n")
	f.Add("-P INPUT DROP\n-A INPUT -p tcp -m multiport --dports 22,2049,7000:8000 -j ACCEPT\n")
	for _, name := range []string{"nft-open", "nft-closed", "nft-sets", "nft-last"} {
		b, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, m := range parseMounts(s) {
			_ = judgeMount(m)
		}
		_, _ = stolen(s)
		_ = judgeMemory(parseMeminfo(s))
		_ = judgeKernel(s)
		_, _, _ = parseSocket(s)
		for _, r := range []ruleset{parseNft(s), parseIptables(s)} {
			if len(judgeFirewall(r, []wanted{{port: 2049}})) == 0 {
				t.Errorf("no finding from %+v", r)
			}
		}
	})
}
