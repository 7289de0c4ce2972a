package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/config"
	"holdfast/internal/replica"
)

// State implements api.Backend.
func (n *Node) State(context.Context) (*cluster.State, error) { return n.cluster.state().Public(), nil }

// Events implements api.Backend.
func (n *Node) Events(ctx context.Context, after uint64, wait bool) ([]cluster.Event, error) {
	for {
		changed := n.cluster.changes.wait()
		all := n.cluster.state().Events
		if i := slices.IndexFunc(all, func(e cluster.Event) bool { return e.Seq > after }); i >= 0 {
			return all[i:], nil
		}
		if !wait {
			return nil, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, nil
		case <-n.ctx.Done():
			return nil, api.Errorf(http.StatusServiceUnavailable, "the node stops")
		}
	}
}

// Do implements api.Backend.
func (n *Node) Do(ctx context.Context, by string, cmd cluster.Command) (cluster.Result, error) {
	if err := validate(&cmd); err != nil {
		return cluster.Result{}, api.Errorf(http.StatusBadRequest, "%v", err)
	}
	if err := n.checkListeners(&cmd); err != nil {
		return cluster.Result{}, api.Errorf(http.StatusConflict, "%v", err)
	}
	cmd.What = n.whatChanges(&cmd)
	r, err := n.cluster.do(ctx, by, cmd)
	if err == nil && r.Error == "" {
		n.awaitEffect(ctx, &cmd)
	}
	return r, err
}

// effectPatience is how long a command that changes volumes waits until their leaders have followed. What it changed is decided by then, and takes effect later.
const effectPatience = 3 * time.Second

// awaitEffect waits until what was configured is what clients see, so that the next thing that somebody does can rely on it.
func (n *Node) awaitEffect(ctx context.Context, cmd *cluster.Command) {
	if cmd.SetVolume == nil && cmd.ApplySpec == nil && cmd.AddVolume == nil {
		return
	}
	limited, cancel := context.WithTimeout(ctx, effectPatience)
	defer cancel()
	for limited.Err() == nil {
		state := n.cluster.state()
		behind := slices.ContainsFunc(n.Status(limited, false).Volumes, func(v api.VolumeStatus) bool {
			want := state.VolumeByID(v.ID)
			return want != nil && (!v.Serving || v.SizeBytes != uint64(want.Spec.Size) || !samePaths(&want.Spec, v.Published))
		})
		if !behind {
			return
		}
		pause(limited, leaderPoll)
	}
}

// samePaths reports whether a volume's exports are those that clients can mount.
func samePaths(spec *config.VolumeSpec, published []string) bool {
	var want []string
	for i := range spec.Exports {
		want = append(want, spec.Exports[i].Path)
	}
	slices.Sort(want)
	return slices.Equal(want, published)
}

// whatChanges says in words what a command changes of the configuration.
func (n *Node) whatChanges(cmd *cluster.Command) string {
	old, next := n.cluster.state().Spec(), &config.Spec{}
	switch {
	case cmd.SetVolume != nil:
		next = old.Clone()
		if v := next.Volume(cmd.SetVolume.Spec.Name); v != nil {
			*v = cmd.SetVolume.Spec
		}
	case cmd.ApplySpec != nil:
		next = &cmd.ApplySpec.Spec
	default:
		return ""
	}
	var texts []string
	for _, c := range config.Diff(old, next) {
		texts = append(texts, c.String())
	}
	return strings.Join(texts, "; ")
}

// validate checks configurations before they are proposed, with all that package config knows.
func validate(cmd *cluster.Command) error {
	switch {
	case cmd.AddVolume != nil:
		return checkVolume(&cmd.AddVolume.Spec)
	case cmd.SetVolume != nil:
		return checkVolume(&cmd.SetVolume.Spec)
	case cmd.ApplySpec != nil:
		for i := range cmd.ApplySpec.Spec.Volumes {
			cmd.ApplySpec.Spec.Volumes[i].Complete()
		}
		return cmd.ApplySpec.Spec.Validate()
	}
	return nil
}

// checkListeners checks where volumes would listen against where the nodes and the other volumes do.
func (n *Node) checkListeners(cmd *cluster.Command) error {
	s := n.cluster.state()
	switch {
	case cmd.AddVolume != nil:
		return errors.Join(s.CheckListeners(&cmd.AddVolume.Spec), n.checkHealthPort(&cmd.AddVolume.Spec))
	case cmd.SetVolume != nil:
		return errors.Join(s.CheckListeners(&cmd.SetVolume.Spec), n.checkHealthPort(&cmd.SetVolume.Spec))
	case cmd.ApplySpec != nil:
		err := cmd.ApplySpec.Spec.CheckPorts(s.Peers())
		for i := range cmd.ApplySpec.Spec.Volumes {
			err = errors.Join(err, n.checkHealthPort(&cmd.ApplySpec.Spec.Volumes[i]))
		}
		return err
	}
	return nil
}

