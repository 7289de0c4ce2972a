package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/address"
	"holdfast/internal/api"
	"holdfast/internal/config"
	"holdfast/internal/replica/transport"
)

// handOverTimeout bounds how long a node that is told to stop tries to hand over what it leads.
const handOverTimeout = 3 * time.Second

// Node is one running node.
type Node struct {
	cfg       *config.Config
	version   string
	log       *slog.Logger
	started   time.Time
	transport *transport.Transport
	services  []*service
	tuning    tuning
	// fatal receives the first failure that a node must not survive.
	fatal chan error
}

// tuning are sizes that only tests have a reason to change. Zero values stand for the defaults.
type tuning struct {
	segmentBytes    int64 // of the log; the configuration's
	checkpointBytes int64 // replica.Config's, as the next two
	retainBytes     int64
	retainMaxBytes  int64
}

// Run runs the node until ctx ends, then hands over what it leads and stops. It returns an error if the node cannot go on: the process must exit then, as nothing is known of
// data that a failed disk was given.
func Run(ctx context.Context, cfg *config.Config, version string, log *slog.Logger) error {
	return run(ctx, cfg, version, log, tuning{})
}

func run(ctx context.Context, cfg *config.Config, version string, log *slog.Logger, t tuning) error {
	n := &Node{cfg: cfg, version: version, log: log, started: time.Now(), tuning: t, fatal: make(chan error, 1)}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	unlock, err := lockData(cfg.Data)
	if err != nil {
		return err
	}
	defer unlock()
	// The services outlive ctx for as long as handing over takes.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	if err := n.open(work); err != nil {
		return errors.Join(err, n.close())
	}
	for _, s := range n.services {
		s.start()
	}
	wg.Go(func() { n.fail(api.Serve(work, cfg.Data, n, log)) })
	log.Info("node started", "node", cfg.Node, "id", cfg.Self().ID, "data", cfg.Data, "version", version)
	select {
	case <-ctx.Done():
		log.Info("node stops")
		n.handOver()
		return n.close()
	case err := <-n.fatal:
		// Nothing is closed: the state must stay as the failure left it, and the process is about to end.
		return err
	}
}

// open makes the transport and the services.
func (n *Node) open(ctx context.Context) error {
	if _, err := readSecret(n.cfg.Cluster.SecretFile); err != nil {
		return err
	}
	peers := make(map[uint64]string)
	for _, p := range n.cfg.Nodes {
		peers[p.ID] = p.Peer
	}
	ln, err := listenPeers(ctx, n.cfg.Self().Peer)
	if err != nil {
		return err
	}
	n.transport, err = transport.New(transport.Config{
		ID: n.cfg.Self().ID, Peers: peers, Dial: dialPeer, Logger: n.log,
	}, ln)
	if err != nil {
		return fmt.Errorf("open the peer port: %w", err)
	}
	for i := range n.cfg.Volumes {
		s, err := newService(ctx, n, &n.cfg.Volumes[i])
		if err != nil {
			return fmt.Errorf("volume %s: %w", n.cfg.Volumes[i].Name, err)
		}
		n.services = append(n.services, s)
	}
	return nil
}

// listenPeers opens the port that the other nodes connect to, on the address that they know.
func listenPeers(ctx context.Context, addr string) (net.Listener, error) {
	lc := net.ListenConfig{Control: address.ReuseAddr}
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for the other nodes on %s, this node's peer address in the configuration: %w", addr, err)
	}
	return ln, nil
}

// dialPeer connects to another node. It proves nothing yet: the node has no certificate to do that with.
func dialPeer(ctx context.Context, _ uint64, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

// fail reports a failure that ends the node.
func (n *Node) fail(err error) {
	if err == nil {
		return
	}
	select {
	case n.fatal <- err:
	default: // one is enough
	}
}

// handOver transfers the leadership of every volume that this node leads.
func (n *Node) handOver() {
	ctx, cancel := context.WithTimeout(context.Background(), handOverTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range n.services {
		if !s.replica.Serving() {
			continue
		}
		wg.Go(func() {
			if err := s.replica.Transfer(ctx, 0); err != nil {
				s.log.Warn("could not hand the volume over before stopping; another node takes it over when the lease has run out", "err", err)
			}
		})
	}
	wg.Wait()
}

func (n *Node) close() error {
	var errs []error
	for _, s := range n.services {
		errs = append(errs, s.close())
	}
	if n.transport != nil {
		errs = append(errs, n.transport.Close())
	}
	return errors.Join(errs...)
}

// lockData makes sure that no other process uses the data folder. The kernel drops the lock when the process ends, however it ends.
func lockData(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the data folder's lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("the data folder %s is in use by another holdfast process: stop that one first, or give this node a folder of its own (%w)", dir, err)
	}
	return func() { f.Close() }, nil
}

// readSecret reads the secret that the nodes share; no file means no secret.
func readSecret(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's secret: %w", err)
	}
	secret := strings.TrimSpace(string(b))
	if len(secret) < 16 {
		return nil, fmt.Errorf("the secret in %s is shorter than 16 characters: make one with `openssl rand -hex 32` and copy it to every node", path)
	}
	return []byte(secret), nil
}
