package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/config"
)

// What the demo's cluster has.
const (
	clusterName = "demo"
	volumeName  = "demo"
	// Export is the path that clients mount.
	Export = "/data"
)

// Form makes the cluster as people make theirs: init on the first node, a token for each other one, join, and a volume. It returns when all nodes run and all copies of
// the volume are in sync, with the node that leads. note is told of each step.
func (c *Cluster) Form(ctx context.Context, note func(format string, args ...any)) (leader *Node, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errors.New("the cluster did not start within "+startTimeout.String()))
	defer cancel()
	first := c.Nodes[0]
	if err := c.command(ctx, "", "init", "--cluster", clusterName, "--name", first.Name, "--data", first.Dir, "--peer", first.Peer, "--no-start"); err != nil {
		return nil, err
	}
	if err := c.Start(first); err != nil {
		return nil, err
	}
	note("node %s has made the cluster (holdfast init)", first.Name)
	for _, n := range c.Nodes[1:] {
		if err := c.join(ctx, n); err != nil {
			return nil, err
		}
		note("node %s has joined as a %s node (holdfast join)", n.Name, n.role())
	}
	add := cluster.Command{AddVolume: &cluster.AddVolume{Spec: c.volume()}}
	err = c.retry(ctx, first, func(a *api.Client) error {
		_, err := a.Do(ctx, add)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make the volume: %w", err)
	}
	return c.awaitInSync(ctx, startTimeout)
}

// volume is what is configured of the volume.
func (c *Cluster) volume() config.VolumeSpec {
	v := config.NewVolume(volumeName)
	v.Copies = len(slices.DeleteFunc(slices.Clone(c.Nodes), func(n *Node) bool { return n.Witness }))
	v.Address.Kind, v.Listen = config.AddressListen, c.Addr
	e := config.NewExport(Export)
	e.Mode, e.Clients = 0o1777, []config.Client{{Match: "127.0.0.0/8", Options: []string{"rw", "no_root_squash"}}}
	v.Exports = []config.Export{e}
	return v
}

// join lets a node join the cluster that the first one has made, and starts it.
func (c *Cluster) join(ctx context.Context, n *Node) error {
	var token api.TokenResult
	err := c.retry(ctx, c.Nodes[0], func(a *api.Client) (err error) {
		token, err = a.Token(ctx, api.TokenRequest{Role: string(n.role()), Lifetime: tokenLifetime})
		return err
	})
	if err != nil {
		return fmt.Errorf("make a token for node %s: %w", n.Name, err)
	}
	if err := c.command(ctx, token.Token, "join", token.Address, "--token", "-", "--name", n.Name, "--data", n.Dir, "--peer", n.Peer, "--no-start"); err != nil {
		return err
	}
	return c.Start(n)
}

// tokenLifetime is how long a token can be used.
const tokenLifetime = time.Minute

func (n *Node) role() cluster.Role {
	if n.Witness {
		return cluster.RoleWitness
	}
	return cluster.RoleData
}

// retry asks a node that was started a moment ago until it listens and its cluster is ready.
func (c *Cluster) retry(ctx context.Context, n *Node, ask func(a *api.Client) error) error {
	for {
		err := ask(n.api)
		var answer *api.Error
		notYet := errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &answer) && answer.Status == http.StatusServiceUnavailable
		if !notYet {
			return err
		}
		if err := n.alive(); err != nil {
			return err
		}
		if !pause(ctx, 10*time.Millisecond) {
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// command runs a command of the program.
func (c *Cluster) command(ctx context.Context, input string, args ...string) error {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, c.binary, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = strings.NewReader(input), &out, &out, environment()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("holdfast %s: %w\n%s", args[0], err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// environment is this process's own without what would tell the nodes to be others.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "HOLDFAST_") || strings.HasPrefix(v, "NOTIFY_SOCKET=")
	})
}
