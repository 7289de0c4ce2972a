package vfs

import "testing"

// The first attempt fails after it made the folders and before their names are durable. The second finds them and must make them durable all the same. Found by package sim.
func TestMkdirDurableAfterFailure(t *testing.T) {
	for seed := range uint64(50) {
		d := NewSim(seed)
		d.AddFault(Fault{Ops: OpSyncDir, Times: 1})
		if err := MkdirDurable(d, "/a/b/c"); err == nil {
			t.Fatal("the fault did not strike")
		}
		if err := MkdirDurable(d, "/a/b/c"); err != nil {
			t.Fatal(err)
		}
		d.Crash()
		if info, err := d.Stat("/a/b/c"); err != nil || !info.Dir {
			t.Fatalf("seed %d: the folder is gone: %v", seed, err)
		}
	}
}
