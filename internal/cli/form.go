package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/internal/cluster"
	"holdfast/internal/config"
	"holdfast/internal/identity"
	"holdfast/internal/join"
)

// formFlags say how this machine becomes a node.
type formFlags struct {
	name, peer, zone string
	noStart          bool
}

func (f *formFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.name, "name", "", "`name` of this node (default: the host's name)")
	cmd.Flags().StringVar(&f.peer, "peer", "", "`host:port` that the other nodes reach this one at (default: this machine's address, port "+strconv.Itoa(config.DefaultPort)+")")
	cmd.Flags().StringVar(&f.zone, "zone", "", "what fails together with this node, such as a rack; copies of a volume are spread over zones")
	cmd.Flags().BoolVar(&f.noStart, "no-start", false, "do not start the service")
}

func newInit(o *options) *cobra.Command {
	var flags formFlags
	opts := join.Options{}
	var tick, lease time.Duration
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a cluster, with this machine as its first node",
		Long: `Make a cluster: its certificate authority, and this machine as its first node. Where systemd runs and holdfast.service is installed, the service is started
and the command returns when the node answers. One node is enough to begin with; volumes get their copies when others join.

Exit code: 0 when the cluster is made, and the node answers if it was started; 1 otherwise; 2 when what is asked for makes no sense.`,
		Example: `  holdfast init --cluster office
  holdfast init --cluster office --name a --peer 10.0.0.11:7420 --zone rack1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Data, opts.Name, opts.Peer, opts.Zone, opts.Release = o.dataDir(), flags.name, flags.peer, flags.zone, o.release
			opts.Timing.Tick, opts.Timing.Lease = config.Duration(tick), config.Duration(lease)
			if err := opts.Timing.Validate(); err != nil {
				return withCode(ExitUsage, err)
			}
			id, err := join.Init(opts)
			if err != nil {
				return err
			}
			o.sayf("cluster %s is made; this machine is its first node, %s, which others reach at %s", id.ClusterName, id.Name, id.PeerAddress)
			next := []string{
				"add other machines:  holdfast node add   (prints what to run there; three nodes, or two and a witness, survive the loss of any)",
				"make a volume:       holdfast volume create main --address IP/LENGTH --export /data --client 'NETWORK:rw'",
			}
			return o.begin(cmd, id, &flags, next)
		},
	}
	flags.register(cmd)
	cmd.Flags().StringVar(&opts.Cluster, "cluster", "", "`name` of the cluster (default: holdfast)")
	spanVar(cmd.Flags(), &tick, "tick", 0, 0, time.Minute, "how often nodes tell each other that they live (default 20ms); longer where the network is slow")
	countVar(cmd.Flags(), &opts.Timing.Election, "election", "", 0, 0, 1000, "after how many ticks without a word from the leader another node takes over (default 10)")
	spanVar(cmd.Flags(), &lease, "lease", 0, 0, time.Hour, "how long a leader may answer reads after a majority heard from it (default: an election's time less one tick)")
	return cmd
}

func newJoin(o *options) *cobra.Command {
	var flags formFlags
	var token string
	var witness bool
	cmd := &cobra.Command{
		Use:   "join ADDRESS --token TOKEN",
		Short: "Make this machine a node of a cluster",
		Long: `Make this machine a node of the cluster that the node at ADDRESS belongs to. The token comes from ` + "`holdfast node add`" + ` on any node; it says whether this becomes
a data node or a witness, and which cluster is the right one, so that nobody in between can pose as it. Where systemd runs and holdfast.service is installed, the service is
started and the command returns when the node answers.

Arguments of a command can be seen by all users of a machine: ` + "`--token -`" + ` reads the token from standard input, and --token FILE from a file.

Exit code: 0 when this machine is a node, and answers if it was started; 1 otherwise; 2 when what is asked for makes no sense.`,
		Example: `  holdfast join 10.0.0.11:7420 --token hf1-...
  holdfast join a.example.com --token - --name b --zone rack2 < token
  holdfast join 10.0.0.11 --token /run/token --witness`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			secret, err := o.readToken(token)
			if err != nil {
				return err
			}
			opts := join.Options{Data: o.dataDir(), Name: flags.name, Peer: flags.peer, Zone: flags.zone, Release: o.release}
			if witness {
				opts.Role = cluster.RoleWitness
			}
			id, err := asking(cmd.Context(), o, "asking the cluster to let this machine in", func(ctx context.Context) (*identity.Identity, error) {
				return join.Join(ctx, withPort(args[0]), secret, opts)
			})
			if err != nil {
				return err
			}
			o.sayf("this machine is node %s of cluster %s, a %s node, which others reach at %s", id.Name, id.ClusterName, id.Role, id.PeerAddress)
			if witness && id.Role != identity.RoleWitness { // a node of an earlier release has not looked at what was asked for
				return fmt.Errorf("the token was one for a data node, and so this machine is one. If that is not meant: `holdfast node remove %s` on another node, "+
					"delete %s, and join with a token from `holdfast node add --role witness`", id.Name, o.dataDir())
			}
			return o.begin(cmd, id, &flags, nil)
		},
	}
	cmd.Flags().StringVar(&token, "token", "", "the `token`, a file that holds it, or - for standard input")
	cmd.Flags().BoolVar(&witness, "witness", false, "this machine is to be a witness: do nothing if the token is not one for a witness")
	flags.register(cmd)
	return cmd
}

// maxTokenBytes bounds a file that is said to hold a token.
const maxTokenBytes = 4096

// readToken returns the token that the flag gives, or that it says where to find.
func (o *options) readToken(flag string) (string, error) {
	text := flag
	switch {
	case flag == "":
		return "", usagef("a machine joins with a token: make one with `holdfast node add` on a node of the cluster, and give it with --token")
	case flag == "-":
		if isTerminal(o.in) {
			fmt.Fprint(o.errOut, "Token: ")
		}
		line, err := io.ReadAll(io.LimitReader(untilNewline{o.in}, maxTokenBytes))
		if err != nil {
			return "", fmt.Errorf("read the token: %w", err)
		}
		text = string(line)
	case strings.ContainsRune(flag, filepath.Separator) || fileExists(flag):
		file, err := os.ReadFile(flag)
		if err != nil {
			return "", withCode(ExitUsage, fmt.Errorf("read the token: %w", err))
		}
		text = string(file)
	}
	text = strings.TrimSpace(text)
	if _, err := identity.ParseToken(text); err != nil {
		return "", withCode(ExitUsage, err)
	}
	return text, nil
}

func fileExists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// untilNewline ends with the line: a person at a terminal need not press Ctrl-D.
type untilNewline struct{ r io.Reader }

func (u untilNewline) Read(p []byte) (int, error) {
	if len(p) > 1 {
		p = p[:1]
	}
	n, err := u.r.Read(p)
	if n == 1 && p[0] == '\n' {
		return 0, io.EOF
	}
	return n, err
}

// formed is what init and join print for programs.
type formed struct {
	*identity.Identity
	Data    string `json:"data"`
	Started bool   `json:"started"`
}

// begin starts the node that was just made, or says how.
func (o *options) begin(cmd *cobra.Command, id *identity.Identity, flags *formFlags, next []string) error {
	if err := giveAway(o.dataDir()); err != nil {
		return err
	}
	started := false
	if !flags.noStart && o.serviceInstalled(cmd.Context()) {
		if err := o.startService(cmd.Context()); err != nil {
			return err
		}
		started = true
		o.sayf("holdfast.service is started, and the node answers")
	} else {
		next = append([]string{"start the node:      " + o.serveCommand(id.PeerAddress)}, next...)
	}
	if o.json() {
		return o.printJSON(formed{id, o.dataDir(), started})
	}
	next = append(next, "see how it is:       holdfast status"+o.dataFlag())
	o.sayf("\nNext:")
	for _, n := range next {
		o.sayf("  %s", n)
	}
	return nil
}

// dataFlag is the flag that names the data folder, where it has to be named.
func (o *options) dataFlag() string {
	if filepath.Clean(o.dataDir()) == filepath.Clean(o.local().Data) {
		return ""
	}
	return " --data " + o.dataDir()
}

// serveCommand is what to type to run a node.
func (o *options) serveCommand(peer string) string {
	text := "holdfast serve" + o.dataFlag()
	_, listens, _ := net.SplitHostPort(o.local().Listen)
	if _, port, err := net.SplitHostPort(peer); err == nil && port != listens {
		text += " --listen :" + port
	}
	return text
}

// giveAway gives what root has made in a data folder to the folder's owner, whom the service runs as.
func giveAway(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at the data folder: %w", err)
	}
	uid, gid, ok := ownerOf(info)
	if !ok || uid == 0 {
		return nil
	}
	err = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, gid)
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("give the data folder to its owner: %w", err)
	}
	return nil
}