// checkHealthPort refuses a node port at which this node answers health checks. It knows its own file only, but those of a cluster's nodes are mostly alike.
func (n *Node) checkHealthPort(v *config.VolumeSpec) error {
	host, port, err := net.SplitHostPort(n.local.Health)
	if err != nil || v.NodePort == 0 || port != strconv.Itoa(int(v.NodePort)) {
		return nil
	}
	if addr, err := netip.ParseAddr(host); err == nil && addr.IsLoopback() {
		return nil
	}
	return fmt.Errorf("volume %s: node_port: at port %d node %s answers health checks (health in its file); use another port", v.Name, v.NodePort, n.id.Name)
}

// checkVolume completes one volume's configuration and checks it.
func checkVolume(v *config.VolumeSpec) error {
	v.Complete()
	spec := config.Spec{Volumes: []config.VolumeSpec{*v}}
	return spec.Validate()
}

// volume finds a volume by name.
func (n *Node) volume(name string) (*cluster.Volume, error) {
	v := n.cluster.state().Volume(name)
	if v == nil {
		return nil, api.Errorf(http.StatusNotFound, "there is no volume %q; `holdfast volume list` shows those there are", name)
	}
	return v, nil
}

// whoLeads returns the node that leads a volume, as far as this node or those that keep the volume know.
func (n *Node) whoLeads(ctx context.Context, v *cluster.Volume) (uint64, error) {
	if s := n.serviceByID(v.ID); s != nil {
		if leader := s.replica.Status().Leader; leader != 0 {
			return leader, nil
		}
	} else {
		state := n.cluster.state()
		for _, m := range v.DataMembers() {
			c, err := n.peers.client(m, "")
			if err != nil {
				continue
			}
			limited, cancel := context.WithTimeout(ctx, answerPatience)
			st, err := c.Status(limited, true)
			cancel()
			if err != nil {
				continue
			}
			for i := range st.Volumes {
				if st.Volumes[i].Name == v.Spec.Name && st.Volumes[i].Leader != "" {
					if leader := state.NodeNamed(st.Volumes[i].Leader); leader != nil {
						return leader.Number, nil
					}
				}
			}
		}
	}
	return 0, api.Errorf(statusNotLeader, "volume %s has no leader at the moment: most of the nodes that keep it must be up", v.Spec.Name)
}

// changePatience is how long what only a volume's leader can do waits for one: many times what an election takes.
const changePatience = 3 * time.Second

// onLeader runs here if this node leads the volume, or there at the node that does. While the leader changes it waits for the next one; nothing has been done then.
func onLeader[T any](ctx context.Context, n *Node, by, name string, here func(s *service) (T, error), there func(c *api.Client) (T, error)) (T, error) {
	limited, cancel := context.WithTimeout(ctx, changePatience)
	defer cancel()
	for {
		v, err := tryOnLeader(limited, ctx, n, by, name, here, there)
		if !hasStatus(err, statusNotLeader) {
			return v, err
		}
		if pause(limited, leaderPoll); limited.Err() != nil || strings.HasPrefix(by, passedOn) {
			return v, err
		}
	}
}

// statusNotLeader is the answer of a node that was taken for the leader of a volume, or knows of none, and so has done nothing.
const statusNotLeader = http.StatusMisdirectedRequest

// tryOnLeader looks for the leader until limited ends; what it does then may take as long as ctx.
func tryOnLeader[T any](limited, ctx context.Context, n *Node, by, name string, here func(s *service) (T, error), there func(c *api.Client) (T, error)) (T, error) {
	var none T
	v, err := n.volume(name)
	if err != nil {
		return none, err
	}
	leader, err := n.whoLeads(limited, v)
	if err != nil {
		return none, err
	}
	if leader == n.id.Node {
		if s := n.serviceByID(v.ID); s != nil {
			return here(s)
		}
	}
	if strings.HasPrefix(by, passedOn) {
		return none, api.Errorf(statusNotLeader, "volume %s is changing its leader: try again", name)
	}
	c, err := n.peers.client(leader, passedOn+by)
	if err != nil {
		return none, err
	}
	return there(c)
}

// passedOn marks requests that another node has passed on, so that two nodes that disagree about the leader do not pass them to each other for ever.
const passedOn = "passed on for "

