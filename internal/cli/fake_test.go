package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/config"
	"holdfast/internal/doctor"
	"holdfast/internal/identity"
	"holdfast/internal/vfs"
)

// began is when the clusters of the tests were made.
var began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// fakeNode is a node whose cluster is the real state machine, and whose volumes are as they should be unless the test says otherwise.
type fakeNode struct {
	t  *testing.T
	ca *identity.CA

	mu      sync.Mutex // guards what follows
	machine *cluster.Machine
	index   uint64
	// now is the time of commands; it passes with each.
	now     time.Time
	leaders map[string]string // of volumes; the first member unless here
	// tweak, if set, changes what Status says.
	tweak func(s *api.Status)
	// before, if set, is called before a command, as somebody who is quicker.
	before func(cmd cluster.Command)
	// err, if set, is the answer to whatever is not a question about the state.
	err      error
	check    api.CheckResult
	results  []doctor.Result
	backups  map[uint64][]byte // by Since
	restored []byte
}

// newFake makes a cluster of the data nodes a, b and c.
func newFake(t *testing.T, nodes ...string) *fakeNode {
	t.Helper()
	m, err := cluster.OpenMachine(vfs.OS(), filepath.Join(t.TempDir(), "state"), func(*cluster.State) {})
	if err != nil {
		t.Fatal(err)
	}
	ca, err := identity.NewCA("office", "abcdefgh", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeNode{t: t, ca: ca, machine: m, now: began, leaders: map[string]string{}}
	if len(nodes) == 0 {
		nodes = []string{"a", "b", "c"}
	}
	for i, name := range nodes {
		node := cluster.Node{Number: uint64(i + 1), Name: name, Peer: fmt.Sprintf("10.0.0.%d:7420", 11+i), Release: "v1.2.3", MaxVersion: 1}
		if i == 0 {
			f.must(cluster.Command{Init: &cluster.Init{ID: "abcdefgh", Name: "office", CA: string(ca.CertificatePEM()), SealedKey: []byte("s"), Node: node}})
			continue
		}
		role := cluster.RoleData
		if strings.HasPrefix(name, "w") {
			role = cluster.RoleWitness
		}
		f.must(cluster.Command{AddToken: &cluster.Token{ID: name, Hash: []byte{1}, Role: role, Expires: began.Add(time.Hour)}})
		f.must(cluster.Command{AddNode: &cluster.AddNode{Token: name, Hash: []byte{1}, Node: node}})
	}
	return f
}

func (f *fakeNode) must(cmd cluster.Command) {
	f.t.Helper()
	if r := f.apply("test", cmd); r.Err() != nil {
		f.t.Fatal(r.Err())
	}
}

func (f *fakeNode) apply(by string, cmd cluster.Command) cluster.Result {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(time.Second)
	cmd.Time, cmd.By = f.now, by
	entry, err := cmd.Encode()
	if err != nil {
		f.t.Error(err)
	}
	f.index++
	reply, err := f.machine.Apply(f.index, entry)
	var res cluster.Result
	if err != nil || json.Unmarshal(reply, &res) != nil {
		f.t.Errorf("command %s: %v", entry, err)
	}
	return res
}

// work lets the cluster do what it does by itself, one step.
func (f *fakeNode) work() {
	s := f.machine.State()
	for i := range s.Volumes {
		if v := &s.Volumes[i]; len(v.Former) > 0 {
			f.apply("", cluster.Command{MembersDone: &cluster.MembersDone{Volume: v.ID, Members: v.Members}})
			return
		}
	}
	for _, cmd := range s.Plan(s.Voters()) {
		f.apply("", cmd)
		return
	}
}

// able lists the nodes that can lead a volume, the best first.
func able(s *cluster.State, v *cluster.Volume) []string {
	var names []string
	for _, standby := range []bool{false, true} {
		for _, m := range v.DataMembers() {
			if n := s.Node(m); n != nil && (n.Standby || n.Leaving) == standby {
				names = append(names, n.Name)
			}
		}
	}
	return names
}

// tweakWith sets tweak: a command that has ended may have left a question behind that is still being answered.
func (f *fakeNode) tweakWith(tweak func(s *api.Status)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tweak = tweak
}

// runBefore sets before.
func (f *fakeNode) runBefore(before func(cmd cluster.Command)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = before
}

func (f *fakeNode) Status(_ context.Context, local bool) api.Status {
	f.work()
	s := f.machine.State()
	status := api.Status{
		Cluster: s.Name, ClusterID: s.ID, Node: "a", ID: 1, Role: "data", Release: "v1.2.3", Started: time.Now().Add(-26 * time.Hour), ClusterVersion: s.Version,
		Revision: s.Revision, ClusterLeader: "a", RSSBytes: 61 << 20, Nodes: []api.NodeStatus{}, Volumes: []api.VolumeStatus{},
	}
	status.Group = api.ClusterGroup{Role: "leader", Term: 3, Serving: true, Majority: len(s.Voters())/2 + 1}
	for _, v := range s.Voters() {
		status.Group.Voters = append(status.Group.Voters, api.VoterStatus{Node: s.NodeName(v), ID: v})
	}
	if m := s.Maintenance; m != nil {
		status.Maintenance = m.Why + " until " + m.Until.UTC().Format(time.TimeOnly)
	}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		state := api.NodeAnswers
		if n.Name == "a" {
			state = api.NodeSelf
		}
		status.Nodes = append(status.Nodes, api.NodeStatus{
			Name: n.Name, ID: n.Number, Role: string(n.Role), Peer: n.Peer, Zone: n.Zone, State: state, Release: n.Release, Standby: n.Standby, Leaving: n.Leaving,
			Expires: began.AddDate(1, 0, 0),
		})
	}
	for i := range s.Volumes {
		status.Volumes = append(status.Volumes, f.volume(s, &s.Volumes[i]))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tweak != nil && !local {
		f.tweak(&status)
	}
	for i := range status.Group.Voters {
		v := &status.Group.Voters[i]
		at := slices.IndexFunc(status.Nodes, func(n api.NodeStatus) bool { return n.ID == v.ID })
		v.State = status.Nodes[at].State
	}
	return status
}

func (f *fakeNode) volume(s *cluster.State, v *cluster.Volume) api.VolumeStatus {
	candidates := able(s, v)
	f.mu.Lock()
	leader := f.leaders[v.Spec.Name]
	f.mu.Unlock()
	if n := s.NodeNamed(leader); n == nil || n.Standby || !slices.Contains(candidates, leader) {
		leader = candidates[0]
	}
	vs := api.VolumeStatus{
		Name: v.Spec.Name, ID: v.ID, Address: v.Spec.MountAddr().String(), Role: "leader", Leader: leader, Safety: api.SafetyFull, Term: 7, Commit: 1200, Applied: 1199,
		First: 100, Last: 1201, Serving: true, LeaseMS: 150, Copies: v.Spec.Copies, Exports: paths(&v.Spec), Prefer: v.Spec.Prefer, SizeBytes: uint64(v.Spec.Size), UsedBytes: 3 << 30,
		Space: api.SpaceStatus{FreeBytes: 10 << 30, TotalBytes: 100 << 30}, Log: api.LogStatus{Segments: 3, Bytes: 192 << 20, LastSyncUS: 850},
	}
	for _, m := range v.Members {
		name := s.NodeName(m)
		vs.Members = append(vs.Members, name)
		role := "follower"
		if name == leader {
			role = "leader"
		}
		witness := s.Node(m) != nil && s.Node(m).Role == cluster.RoleWitness
		vs.Replicas = append(vs.Replicas, api.ReplicaStatus{Node: name, ID: m, Role: role, Match: 1201, Active: true, InSync: !witness, Witness: witness})
	}
	return vs
}

func (f *fakeNode) State(context.Context) (*cluster.State, error) {
	return f.machine.State().Public(), nil
}

func (f *fakeNode) Events(ctx context.Context, after uint64, wait bool) ([]cluster.Event, error) {
	for {
		var list []cluster.Event
		for _, e := range f.machine.State().Events {
			if e.Seq > after {
				list = append(list, e)
			}
		}
		if len(list) > 0 || !wait || !pause(ctx, time.Millisecond) {
			return list, nil
		}
	}
}

func (f *fakeNode) Do(_ context.Context, by string, cmd cluster.Command) (cluster.Result, error) {
	if f.err != nil {
		return cluster.Result{}, f.err
	}
	f.mu.Lock()
	before := f.before
	f.mu.Unlock()
	if before != nil {
		before(cmd)
	}
	res := f.apply(by, cmd)
	return res, res.Err()
}

func (f *fakeNode) Token(_ context.Context, by string, r api.TokenRequest) (api.TokenResult, error) {
	t := identity.NewToken(f.ca.Certificate)
	expires := f.now.Add(r.Lifetime)
	res := f.apply(by, cluster.Command{AddToken: &cluster.Token{ID: t.ID, Hash: t.Hash(), Role: cluster.Role(r.Role), Expires: expires, Replaces: r.Replaces}})
	return api.TokenResult{ID: t.ID, Token: t.String(), Expires: expires, Address: "10.0.0.11:7420"}, res.Err()
}

func (f *fakeNode) NodeCertificate(context.Context, uint64, string) (api.CertificateResult, error) {
	return api.CertificateResult{}, errors.New("no command asks for this")
}

func (f *fakeNode) AdminCertificate(_ context.Context, _ string, r api.CertificateRequest) (api.CertificateResult, error) {
	cert, err := f.ca.SignAdmin([]byte(r.Request), r.Name, r.Lifetime, time.Now())
	if err != nil {
		return api.CertificateResult{}, api.Errorf(http.StatusBadRequest, "%v", err)
	}
	return api.CertificateResult{Certificate: string(cert), CA: string(f.ca.CertificatePEM()), Serial: "1f2e3d", Expires: began.Add(r.Lifetime)}, nil
}

func (f *fakeNode) Check(context.Context, string, string) (api.CheckResult, error) {
	return f.check, f.err
}

func (f *fakeNode) Transfer(_ context.Context, _, volume, to string) (api.TransferResult, error) {
	s := f.machine.State()
	v := s.Volume(volume)
	switch {
	case f.err != nil:
		return api.TransferResult{}, f.err
	case v == nil:
		return api.TransferResult{}, api.Errorf(http.StatusNotFound, "there is no volume %q", volume)
	}
	from := f.volume(s, v).Leader
	for _, n := range able(s, v) {
		if to == "" && n != from {
			to = n
		}
	}
	if !slices.Contains(able(s, v), to) {
		return api.TransferResult{}, api.Errorf(http.StatusBadRequest, "there is no node %q", to)
	}
	f.mu.Lock()
	f.leaders[volume] = to
	f.mu.Unlock()
	return api.TransferResult{Volume: volume, From: from, To: to, Seconds: 0.0312}, nil
}

func (f *fakeNode) Explain(_ context.Context, _, volume string) (api.Explanation, error) {
	s := f.machine.State()
	v := s.Volume(volume)
	if v == nil {
		return api.Explanation{}, api.Errorf(http.StatusNotFound, "there is no volume %q", volume)
	}
	x := api.Explanation{Volume: volume, Leader: "a", Since: began, Placement: "no node that is able to lead is preferred to a", Members: f.volume(s, v).Members, Plan: "nothing"}
	for _, e := range s.Events {
		if e.Volume == volume {
			x.Events = append(x.Events, e)
		}
	}
	return x, nil
}

func (f *fakeNode) Leader(context.Context, string, uint64) (api.LeaderResult, error) {
	return api.LeaderResult{}, errors.New("no command asks for this")
}

func (f *fakeNode) Backup(_ context.Context, _, _ string, o api.BackupOptions, w io.Writer) error {
	b, ok := f.backups[o.Since]
	if !ok {
		return api.Errorf(http.StatusConflict, "the backup at %d is of a former life", o.Since)
	}
	if f.err != nil {
		b = b[:len(b)-1]
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	return f.err
}

func (f *fakeNode) Restore(_ context.Context, by string, spec config.VolumeSpec, r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	f.restored = b
	res := f.apply(by, cluster.Command{AddVolume: &cluster.AddVolume{Spec: spec}})
	return res.Err()
}

func (f *fakeNode) Doctor(context.Context) ([]doctor.Result, error) { return f.results, f.err }

var _ api.Backend = (*fakeNode)(nil)

// serve makes f answer on the socket in a new data folder, and returns that.
func (f *fakeNode) serve() string {
	f.t.Helper()
	dir := f.t.TempDir()
	ln, err := api.Listen(dir)
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	who := func(net.Conn) api.Caller { return api.Caller{Name: "root"} }
	go func() { done <- api.Serve(ctx, ln, f, who, slog.New(slog.DiscardHandler)) }()
	f.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Error(err)
		}
	})
	return dir
}

