package sim

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"

	"holdfast/internal/replica"
	"holdfast/internal/store"
	"holdfast/internal/volume"
)

// Rolling upgrades: the nodes begin with a release that knows the older cluster version only, and are restarted with the newer one, in any order and while all else goes
// wrong. Each says what it knows when it starts, the cluster agrees on the newest that all know, and the volume's leader raises the volume's version (package cluster's plan and
// package node's publishVersion).

// oldVersion is the cluster version before the newest.
const oldVersion = volume.MaxVersion - 1

// drawVersion settles whether the run is one of an upgrade.
func (w *World) drawVersion() {
	rng := w.stream("version")
	old, weight := rng.IntN(4) == 0, []int{1, 2, 6}[rng.IntN(3)]
	switch {
	case w.cfg.From != 0:
	case old && w.cfg.Mutation == NoMutation && w.cfg.Faults == nil:
		w.cfg.From = oldVersion
	default:
		w.cfg.From = volume.MaxVersion
	}
	if w.cfg.From < volume.MaxVersion {
		w.faults.Weights[faultUpgrade] = weight
	}
}

// keyState is where package volume keeps its state record; the version is at versionAt, and what follows is of later versions than 1.
var keyState = []byte("mstate")

const versionAt = 40

// format makes an empty store one of the cluster version that the volume begins with, where that is not the one that new volumes have.
func (w *World) format(st *simStore) error {
	if _, err := st.Mem.Get(keyState); err == nil {
		return nil
	}
	if valid, err := st.Mem.Get([]byte("xvalid")); err == nil && len(valid) == 1 && valid[0] == 0 {
		return nil // an installation was broken off
	}
	if _, err := volume.Open(volume.Config{ID: volumeID, Name: "sim", Store: st.Mem}); err != nil {
		return fmt.Errorf("format: %w", err)
	}
	b, err := st.Mem.Get(keyState)
	if err != nil {
		return fmt.Errorf("format: %w", err)
	}
	if w.cfg.From == 1 {
		b = b[:versionAt+4]
	}
	binary.BigEndian.PutUint32(b[versionAt:], w.cfg.From)
	var batch store.Batch
	batch.Set(keyState, b)
	if err := st.Mem.Commit(&batch); err != nil {
		return fmt.Errorf("format: %w", err)
	}
	// A crash must not leave what Open made, which is of the version that the first release began with.
	return st.Mem.FlushMeta(context.Background())
}

// newestRelease is that of a new node: the newest in use.
func (w *World) newestRelease() uint32 {
	newest := w.cfg.From
	for _, n := range w.nodes {
		newest = max(newest, n.release)
	}
	return newest
}

// agreed is the cluster version that all nodes know. It never goes back.
func (w *World) agreed() uint32 {
	all := uint32(volume.MaxVersion)
	for _, n := range w.nodes {
		all = min(all, n.reported)
	}
	w.version = max(w.version, all)
	return w.version
}

// publishVersion raises the volume's version to what the cluster has agreed on, if this process leads.
func (l *life) publishVersion() {
	want := l.w.agreed()
	if l.serve.phase != serving || l.volume.Version() >= want {
		return
	}
	l.w.note("raise version", l.n.id, uint64(want))
	_ = l.gate.Command(volume.EntryVersion, netip.AddrPort{}, volume.VersionPayload(want))
}

// understands checks that a program applies nothing that is newer than it.
func (l *life) understands(index uint64, entry []byte) {
	var e volume.Entry
	if len(entry) == 0 || volume.DecodeEntry(entry, &e) != nil || e.Kind != volume.EntryVersion {
		return
	}
	if to := binary.BigEndian.Uint32(e.Payload); to > l.n.release {
		l.w.fail("entry %d raises the version to %d, node %d knows up to %d", index, to, l.n.id, l.n.release)
	}
}

// upgrade restarts a node with the newer release, mostly after it has handed over.
func (f *fault) upgrade() {
	var old []*node
	for _, n := range f.w.nodes {
		if n.release < volume.MaxVersion {
			old = append(old, n)
		}
	}
	if len(old) == 0 {
		return
	}
	n := old[f.rng.IntN(len(old))]
	f.w.stats.Faults[f.kind]++
	wait := int64(0)
	if l := n.up; l != nil && f.rng.chance(0.7) {
		l.turn(func(core *replica.Core, now int64) { _, _ = core.TransferLeader(now, 0) })
		wait = f.rng.between(0, 100*msec)
	}
	back := f.rng.between(20*msec, 300*msec)
	f.w.after(wait, func() { n.upgrade(back) })
}

// upgrade ends the process and starts the newer release later.
func (n *node) upgrade(back int64) {
	if n.release == volume.MaxVersion || n.retired {
		return
	}
	n.w.note("upgrade", n.id)
	n.stop()
	n.release = volume.MaxVersion
	n.w.after(back, n.start)
}

// finishUpgrade upgrades the nodes that are left, one after the other, and those that come later with the older release.
func (w *World) finishUpgrade() {
	w.after(sec, func() {
		for _, n := range w.nodes {
			if n.release < volume.MaxVersion {
				n.upgrade(50 * msec)
				break
			}
		}
		w.finishUpgrade()
	})
}
