package identity

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Role is what a node does in its cluster.
type Role string

// The roles.
const (
	RoleData    Role = "data"
	RoleWitness Role = "witness"
)

// Identity is who a node is, as its data folder keeps it.
type Identity struct {
	ClusterID   string `json:"cluster_id"`
	ClusterName string `json:"cluster_name"`
	Node        uint64 `json:"node"`
	Name        string `json:"name"`
	Role        Role   `json:"role"`
	// PeerAddress is where the other nodes reach this one: host:port.
	PeerAddress string `json:"peer_address"`

	Key         crypto.Signer `json:"-"`
	Certificate []byte        `json:"-"` // PEM
	// CA is the bundle of the cluster's CA certificates, in PEM.
	CA []byte `json:"-"`
	// ClusterKey unseals the CA's key. Data nodes have it, witnesses do not.
	ClusterKey []byte `json:"-"`
}

// The files of an identity. node.json is written last: it is there if all are.
const (
	nodeFile       = "node.json"
	keyFile        = "node.key"
	certFile       = "node.crt"
	caFile         = "ca.crt"
	clusterKeyFile = "cluster.key"
)

// Errors of Load, for errors.Is.
var (
	ErrNone    = errors.New("this node belongs to no cluster yet: run holdfast init or holdfast join")
	ErrDamaged = errors.New("the identity of this node is damaged")
)

// Dir returns where a data folder keeps the identity.
func Dir(data string) string { return filepath.Join(data, "identity") }

// Load reads the identity in a folder. It returns ErrNone if there is none, and ErrDamaged if its files are missing, unreadable or do not belong together.
func Load(dir string) (*Identity, error) {
	b, err := os.ReadFile(filepath.Join(dir, nodeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("read the identity of this node: %w", err)
	}
	id := &Identity{}
	if err := json.Unmarshal(b, id); err != nil {
		return nil, damaged(dir, nodeFile, err)
	}
	key, err := readFile(dir, keyFile)
	if err != nil {
		return nil, err
	}
	if id.Key, err = ParseKey(key); err != nil {
		return nil, damaged(dir, keyFile, err)
	}
	if id.Certificate, err = readFile(dir, certFile); err != nil {
		return nil, err
	}
	if id.CA, err = readFile(dir, caFile); err != nil {
		return nil, err
	}
	if id.Role != RoleWitness {
		b, err := readFile(dir, clusterKeyFile)
		if err != nil {
			return nil, err
		}
		if id.ClusterKey, err = hex.DecodeString(string(bytes.TrimSpace(b))); err != nil {
			return nil, damaged(dir, clusterKeyFile, err)
		}
	}
	if err := id.check(); err != nil {
		return nil, damaged(dir, "", err)
	}
	return id, nil
}

func readFile(dir, name string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil, damaged(dir, name, err)
	}
	return b, nil
}

func damaged(dir, name string, err error) error {
	return fmt.Errorf("%w: %s: %w; restore the folder from a backup, or give the node an empty data folder and let it join anew", ErrDamaged, filepath.Join(dir, name), err)
}

// check verifies that the parts belong together.
func (id *Identity) check() error {
	if id.Role != RoleData && id.Role != RoleWitness {
		return fmt.Errorf("the role %q is unknown", id.Role)
	}
	if id.Role == RoleData && len(id.ClusterKey) != ClusterKeyBytes {
		return fmt.Errorf("the cluster key has %d bytes instead of %d", len(id.ClusterKey), ClusterKeyBytes)
	}
	if id.Key == nil {
		return errors.New("there is no key")
	}
	c, err := NewCredentials(id.Certificate, id.Key, id.CA)
	if err != nil {
		return err
	}
	return id.mustBe(c.Self())
}

func (id *Identity) mustBe(p Peer) error {
	if p.Kind != KindNode || p.Node != id.Node || p.Cluster != id.ClusterID || p.Name != id.Name {
		return fmt.Errorf("%w: it is that of %v of the cluster %s, not of node %d (%s) of the cluster %s", ErrWrongNode, p, p.Cluster, id.Node, id.Name, id.ClusterID)
	}
	return nil
}

// Credentials returns the node's credentials.
func (id *Identity) Credentials() (*Credentials, error) {
	return NewCredentials(id.Certificate, id.Key, id.CA)
}

// Save writes the identity to a folder, which it makes. A folder that already has one is updated, if it is the same node with the same key: each file is
// replaced as a whole, so that a crash leaves an identity that can be used.
func (id *Identity) Save(dir string) error {
	if err := id.check(); err != nil {
		return fmt.Errorf("save the identity of this node: %w", err)
	}
	old, err := Load(dir)
	switch {
	case errors.Is(err, ErrNone):
	case err != nil:
		return fmt.Errorf("there is an identity already: %w", err)
	case old.ClusterID != id.ClusterID || old.Node != id.Node:
		return fmt.Errorf("%s says that this is node %d (%s) of the cluster %s (%s) already: give the node another data folder, or empty this one if its data is not needed",
			dir, old.Node, old.Name, old.ClusterName, old.ClusterID)
	case !samePublicKey(old.Key.Public(), id.Key.Public()):
		return fmt.Errorf("the key of this node in %s is not replaced by another", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("save the identity of this node: %w", err)
	}
	key, err := MarshalKey(id.Key)
	if err != nil {
		return err
	}
	description, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the identity of this node: %w", err)
	}
	// The new CAs come before a certificate that one of them signed.
	files := []struct {
		name string
		data []byte
	}{{keyFile, key}, {caFile, id.CA}, {certFile, id.Certificate}, {clusterKeyFile, []byte(hex.EncodeToString(id.ClusterKey) + "\n")}, {nodeFile, append(description, '\n')}}
	for _, f := range files {
		if f.name == clusterKeyFile && id.Role == RoleWitness {
			continue
		}
		if err := replaceFile(dir, f.name, f.data); err != nil {
			return fmt.Errorf("save the identity of this node: %w", err)
		}
	}
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return fmt.Errorf("save the identity of this node: %w", err)
	}
	return nil
}

// replaceFile writes a file that is there as a whole, old or new, whatever happens.
func replaceFile(dir, name string, data []byte) error {
	f, err := os.OpenFile(filepath.Join(dir, name+".new"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
