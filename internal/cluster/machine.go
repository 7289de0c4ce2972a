package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"
	"sync"
	"sync/atomic"

	"holdfast/internal/replica"
	"holdfast/internal/vfs"
)

// Machine is the state machine of the cluster's raft group, and where its state is kept: a file that is replaced as a whole.
type Machine struct {
	fs   vfs.FS
	file string
	// changed is called after each entry that changed the state.
	changed func(*State)

	current atomic.Pointer[indexed]

	mu    sync.Mutex // of the file
	saved uint64
}

// indexed is a state and the index of the last entry in it.
type indexed struct {
	state *State
	index uint64
}

// document is the file's content, and a snapshot's.
type document struct {
	Format int             `json:"format"`
	Index  uint64          `json:"index"`
	CRC    uint32          `json:"crc32c"`
	State  json.RawMessage `json:"state"`
}

const documentFormat = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// OpenMachine reads the state from a file, which need not exist yet. changed is called by the goroutine that applies, after each entry that changed the state; it must not block.
func OpenMachine(fsys vfs.FS, file string, changed func(*State)) (*Machine, error) {
	m := &Machine{fs: fsys, file: file, changed: changed}
	m.current.Store(&indexed{state: &State{}})
	b, err := vfs.ReadFile(fsys, file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return m, nil
	case err != nil:
		return nil, fmt.Errorf("read the cluster's state: %w", err)
	}
	s, index, err := decodeDocument(b)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's state from %s: %w", file, err)
	}
	m.current.Store(&indexed{s, index})
	m.saved = index
	return m, nil
}

// State returns the current state. It is never nil, and never changes.
func (m *Machine) State() *State { return m.current.Load().state }

// Applied implements replica.StateMachine.
func (m *Machine) Applied() uint64 { return m.current.Load().index }

// ReplayFrom implements replica.StateMachine: what was applied after the last checkpoint is applied again, as Applied says after a restart.
func (m *Machine) ReplayFrom() uint64 { return m.current.Load().index + 1 }

// Redo implements replica.StateMachine; ReplayFrom leaves nothing to it.
func (m *Machine) Redo(uint64, []byte) error { return nil }

// Apply implements replica.StateMachine. The reply is a Result in JSON.
func (m *Machine) Apply(index uint64, entry []byte) ([]byte, error) {
	if len(entry) == 0 {
		return nil, m.AdvanceTo(index)
	}
	cmd, err := DecodeCommand(entry)
	if err != nil {
		return nil, err
	}
	was := m.State()
	next, result, err := was.apply(cmd)
	if err != nil {
		return nil, fmt.Errorf("entry %d: %w", index, err)
	}
	reply, err := json.Marshal(result)
	if err != nil {
		return nil, fmt.Errorf("encode the result of entry %d: %w", index, err)
	}
	m.current.Store(&indexed{next, index})
	if next != was {
		m.changed(next)
	}
	return reply, nil
}

// AdvanceTo implements replica.StateMachine.
func (m *Machine) AdvanceTo(index uint64) error {
	m.current.Store(&indexed{m.State(), index})
	return nil
}

// Checkpoint implements replica.StateMachine.
func (m *Machine) Checkpoint(context.Context) (uint64, error) {
	now := m.current.Load()
	if err := m.save(now.state, now.index); err != nil {
		return 0, err
	}
	return now.index, nil
}

func (m *Machine) save(s *State, index uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if index == m.saved {
		return nil
	}
	b, err := encodeDocument(s, index)
	if err != nil {
		return err
	}
	if err := vfs.WriteFile(m.fs, m.file, b); err != nil {
		return fmt.Errorf("save the cluster's state: %w", err)
	}
	m.saved = index
	return nil
}

func encodeDocument(s *State, index uint64) ([]byte, error) {
	state, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode the cluster's state: %w", err)
	}
	b, err := json.Marshal(document{Format: documentFormat, Index: index, CRC: crc32.Checksum(state, castagnoli), State: state})
	if err != nil {
		return nil, fmt.Errorf("encode the cluster's state: %w", err)
	}
	return b, nil
}

var errDamaged = errors.New("the cluster's state is damaged: remove this node's data folder and let the node join anew (`holdfast node replace` on another node)")

func decodeDocument(b []byte) (*State, uint64, error) {
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, 0, fmt.Errorf("%w (%w)", errDamaged, err)
	}
	if d.Format != documentFormat {
		return nil, 0, fmt.Errorf("the cluster's state has format %d, this release knows %d: install the release that wrote it", d.Format, documentFormat)
	}
	if crc32.Checksum(d.State, castagnoli) != d.CRC {
		return nil, 0, errDamaged
	}
	s := new(State)
	if err := json.Unmarshal(d.State, s); err != nil {
		return nil, 0, fmt.Errorf("%w (%w)", errDamaged, err)
	}
	if s.Version > MaxVersion {
		return nil, 0, fmt.Errorf("the cluster runs at version %d, this release supports up to %d: install the release that the other nodes run", s.Version, MaxVersion)
	}
	return s, d.Index, nil
}

// Snapshot implements replica.StateMachine.
func (m *Machine) Snapshot(uint64) (replica.Snapshot, error) {
	now := m.current.Load()
	b, err := encodeDocument(now.state, now.index)
	if err != nil {
		return nil, err
	}
	return &snapshot{index: now.index, content: b}, nil
}

type snapshot struct {
	index   uint64
	content []byte
}

func (s *snapshot) Index() uint64 { return s.index }

func (s *snapshot) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(s.content)
	return int64(n), err
}

func (s *snapshot) Close() error { return nil }

// maxSnapshotBytes bounds what a snapshot of a cluster's state can be.
const maxSnapshotBytes = 64 << 20

// Install implements replica.StateMachine.
func (m *Machine) Install(r io.Reader) error {
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.LimitReader(r, maxSnapshotBytes)); err != nil {
		return fmt.Errorf("receive the cluster's state: %w", err)
	}
	s, index, err := decodeDocument(b.Bytes())
	if err != nil {
		return err
	}
	if err := m.save(s, index); err != nil {
		return err
	}
	m.current.Store(&indexed{s, index})
	m.changed(s)
	return nil
}

// Name is the state's file in a folder.
func Name(dir string) string { return path.Join(dir, "state.json") }
