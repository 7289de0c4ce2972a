package work

import (
	"encoding/json"
	"path/filepath"
	"testing"
	"time"
)

// TestFileStep does on a local folder what tests do on a mounted one.
func TestFileStep(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, c := range []struct {
		step FileStep
		want FileOutcome
	}{
		{FileStep{Path: path, Do: "size"}, FileOutcome{Errno: "ENOENT"}},
		{FileStep{Path: path, Do: "write", Size: 100_000}, FileOutcome{Size: 100_000}},
		{FileStep{Path: path, Do: "size"}, FileOutcome{Size: 100_000}},
		{FileStep{Path: path, Do: "write", Size: 5}, FileOutcome{Size: 5}},
		{FileStep{Path: path, Do: "size"}, FileOutcome{Size: 5}},
		{FileStep{Path: path + "/g", Do: "write", Size: 5}, FileOutcome{Errno: "ENOTDIR"}},
		{FileStep{Path: path, Do: "remove"}, FileOutcome{}},
		{FileStep{Path: path, Do: "remove"}, FileOutcome{Errno: "ENOENT"}},
	} {
		if got, err := fileStep(t.Context(), c.step, nil); err != nil || got != c.want {
			t.Errorf("%+v: got %+v, %v", c.step, got, err)
		}
	}
	if got, err := fileStep(t.Context(), FileStep{Path: dir, Do: "modified"}, nil); err != nil || time.Since(time.Unix(got.Modified, 0)).Abs() > time.Minute {
		t.Errorf("modified: %+v, %v", got, err)
	}
	if got, err := fileStep(t.Context(), FileStep{Path: dir, Do: "space"}, nil); err != nil || got.Total <= 0 || got.Free > got.Total {
		t.Errorf("space: %+v, %v", got, err)
	}
	args, err := json.Marshal(FileStep{Path: path, Do: "dance"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), "file", args, nil); err == nil {
		t.Error("an unknown step was done")
	}
}

// TestMountData checks what is given to mount(2), for version 3, which needs no address of the client.
func TestMountData(t *testing.T) {
	for _, c := range []struct {
		args MountArgs
		want string
	}{
		{MountArgs{Server: "10.94.0.100", Version: "3", Port: 2049, MountPort: 20048},
			"vers=3,proto=tcp,addr=10.94.0.100,port=2049,nolock,mountproto=tcp,mountvers=3,mountaddr=10.94.0.100,mountport=20048"},
		{MountArgs{Server: "10.94.0.100", Version: "3", Options: "soft"},
			"vers=3,proto=tcp,addr=10.94.0.100,nolock,mountproto=tcp,mountvers=3,mountaddr=10.94.0.100,soft"},
		{MountArgs{Server: "fd94::100", Version: "3", Port: 2049, MountPort: 2049},
			"vers=3,proto=tcp6,addr=fd94::100,port=2049,nolock,mountproto=tcp6,mountvers=3,mountaddr=fd94::100,mountport=2049"},
	} {
		if fsType, got, err := c.args.data(); err != nil || fsType != "nfs" || got != c.want {
			t.Errorf("%+v: got %s, %s, %v", c.args, fsType, got, err)
		}
	}
	if _, _, err := (MountArgs{Server: "a.example.com", Version: "3"}).data(); err == nil {
		t.Error("a name was accepted for an address")
	}
}
