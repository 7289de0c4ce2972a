package cli

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/config"
	"holdfast/internal/identity"
	"holdfast/internal/join"
	"holdfast/internal/link"
)

// port makes f answer on a port, as a node does: the API for those with a certificate, and machines that want to join.
func (f *fakeNode) port() string {
	f.t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		f.t.Fatal(err)
	}
	request, err := identity.NewRequest(key, "a")
	if err != nil {
		f.t.Fatal(err)
	}
	cert, err := f.ca.SignNode(request, identity.NodeInfo{Number: 1, Name: "a"}, time.Now())
	if err != nil {
		f.t.Fatal(err)
	}
	creds, err := identity.NewCredentials(cert, key, f.ca.CertificatePEM())
	if err != nil {
		f.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	mux := link.Listen(ln, creds, link.Options{Logger: log})
	apiLn, joinLn := mux.Listener(link.ProtoAPI), mux.Listener(link.ProtoJoin)
	ctx, cancel := context.WithCancel(context.Background())
	joiners := &http.Server{Handler: join.Handler(f.admit), ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	done := make(chan error, 3)
	go func() { done <- mux.Serve(ctx) }()
	go func() {
		done <- api.Serve(ctx, apiLn, f, func(c net.Conn) api.Caller { return api.Caller{Name: c.(*link.Conn).Peer().Name} }, log)
	}()
	go func() { done <- joiners.Serve(joinLn) }()
	f.t.Cleanup(func() {
		cancel()
		joiners.Close()
		for range cap(done) {
			if err := <-done; err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) { // the port may be closed first
				f.t.Error(err)
			}
		}
	})
	return ln.Addr().String()
}

// admit lets a machine in.
func (f *fakeNode) admit(_ context.Context, r *join.Request) (*join.Response, error) {
	token, err := identity.ParseToken(r.Token)
	if err != nil {
		return nil, err
	}
	if t := f.machine.State().Token(token.ID); t != nil {
		if err := r.CheckRole(t.Role); err != nil {
			return nil, err
		}
	}
	node := cluster.Node{Name: r.Name, Peer: r.Peer, Zone: r.Zone, Release: r.Release, MaxVersion: r.MaxVersion}
	res := f.apply(r.Name, cluster.Command{AddNode: &cluster.AddNode{Token: token.ID, Hash: token.Hash(), Node: node}})
	if err := res.Err(); err != nil {
		return nil, err
	}
	cert, err := f.ca.SignNode([]byte(r.CSR), identity.NodeInfo{Number: res.Number, Name: r.Name}, time.Now())
	if err != nil {
		return nil, err
	}
	resp := &join.Response{
		Number: res.Number, Role: f.machine.State().NodeNamed(r.Name).Role, ClusterID: "abcdefgh", ClusterName: "office",
		Certificate: string(cert), CA: string(f.ca.CertificatePEM()),
	}
	if resp.Role == cluster.RoleData {
		resp.ClusterKey = make([]byte, identity.ClusterKeyBytes)
	}
	return resp, nil
}

// lastToken is the id of the newest token.
func (f *fakeNode) lastToken() string {
	tokens := f.machine.State().Tokens
	return tokens[len(tokens)-1].ID
}

// TestElsewhere makes a certificate, and uses it to talk to a node over the network.
func TestElsewhere(t *testing.T) {
	f := newFake(t)
	s := newSession(f)
	file := filepath.Join(t.TempDir(), "alice.pem")
	_, bundle, errOut := run("--data", s.dir, "cert", "create", "alice")
	if !strings.Contains(bundle, "PRIVATE KEY") || !strings.Contains(errOut, "holdfast cert revoke 1f2e3d") {
		t.Errorf("%s%s", bundle, errOut)
	}
	s.run(ExitOK, "cert", "create", "alice", "--out", file)
	s.run(ExitFailed, "cert", "create", "alice", "--out", file) // what is there is left alone
	s.run(ExitUsage, "cert", "create", "a/b")
	s.run(ExitOK, "cert", "create", "alice", "-o", "json", "--out", file+"2")
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	address := f.port()
	for _, bundleFile := range []string{file, file + "2"} {
		if code, out, errOut := run("--node", address, "--cert", bundleFile, "node", "list"); code != ExitOK || !strings.Contains(out, "10.0.0.13:7420") {
			t.Errorf("exit code %d, %s%s", code, out, errOut)
		}
	}
	t.Setenv("HOLDFAST_CERT", file)
	if code, _, errOut := run("--node", address, "maintenance", "on"); code != ExitOK {
		t.Errorf("exit code %d, %s", code, errOut)
	}
	if events := f.machine.State().Events; events[len(events)-1].By != "alice" {
		t.Errorf("by %q", events[len(events)-1].By)
	}
	// A certificate of another cluster is refused.
	other := newSession(newFake(t))
	other.run(ExitOK, "cert", "create", "bob", "--out", file+"3")
	if code, out, errOut := run("--node", address, "--cert", file+"3", "status"); code != ExitFailed || !strings.Contains(errOut, "certificate") {
		t.Errorf("exit code %d, %s%s", code, out, errOut)
	}
	f.must(cluster.Command{Note: &cluster.Event{Kind: cluster.EventConfig, Text: "certificate 1f2e3d for administrator alice"}})
	s.run(ExitOK, "cert", "revoke", "1F:2E:3D", "--why", "lost laptop")
	if !f.machine.State().IsRevoked(0, "1f2e3d") {
		t.Error("the certificate is not refused")
	}
	s.run(ExitUsage, "cert", "revoke", "alice")
	s.run(ExitAttention, "cert", "revoke", "1f2e3e") // a digit is wrong
	golden(t, "cert.txt", s.text.String())
}