// session is what a person at a terminal types and sees, with the commands that talk to one node.
type session struct {
	t    *testing.T
	dir  string
	in   string
	text strings.Builder
}

func newSession(f *fakeNode) *session { return &session{t: f.t, dir: f.serve()} }

// run runs a command line, which must end with the code, and notes it with what it prints.
func (s *session) run(code int, args ...string) (out string) {
	s.t.Helper()
	got, out, errOut := runWith(strings.NewReader(s.in), append([]string{"--data", s.dir}, args...)...)
	if got != code {
		s.t.Errorf("%q: exit code %d, want %d\n%s%s", args, got, code, out, errOut)
	}
	fmt.Fprintf(&s.text, "$ holdfast %s\n%s", shellWords(args), out)
	for line := range strings.Lines(errOut) {
		s.text.WriteString("! " + line)
	}
	if code != ExitOK {
		fmt.Fprintf(&s.text, "(exit code %d)\n", code)
	}
	s.text.WriteString("\n")
	return out
}

func shellWords(args []string) string {
	var all []string
	for _, a := range args {
		if a == "" || strings.ContainsAny(a, " *()#'") {
			a = "'" + a + "'"
		}
		all = append(all, a)
	}
	return strings.Join(all, " ")
}

// run runs a command line.
func run(args ...string) (code int, out, errOut string) {
	return runWith(strings.NewReader(""), args...)
}

// runWith runs a command line that has something to read. It is as patient as no test is, so that no progress is printed.
func runWith(in io.Reader, args ...string) (code int, out, errOut string) {
	return runContext(context.Background(), in, args...)
}

func runContext(ctx context.Context, in io.Reader, args ...string) (code int, out, errOut string) {
	var o, e bytes.Buffer
	code = execute(ctx, &options{release: "v1.2.3", in: in, out: &o, errOut: &e, patience: time.Hour, poll: time.Millisecond}, args)
	return code, o.String(), e.String()
}
