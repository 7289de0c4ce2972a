package join

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/internal/cluster"
	"holdfast/internal/identity"
	"holdfast/internal/link"
)

// member answers requests to join, with the credentials of a node that Init made.
func member(t *testing.T, dir string, admit func(context.Context, *Request) (*Response, error)) (addr string) {
	t.Helper()
	id, err := identity.Load(identity.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	creds, err := id.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	mux := link.Listen(ln, creds, link.Options{})
	srv := &http.Server{Handler: Handler(admit), ReadHeaderTimeout: time.Second}
	joins := mux.Listener(link.ProtoJoin)
	done := make(chan error, 2)
	go func() { done <- mux.Serve(ctx) }()
	go func() { done <- srv.Serve(joins) }()
	t.Cleanup(func() {
		cancel()
		srv.Close()
		<-done
		<-done
	})
	return ln.Addr().String()
}

// initial makes a cluster and returns its data folder, its authority and a token for it.
func initial(t *testing.T) (dir string, ca *identity.CA, token string) {
	t.Helper()
	dir = t.TempDir()
	id, err := Init(Options{Data: dir, Name: "a", Peer: "127.0.0.1:1", Cluster: "test"})
	if err != nil {
		t.Fatal(err)
	}
	first, err := Pending(dir)
	if err != nil || first == nil {
		t.Fatalf("%+v, %v", first, err)
	}
	if ca, err = identity.OpenCA(id.CA, first.SealedKey, id.ClusterKey); err != nil {
		t.Fatal(err)
	}
	return dir, ca, identity.NewToken(ca.Certificate).String()
}

// TestJoin joins by a node that cannot sign and names others, the first of which is not there.
func TestJoin(t *testing.T) {
	dir, ca, token := initial(t)
	admit := func(_ context.Context, r *Request) (*Response, error) {
		cert, err := ca.SignNode([]byte(r.CSR), identity.NodeInfo{Number: 2, Name: r.Name}, time.Now())
		if err != nil {
			return nil, err
		}
		return &Response{
			Number: 2, Role: cluster.RoleWitness, ClusterID: ca.ClusterID(), ClusterName: "test", Certificate: string(cert), CA: string(ca.CertificatePEM()),
			Hints: Hints{Peers: map[uint64]string{1: "127.0.0.1:1"}},
		}, nil
	}
	able := member(t, dir, admit)
	unable := func(ask ...string) string {
		return member(t, dir, func(context.Context, *Request) (*Response, error) {
			return &Response{Ask: ask}, errors.New("this is a witness")
		})
	}
	for _, tt := range []struct {
		name, addr, err string
	}{
		{"straight", able, ""},
		{"by a witness", unable("127.0.0.1:1", able), ""},
		{"by a witness that is alone", unable("127.0.0.1:1"), "this is a witness"},
		{"by a witness that knows nobody", unable(), "this is a witness"},
		{"by nobody", "127.0.0.1:1", "refused. Is 127.0.0.1:1 the address of a node"},
		{"nowhere", "", "is not the address of a node"},
		{"two ports", "127.0.0.1:1:2", "no such host"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "new")
			id, err := Join(t.Context(), tt.addr, token, Options{Data: data, Name: "b", Peer: "127.0.0.1:2"})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want one with %q", err, tt.err)
				}
				if _, err := identity.Load(identity.Dir(data)); !errors.Is(err, identity.ErrNone) {
					t.Errorf("something is left behind: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			hints, err := LoadHints(data)
			if err != nil || hints.Peers[1] != "127.0.0.1:1" || id.Node != 2 || id.ClusterKey != nil {
				t.Errorf("%+v, %+v, %v", id, hints, err)
			}
			if _, err := Join(t.Context(), tt.addr, token, Options{Data: data, Name: "b", Peer: "127.0.0.1:2"}); err == nil || !strings.Contains(err.Error(), "this is node b of cluster test already") {
				t.Errorf("a second time: %v", err)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tt := range []struct {
		name       string
		o          Options
		node, peer string
		err        string
	}{
		{"all given", Options{Name: "x", Peer: "10.0.0.1:99"}, "x", "10.0.0.1:99", ""},
		{"no port", Options{Name: "x", Peer: "10.0.0.1"}, "x", "10.0.0.1:7420", ""},
		{"IPv6", Options{Name: "x", Peer: "fd00::1"}, "x", "[fd00::1]:7420", ""},
		{"the host's name", Options{Peer: "10.0.0.1"}, shortName(host), "10.0.0.1:7420", ""},
		{"every address", Options{Name: "x", Peer: "0.0.0.0:7420"}, "", "", "no address that other nodes can reach"},
		{"itself", Options{Name: "x", Peer: "127.0.0.1:7420"}, "", "", "is this machine itself"},
		{"another's port", Options{Name: "x", Peer: taken.Addr().String()}, "", "", "listens at " + taken.Addr().String() + " already"},
		{"a bad name", Options{Name: "x y", Peer: "10.0.0.1"}, "", "", "--name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.Data = t.TempDir()
			toward := ""
			if tt.name == "itself" {
				toward = "10.0.0.1:7420"
			}
			err := tt.o.complete(toward)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil || tt.o.Name != tt.node || tt.o.Peer != tt.peer {
				t.Errorf("%+v, %v", tt.o, err)
			}
		})
	}
}

// TestDeadClock refuses to make a cluster whose certificates would have ended when the clock is right.
func TestDeadClock(t *testing.T) {
	o := Options{Data: t.TempDir(), Name: "x", Peer: "10.0.0.1", Now: time.Unix(0, 0).AddDate(0, 6, 0)}
	if _, err := Init(o); err == nil || !strings.Contains(err.Error(), "1970") || !strings.Contains(err.Error(), "timedatectl") {
		t.Errorf("got %v", err)
	}
	o.Now = time.Time{}
	if _, err := Init(o); err != nil {
		t.Errorf("in the same folder, with the clock of this machine: %v", err)
	}
}

// TestLeftover refuses a data folder that another node has left without its identity: its volumes would be deleted.
func TestLeftover(t *testing.T) {
	for _, name := range []string{"volumes", "groups.json", "cluster/state.json", "cluster/log"} {
		data := t.TempDir()
		if err := os.MkdirAll(filepath.Join(data, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := Init(Options{Data: data, Name: "a", Peer: "127.0.0.1:1"}); err == nil || !strings.Contains(err.Error(), "not which node that was") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What a try that failed has left does no harm.
	data := t.TempDir()
	if err := makeFolder(data); err != nil {
		t.Fatal(err)
	}
	if err := saveJSON(filepath.Join(data, clusterDir, hintsFile), Hints{}); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(Options{Data: data, Name: "a", Peer: "127.0.0.1:1"}); err != nil {
		t.Error(err)
	}
}

// TestDataFolder wants to hear of a folder that nothing can be written to before anybody is asked.
func TestDataFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, token := initial(t)
	asked := member(t, firstOf(initial(t)), func(context.Context, *Request) (*Response, error) {
		t.Error("the cluster was asked")
		return nil, errors.New("asked")
	})
	for _, data := range []string{file, "/proc/1"} {
		if _, err := Join(t.Context(), asked, token, Options{Data: data, Name: "b", Peer: "127.0.0.1:2"}); err == nil || !strings.Contains(err.Error(), data) {
			t.Errorf("%s: error %v", data, err)
		}
	}
}

func firstOf(dir string, _ *identity.CA, _ string) string { return dir }

func TestCheckRole(t *testing.T) {
	for _, tt := range []struct {
		wants, token cluster.Role
		ok           bool
	}{
		{"", cluster.RoleData, true},
		{"", cluster.RoleWitness, true},
		{cluster.RoleWitness, cluster.RoleWitness, true},
		{cluster.RoleWitness, cluster.RoleData, false},
		{cluster.RoleData, cluster.RoleWitness, false},
	} {
		r := Request{Role: tt.wants}
		if err := r.CheckRole(tt.token); (err == nil) != tt.ok {
			t.Errorf("a machine that is to be %q, with a token for %q: %v", tt.wants, tt.token, err)
		}
	}
}