// TestJoin makes machines nodes, as data node and as witness.
func TestJoin(t *testing.T) {
	f := newFake(t)
	s := newSession(f)
	address := f.port()
	token := func(role cluster.Role) string {
		f.mu.Lock()
		f.now = time.Now()
		f.mu.Unlock()
		res, err := f.Token(t.Context(), "test", api.TokenRequest{Role: string(role), Lifetime: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		return res.Token
	}
	for _, tt := range []struct {
		name  string
		token string
		in    string
		args  []string
		code  int
		want  string
	}{
		{"data", "", token(cluster.RoleData), []string{"--token", "-", "--peer", "10.0.0.20:7430", "--zone", "rack2"}, ExitOK, "node data of cluster office, a data node"},
		{"file", token(cluster.RoleData), "", []string{"--peer", "10.0.0.21:7420"}, ExitOK, "holdfast serve --data "},
		{"witness", "", token(cluster.RoleWitness), []string{"--token", "-", "--witness", "--peer", "10.0.0.22:7420"}, ExitOK, "a witness node"},
		{"wrong", "", token(cluster.RoleData), []string{"--token", "-", "--witness", "--peer", "10.0.0.23:7420"}, ExitFailed, "nothing was done"},
		{"used", "", "", []string{"--token", "-", "--peer", "10.0.0.24:7420"}, ExitFailed, "the token is not known"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.token != "" {
				file := filepath.Join(t.TempDir(), "token")
				if err := os.WriteFile(file, []byte(tt.token+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				tt.args = append(tt.args, "--token", file)
			}
			if tt.name == "used" {
				tt.in = token(cluster.RoleData)
				if res := f.apply("test", cluster.Command{RemoveToken: &cluster.RemoveToken{ID: f.lastToken()}}); res.Err() != nil {
					t.Fatal(res.Err())
				}
			}
			code, out, errOut := runWith(strings.NewReader(tt.in+"\nmore"), append([]string{"join", address, "--data", dir, "--name", tt.name}, tt.args...)...)
			if code != tt.code || !strings.Contains(out+errOut, tt.want) {
				t.Errorf("exit code %d, %s%s\nwant %q", code, out, errOut, tt.want)
			}
			if _, err := identity.Load(identity.Dir(dir)); (err == nil) != (f.machine.State().NodeNamed(tt.name) != nil) {
				t.Errorf("identity: %v", err)
			}
		})
	}
	s.run(ExitOK, "node", "list")
}

func TestInit(t *testing.T) {
	dir := t.TempDir()
	s := &session{t: t, dir: dir}
	s.run(ExitOK, "init", "--cluster", "office", "--name", "a", "--peer", "10.0.0.11:7430", "--zone", "rack1", "--tick", "30ms")
	s.run(ExitFailed, "init")
	golden(t, "init.txt", s.text.String())
	first, err := join.Pending(dir)
	if err != nil || first.Name != "office" || first.Node.Zone != "rack1" || first.Timing.Tick != config.Duration(30*time.Millisecond) || first.Node.Release != "v1.2.3" {
		t.Errorf("%+v, %v", first, err)
	}
}

// TestService has systemd start the node.
func TestService(t *testing.T) {
	f := newFake(t)
	dir := f.serve()
	var calls []string
	var out strings.Builder
	file := filepath.Join(t.TempDir(), "holdfast.yaml")
	if err := os.WriteFile(file, []byte("data: "+dir+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := &options{release: "v1", in: strings.NewReader(""), out: &out, errOut: &out, patience: time.Hour, poll: time.Millisecond, localFile: file}
	o.systemctl = func(_ context.Context, args ...string) (string, error) {
		calls = append(calls, strings.Join(args, " "))
		if args[0] == "show" {
			return "loaded", nil
		}
		return "", nil
	}
	if code := execute(t.Context(), o, []string{"init", "--name", "a", "--peer", "10.0.0.11"}); code != ExitOK || !strings.Contains(out.String(), "the node answers") {
		t.Errorf("exit code %d, %s", code, out.String())
	}
	want := "show --property=LoadState --value holdfast.service; enable holdfast.service; restart holdfast.service"
	if got := strings.Join(calls, "; "); got != want {
		t.Errorf("systemctl %s, want %s", got, want)
	}
	if strings.Contains(out.String(), "holdfast serve") {
		t.Error(out.String())
	}
}

// TestGiveAway is about a data folder of the user that the service runs as, where root makes a node.
func TestGiveAway(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	const user = 12345
	dir := t.TempDir()
	if err := os.Chown(dir, user, user); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := run("init", "--name", "a", "--peer", "10.0.0.11", "--data", dir); code != ExitOK {
		t.Fatal(errOut)
	}
	files := 0
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		files++
		info, err := e.Info()
		if err != nil {
			return err
		}
		if uid, gid, ok := ownerOf(info); !ok || uid != user || gid != user {
			t.Errorf("%s belongs to %d:%d", path, uid, gid)
		}
		return nil
	})
	if err != nil || files < 5 {
		t.Errorf("%d files, %v", files, err)
	}
}