// Check implements api.Backend. A check that loses its leader, be it moved or dead, begins anew on the next one.
func (n *Node) Check(ctx context.Context, by, name string) (api.CheckResult, error) {
	began := time.Now()
	var silent time.Time // since when the leader does not answer
	for {
		answered := true
		res, err := onLeader(ctx, n, by, name,
			func(s *service) (api.CheckResult, error) { return s.check(ctx) },
			func(c *api.Client) (api.CheckResult, error) {
				res, err := c.Check(ctx, name)
				answered = err == nil || isAnswer(err)
				return res, err
			})
		switch {
		case err == nil || ctx.Err() != nil || strings.HasPrefix(by, passedOn):
			return res, err
		case answered && (!hasStatus(err, statusLeadLost) || time.Since(began) > checkLimit):
			return res, err
		case answered:
			silent = time.Time{}
		case silent.IsZero():
			silent = time.Now()
		case time.Since(silent) > changePatience:
			return res, err
		}
		pause(ctx, leaderPoll)
	}
}

// isAnswer reports whether an error is what another node answered, and not that it cannot be reached.
func isAnswer(err error) bool {
	var refused *api.Error
	return errors.As(err, &refused)
}

// hasStatus reports whether an error is an answer with an HTTP status.
func hasStatus(err error, status int) bool {
	var refused *api.Error
	return errors.As(err, &refused) && refused.Status == status
}

// Transfer implements api.Backend.
func (n *Node) Transfer(ctx context.Context, by, name, to string) (api.TransferResult, error) {
	return onLeader(ctx, n, by, name,
		func(s *service) (api.TransferResult, error) { return s.transfer(ctx, to) },
		func(c *api.Client) (api.TransferResult, error) { return c.Transfer(ctx, name, to) })
}

func (s *service) transfer(ctx context.Context, to string) (api.TransferResult, error) {
	n, state := s.node, s.node.cluster.state()
	none := api.TransferResult{}
	var number uint64
	if to != "" {
		target := state.NodeNamed(to)
		v := state.VolumeByID(s.number)
		switch {
		case target == nil:
			return none, api.Errorf(http.StatusBadRequest, "there is no node %q; volume %s is on %v", to, s.name, s.members(v))
		case target.Role == cluster.RoleWitness:
			return none, api.Errorf(http.StatusBadRequest, "node %s is a witness: it keeps no data and cannot serve", to)
		case v == nil || !slices.Contains(v.Members, target.Number):
			return none, api.Errorf(http.StatusConflict, "node %s keeps no copy of volume %s, which is on %v", to, s.name, s.members(v))
		case target.Number == n.id.Node:
			return api.TransferResult{Volume: s.name, From: to, To: to}, nil
		case target.Standby || target.Leaving:
			return none, api.Errorf(http.StatusConflict, "node %s is in standby or about to be removed, and would hand volume %s over at once: `holdfast unstandby %s` first", to, s.name, to)
		}
		number = target.Number
	}
	began := time.Now()
	if err := handTo(ctx, s.replica, n.id.Node, number); err != nil {
		if errors.Is(err, replica.ErrNoSuccessor) {
			return none, api.Errorf(http.StatusConflict, "volume %s: %v: wait until `holdfast status` shows the copy in sync", s.name, err)
		}
		return none, fmt.Errorf("volume %s: %w", s.name, err)
	}
	took := time.Since(began)
	leader := n.nodeName(s.replica.Status().Leader)
	s.noteMove(leader, took, "as told")
	return api.TransferResult{Volume: s.name, From: n.id.Name, To: leader, Seconds: took.Seconds()}, nil
}

// members names the nodes that keep a volume's data.
func (s *service) members(v *cluster.Volume) []string {
	if v == nil {
		return nil
	}
	var names []string
	for _, m := range v.DataMembers() {
		names = append(names, s.node.nodeName(m))
	}
	return names
}

// Explain implements api.Backend.
func (n *Node) Explain(ctx context.Context, by, name string) (api.Explanation, error) {
	return onLeader(ctx, n, by, name,
		func(s *service) (api.Explanation, error) { return s.explain() },
		func(c *api.Client) (api.Explanation, error) { return c.Explain(ctx, name) })
}

func (s *service) explain() (api.Explanation, error) {
	state := s.node.cluster.state()
	v := state.VolumeByID(s.number)
	if v == nil {
		return api.Explanation{}, api.Errorf(http.StatusNotFound, "volume %s is being deleted", s.name)
	}
	e := api.Explanation{Volume: s.name, Leader: s.node.id.Name, Members: s.members(v), Events: []cluster.Event{}}
	if p := s.placement.Load(); p != nil {
		e.Placement = p.Why
	}
	if len(v.Former) > 0 {
		e.Plan = "its copies are moving"
	}
	for _, ev := range state.Events {
		if ev.Volume == s.name {
			e.Events = append(e.Events, ev)
			if ev.Kind == cluster.EventMove {
				e.Since = ev.Time
			}
		}
	}
	return e, nil
}
