package identity

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func testIdentity(t *testing.T, ca *CA, number uint64) *Identity {
	t.Helper()
	id := &Identity{
		ClusterID: ca.ClusterID(), ClusterName: "test", Node: number, Name: "kiln", Role: RoleData, PeerAddress: "kiln.example.com:7420",
		Key: testKey(t), CA: ca.CertificatePEM(), ClusterKey: NewClusterKey(),
	}
	var err error
	if id.Certificate, err = ca.SignNode(testRequest(t, id.Key), NodeInfo{Number: number, Name: "kiln"}, birth); err != nil {
		t.Fatal(err)
	}
	return id
}

func TestSaveAndLoad(t *testing.T) {
	ca := testCA(t)
	dir := Dir(t.TempDir())
	if _, err := Load(dir); !errors.Is(err, ErrNone) {
		t.Errorf("an identity that is not there: %v", err)
	}
	id := testIdentity(t, ca, 3)
	if err := id.Save(dir); err != nil {
		t.Fatal(err)
	}
	same := func(want *Identity) {
		t.Helper()
		got, err := Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got.ClusterID != want.ClusterID || got.ClusterName != want.ClusterName || got.Node != want.Node || got.Name != want.Name || got.Role != want.Role ||
			got.PeerAddress != want.PeerAddress || !bytes.Equal(got.Certificate, want.Certificate) || !bytes.Equal(got.CA, want.CA) ||
			!bytes.Equal(got.ClusterKey, want.ClusterKey) || !samePublicKey(got.Key.Public(), want.Key.Public()) {
			t.Errorf("read back as %+v, saved %+v", got, want)
		}
	}
	same(id)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v", info.Mode(), err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 || strings.HasSuffix(f.Name(), ".new") {
			t.Errorf("%s: %v, %v", f.Name(), info.Mode(), err)
		}
	}
	if len(files) != 5 {
		t.Errorf("%d files", len(files))
	}
	creds, err := id.Credentials()
	if err != nil || creds.Self().Node != 3 {
		t.Errorf("credentials of %v, %v", creds.Self(), err)
	}

	// A renewal, at a new address.
	if id.Certificate, err = ca.SignNode(testRequest(t, id.Key), NodeInfo{Number: 3, Name: "kiln"}, birth.Add(60*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	id.PeerAddress = "[2001:db8::1]:7420"
	if err := id.Save(dir); err != nil {
		t.Fatal(err)
	}
	same(id)

	// Others stay out.
	for name, other := range map[string]*Identity{
		"another node":    testIdentity(t, ca, 4),
		"another key":     testIdentity(t, ca, 3),
		"another cluster": testIdentity(t, testCA(t), 3),
	} {
		if err := other.Save(dir); err == nil {
			t.Errorf("%s is saved over this one", name)
		}
	}
	same(id)
}

func TestWitnessHasNoClusterKey(t *testing.T) {
	dir := Dir(t.TempDir())
	id := testIdentity(t, testCA(t), 1<<32+1)
	id.Role, id.ClusterKey = RoleWitness, nil
	if err := id.Save(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, clusterKeyFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a witness has a cluster key: %v", err)
	}
	if got, err := Load(dir); err != nil || got.Role != RoleWitness {
		t.Errorf("read back as %+v, %v", got, err)
	}
}

func TestDamagedIdentities(t *testing.T) {
	ca := testCA(t)
	other := testIdentity(t, ca, 4)
	otherKey, err := MarshalKey(other.Key)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		file string
		data []byte // nil: removed
	}{
		"no key":               {keyFile, nil},
		"no certificate":       {certFile, nil},
		"no CA":                {caFile, nil},
		"no cluster key":       {clusterKeyFile, nil},
		"empty certificate":    {certFile, []byte{}},
		"another node's":       {certFile, other.Certificate},
		"another key":          {keyFile, otherKey},
		"foreign CA":           {caFile, testCA(t).CertificatePEM()},
		"node's cert as CA":    {caFile, other.Certificate},
		"short cluster key":    {clusterKeyFile, []byte("abcd")},
		"cluster key not text": {clusterKeyFile, []byte("zz")},
		"rubbish":              {nodeFile, []byte("{")},
		"unknown role":         {nodeFile, []byte(`{"role":"king"}`)},
	} {
		t.Run(name, func(t *testing.T) {
			dir := Dir(t.TempDir())
			id := testIdentity(t, ca, 3)
			if err := id.Save(dir); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, test.file)
			if test.data == nil {
				err = os.Remove(path)
			} else {
				err = os.WriteFile(path, test.data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Load(dir); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), dir) {
				t.Errorf("loading: %v", err)
			}
			if err := id.Save(dir); !errors.Is(err, ErrDamaged) {
				t.Errorf("saving over it: %v", err)
			}
		})
	}
}

// An identity whose saving was cut short, so that node.json is missing, counts as none, and can be saved.
func TestHalfAnIdentityIsNone(t *testing.T) {
	dir := Dir(t.TempDir())
	id := testIdentity(t, testCA(t), 3)
	if err := id.Save(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, nodeFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); !errors.Is(err, ErrNone) {
		t.Errorf("loading: %v", err)
	}
	if err := testIdentity(t, testCA(t), 9).Save(dir); err != nil {
		t.Errorf("saving: %v", err)
	}
}
