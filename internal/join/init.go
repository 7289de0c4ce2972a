package join

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"holdfast/internal/cluster"
	"holdfast/internal/config"
	"holdfast/internal/identity"
	"holdfast/internal/vfs"
)

// Options say how a node begins. What is empty is found out.
type Options struct {
	// Data is the folder that holds everything the node stores.
	Data string
	// Name is the node's; the host's name unless given.
	Name string
	// Peer is the host and port that the other nodes reach it at; an address of the machine and DefaultPort unless given.
	Peer string
	// Cluster is the cluster's name, for Init; "holdfast" unless given.
	Cluster string
	// Zone is what fails together with the node.
	Zone string
	// Role is what Join is to make of this machine; empty: whatever the token is for.
	Role cluster.Role
	// Release is what the node runs.
	Release string
	// Timing is the cluster's, for Init; the defaults unless given.
	Timing config.Timing
	// Now is the time that Init's certificates begin at; the clock's unless given.
	Now time.Time
}

// earliest is before this program was made: a clock that says less has lost the time.
var earliest = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// DefaultPort is the port of a node.
const DefaultPort = "7420"

const (
	clusterDir = "cluster"
	initFile   = "init.json"
	hintsFile  = "hints.json"
)

// Dir is the folder of the cluster's own group within a data folder.
func Dir(data string) string { return filepath.Join(data, clusterDir) }

// Init makes a cluster: its authority, and this machine as its first node. The cluster's first command is left for the node to propose when it is started (Pending).
func Init(o Options) (*identity.Identity, error) {
	if err := o.complete(""); err != nil {
		return nil, err
	}
	if o.Cluster == "" {
		o.Cluster = "holdfast"
	}
	if err := cluster.CheckName("cluster", o.Cluster); err != nil {
		return nil, err
	}
	o.Timing.Complete()
	if err := o.Timing.Validate(); err != nil {
		return nil, err
	}
	now := o.Now
	if now.IsZero() {
		now = time.Now()
	}
	if now.Before(earliest) {
		return nil, fmt.Errorf("this machine's clock says %s, which cannot be: set it (`timedatectl`, `chronyc makestep`) and begin again, as the cluster's certificates would have ended when it is right",
			now.Local().Format(time.DateTime))
	}
	ca, err := identity.NewCA(o.Cluster, identity.NewClusterID(), now)
	if err != nil {
		return nil, err
	}
	id := &identity.Identity{
		ClusterID: ca.ClusterID(), ClusterName: o.Cluster, Node: 1, Name: o.Name, Role: identity.RoleData, PeerAddress: o.Peer,
		CA: ca.CertificatePEM(), ClusterKey: identity.NewClusterKey(),
	}
	if id.Key, err = identity.NewKey(); err != nil {
		return nil, err
	}
	request, err := identity.NewRequest(id.Key, o.Name)
	if err != nil {
		return nil, err
	}
	if id.Certificate, err = ca.SignNode(request, identity.NodeInfo{Number: id.Node, Name: o.Name}, now); err != nil {
		return nil, err
	}
	sealed, err := ca.Seal(id.ClusterKey)
	if err != nil {
		return nil, err
	}
	first := cluster.Init{
		ID: id.ClusterID, Name: o.Cluster, CA: string(id.CA), SealedKey: sealed, Timing: o.Timing,
		Node: cluster.Node{Number: 1, Name: o.Name, Peer: o.Peer, Zone: o.Zone, Release: o.Release, MaxVersion: cluster.MaxVersion},
	}
	if err := saveJSON(filepath.Join(Dir(o.Data), initFile), first); err != nil {
		return nil, err
	}
	if err := saveJSON(filepath.Join(Dir(o.Data), hintsFile), Hints{Timing: o.Timing}); err != nil {
		return nil, err
	}
	return id, id.Save(identity.Dir(o.Data))
}

// Pending returns the command that a node which made its cluster has to propose when the cluster's state is empty, or nil.
func Pending(data string) (*cluster.Init, error) {
	var first cluster.Init
	ok, err := loadJSON(filepath.Join(Dir(data), initFile), &first)
	if !ok || err != nil {
		return nil, err
	}
	return &first, nil
}

// Hints are what a node knows of its cluster as long as it has no other state.
type Hints struct {
	// Peers are the addresses of the nodes by their numbers, when this one joined.
	Peers map[uint64]string `json:"peers"`
	// Timing is the cluster's, which all nodes must share.
	Timing config.Timing `json:"timing"`
}

// LoadHints returns what Init or Join has left.
func LoadHints(data string) (Hints, error) {
	var h Hints
	ok, err := loadJSON(filepath.Join(Dir(data), hintsFile), &h)
	if err == nil && !ok {
		err = fmt.Errorf("%s is missing: the data folder is not whole. Put the file back, or replace the node (`holdfast node replace` on another)", filepath.Join(Dir(data), hintsFile))
	}
	return h, err
}

// complete fills in what is not given, and refuses what could not work later: a folder that belongs to a cluster or cannot be written to, an address that others cannot
// reach, a port that is taken. toward is an address of the cluster that the machine shall reach, if any.
func (o *Options) complete(toward string) error {
	if o.Data == "" {
		return errors.New("a node needs a data folder")
	}
	switch old, err := identity.Load(identity.Dir(o.Data)); {
	case err == nil:
		return fmt.Errorf("this is node %s of cluster %s already: run `holdfast serve` (its data is in %s)", old.Name, old.ClusterName, o.Data)
	case !errors.Is(err, identity.ErrNone):
		return err
	}
	if left := leftover(o.Data); left != "" {
		return fmt.Errorf("%s has what a node stored (%s), but not which node that was: put its folder `identity` back if there is a copy of it; otherwise give this node an empty data folder", o.Data, left)
	}
	if err := makeFolder(o.Data); err != nil {
		return err
	}
	if o.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find out the host's name: %w; give the node's with --name", err)
		}
		o.Name = shortName(host)
	}
	if err := cluster.CheckName("node", o.Name); err != nil {
		return fmt.Errorf("%w; give another with --name", err)
	}
	peer, err := peerAddress(o.Peer, toward)
	if err != nil {
		return err
	}
	o.Peer = peer
	return checkPeer(peer, toward)
}

// leftover names something in a data folder that a node makes when it runs, "" if there is nothing: another node would take it for its own, and delete the volumes.
func leftover(data string) string {
	for _, name := range []string{"volumes", "groups.json", filepath.Join(clusterDir, "state.json"), filepath.Join(clusterDir, "log")} {
		if _, err := os.Lstat(filepath.Join(data, name)); err == nil {
			return name
		}
	}
	return ""
}

// makeFolder makes the data folder, and makes sure that something can be written there.
func makeFolder(data string) error {
	dir := Dir(data)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	f, err := os.CreateTemp(dir, "probe-*")
	if err != nil {
		return fmt.Errorf("write to the data folder: %w", err)
	}
	if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
		return fmt.Errorf("write to the data folder: %w", err)
	}
	return nil
}

func saveJSON(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	if err := vfs.WriteFile(vfs.OS(), name, append(b, '\n')); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// loadJSON reports whether the file is there.
func loadJSON(name string, v any) (bool, error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return false, fmt.Errorf("read %s, which is damaged or cannot be read: %w: mend the disk, or replace the node (`holdfast node replace` on another)", name, err)
	}
	return true, nil
}
