package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"holdfast/internal/replica/transport"
)

// Errors of a Replica.
var (
	// ErrStopped is returned after Close, or after the replica failed.
	ErrStopped = errors.New("replica: stopped")
	// ErrTooLarge is returned for an entry of more than Config.MaxEntryBytes.
	ErrTooLarge = errors.New("replica: entry is too large")
)

// StateMachine is what entries are applied to; see package volume. Apply, AdvanceTo and Redo are called from one goroutine; Checkpoint and Snapshot, and a
// Snapshot's WriteTo, may run at the same time. Install is called while nothing else is but Applied.
type StateMachine interface {
	// Applied returns the index of the last entry applied; 0 if there was none or the state is invalid, after an Install that did not finish.
	Applied() uint64
	// ReplayFrom returns the first index whose effects may be missing after a crash; the log holds it until a Checkpoint allows it to go.
	ReplayFrom() uint64
	// Redo repeats what may be missing of an entry up to Applied.
	Redo(index uint64, entry []byte) error
	// Apply executes the entry at Applied()+1. An error means that this replica cannot go on.
	Apply(index uint64, entry []byte) (reply []byte, err error)
	// AdvanceTo notes that the entries up to index are none of the state machine's business.
	AdvanceTo(index uint64) error
	// Checkpoint makes durable what was applied, and returns the index up to which (inclusive) the log may be dropped.
	Checkpoint(ctx context.Context) (index uint64, err error)
	// Snapshot captures the state for a replica whose own applied index is since.
	Snapshot(since uint64) (Snapshot, error)
	// Install durably replaces the state by the one that r holds.
	Install(r io.Reader) error
}

// Snapshot is a captured state.
type Snapshot interface {
	// Index is the applied index that the snapshot stands for.
	Index() uint64
	WriteTo(w io.Writer) (int64, error)
	Close() error
}

// Clock is a monotonic clock that counts while the machine is suspended (CLOCK_BOOTTIME).
type Clock interface{ MonotonicNS() int64 }

// Transport carries a group's messages: *transport.Group.
type Transport interface {
	// Send queues messages and never blocks. What cannot be delivered is lost, and the handler's Unreachable is called.
	Send(msgs []Message)
	// OpenSnapshot connects to a member for sending a snapshot.
	OpenSnapshot(ctx context.Context, to uint64) (transport.Stream, error)
}

// Config is what a Replica needs. ID, Peers, Log, Meta, StateMachine, Transport, Clock and Fatal must be set; of a witness, StateMachine may be nil.
type Config struct {
	// ID is this member's number; Peers are those of the group's first members, the same everywhere and for ever. What became of the membership since then
	// is in the log (SetMembers).
	ID    uint64
	Peers []uint64
	// Fresh tells that this member is a new one: without state it begins, while a replica that is not said to be fresh has lost what it had, and asks all others what it may
	// have forgotten (DESIGN.md, "A blank replica"). If ID is not among Peers it joins: it follows whoever leads and learns of its membership from that. The caller must know it durably, and may note
	// that it does not hold any more once New has returned; a replica that has state already takes no notice of it.
	Fresh bool
	// FullMembers makes members whose numbers have WitnessBit members like others, with state machine and payloads. The same on every member.
	FullMembers bool
	// SyncTimeout is for how long, in a group with a witness, an entry waits for a data member that is slow before it counts as out of sync and the group goes on without it;
	// default DefaultSyncTimeout.
	SyncTimeout time.Duration
	// Timing of all members must be equal. Zero values: DefaultTiming.
	Timing       Timing
	Log          Log
	Meta         MetaStore
	StateMachine StateMachine
	Transport    Transport
	Clock        Clock
	// Applied is called in log order, on every member, for each normal entry that was applied, with its reply. The member that proposed it finds out by the entry
	// who waits. It must not block.
	Applied func(index uint64, entry, reply []byte)
	// Event is called for each event, in order, from a goroutine of its own. When LeaderLost is called, no proposal of its term is waiting
	// any more, and those that were accepted may or may not be applied some time.
	Event func(Event)
	// Fatal is called once if the replica cannot go on: storage failed, or an invariant broke. The process should exit. It must not call Close.
	Fatal func(error)
	// Group is the group's name among all that there ever were: files of another one are refused.
	Group string
	// Incarnations is kept apart from Log, Meta and StateMachine. Nil: files that come back after the member has gone on without them are taken for its own.
	Incarnations IncarnationStore
	// Logger defaults to slog.Default(); Name is what it calls a member, by default the member's number.
	Logger *slog.Logger
	Name   func(member uint64) string

	// CheckpointBytes and CheckpointInterval say how often the state machine is told to checkpoint: after so many bytes logged, or so much
	// time if anything was.
	CheckpointBytes    int64
	CheckpointInterval time.Duration
	// RetainBytes of the log are kept behind a checkpoint for members that lag a little; RetainMaxBytes for members that lag and are known to.
	RetainBytes, RetainMaxBytes int64
	// QueueBytes bounds what Propose takes before raft does; beyond that Propose waits.
	QueueBytes int64
	// MaxEntryBytes bounds one entry. It must fit the log's segments.
	MaxEntryBytes int
	// MessageBytes, InflightBytes and ApplyBytes are CoreConfig's.
	MessageBytes, InflightBytes, ApplyBytes uint64
}

// Defaults of Config.
const (
	DefaultCheckpointBytes    = 256 << 20
	DefaultCheckpointInterval = time.Minute
	DefaultRetainBytes        = 64 << 20
	DefaultRetainMaxBytes     = 1 << 30
	DefaultQueueBytes         = 64 << 20
	DefaultMaxEntryBytes      = 8 << 20
	DefaultSyncTimeout        = time.Second
)

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func (c Config) withDefaults() (Config, error) {
	c.Timing = c.Timing.withDefaults()
	if c.isWitness() && c.Log != nil {
		if c.StateMachine == nil {
			c.StateMachine = NewWitnessStateMachine(c.Log)
		}
		orDefault(&c.CheckpointBytes, witnessCheckpointBytes)
		orDefault(&c.RetainBytes, witnessRetainBytes)
		orDefault(&c.RetainMaxBytes, witnessRetainMaxBytes)
	}
	orDefault(&c.SyncTimeout, DefaultSyncTimeout)
	if c.Log == nil || c.Meta == nil || c.StateMachine == nil || c.Transport == nil || c.Clock == nil || c.Fatal == nil {
		return c, errors.New("replica: configuration is incomplete")
	}
	if c.Applied == nil {
		c.Applied = func(uint64, []byte, []byte) {}
	}
	if c.Event == nil {
		c.Event = func(Event) {}
	}
	orDefault(&c.Logger, slog.Default())
	if c.Name == nil {
		c.Name = func(member uint64) string { return strconv.FormatUint(member, 10) }
	}
	orDefault(&c.CheckpointBytes, DefaultCheckpointBytes)
	orDefault(&c.CheckpointInterval, DefaultCheckpointInterval)
	orDefault(&c.RetainBytes, DefaultRetainBytes)
	orDefault(&c.RetainMaxBytes, DefaultRetainMaxBytes)
	orDefault(&c.QueueBytes, DefaultQueueBytes)
	orDefault(&c.MaxEntryBytes, DefaultMaxEntryBytes)
	return c, c.Timing.validate()
}

// Replica is one member of a raft group at work.
//
// The core and what goes with it are touched by one goroutine at a time, the one that takes a turn (loop.go). Goroutines: run, tick, appendWorker, applyWorker, checkpointWorker, eventWorker, and one for each snapshot that is sent
// or received. All end when ctx does; Close waits for them.
type Replica struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	failed atomic.Pointer[error]

	inbox     inbox
	proposals proposals
	appends   queue[AppendWork]
	applies   queue[ApplyWork]
	events    queue[Event]
	meta      metaKeeper
	// exclusive keeps Checkpoint and Install apart. Workers hold it across I/O; the run loop never takes it.
	exclusive sync.Mutex
	sizes     logSizes

	// servingUntil is Core.ServingUntil as of the last turn of the loop; it is stored before that turn's messages leave.
	servingUntil atomic.Int64
	// servingTerm is the term of servingUntil, and is stored before that.
	servingTerm atomic.Uint64
	missedTicks atomic.Uint64
	// voters are those of the configuration as of the last turn, never nil and never changed in place.
	voters atomic.Pointer[[]uint64]
	// checkpointNow is signalled when enough was logged for a checkpoint.
	checkpointNow  chan struct{}
	uncheckpointed atomic.Int64
	// installedBytes counts what was received of the current snapshot.
	installedBytes atomic.Int64

	// appending counts the works that the append worker has and the Core was not told of.
	appending atomic.Int64

	// turning is held by whoever takes a turn, see loop.go. It guards what follows; it is never held across I/O but sends that do not wait.
	turning   sync.Mutex
	open      bool // between Start and Close
	core      *Core
	commit    raftpb.HardState // of works that changed nothing else; for the next write
	pending   [][]byte         // proposals that raft has no room for yet
	waiters   []func() bool
	sentBytes map[uint64]*atomic.Int64 // of snapshots being sent
	// votersIndex is the Core's confIndex as of which voters is.
	votersIndex uint64
}

// New reads the log and the state machine and returns a replica that Start sets to work. It repeats with Redo what a crash may have undone, so it takes
// time after one.
func New(cfg Config) (*Replica, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	start, err := load(cfg)
	if err != nil {
		return nil, err
	}
	start.Seed = rand.Uint64()
	core, err := NewCore(cfg.Clock.MonotonicNS(), start)
	if err != nil {
		return nil, err
	}
	return newReplica(cfg, core, start), nil
}

// newReplica makes a replica around a Core.
func newReplica(cfg Config, core *Core, start CoreConfig) *Replica {
	r := &Replica{cfg: cfg, core: core, checkpointNow: make(chan struct{}, 1), sentBytes: make(map[uint64]*atomic.Int64)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.inbox.wake = make(chan struct{}, 1)
	r.proposals = proposals{limit: cfg.QueueBytes, wake: r.proposed, space: make(chan struct{})}
	for _, q := range []interface{ init() }{&r.appends, &r.applies, &r.events} {
		q.init()
	}
	r.meta = metaKeeper{store: cfg.Meta}
	if start.Meta != nil {
		r.meta.current = *start.Meta
	}
	r.publishVoters()
	r.sizes.every = min(sizeMarkBytes, cfg.RetainBytes/16)
	r.sizes.start(cfg.Log.LastIndex())
	return r
}

// Start sets the replica to work. The transport may deliver from before on.
func (r *Replica) Start() {
	for _, f := range []func(){r.tick, r.run, r.appendWorker, r.applyWorker, r.checkpointWorker, r.eventWorker} {
		r.goRun(f)
	}
}

// goRun runs f in a goroutine that Close waits for. A panic in it is the end of the replica.
func (r *Replica) goRun(f func()) {
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		defer r.catch()
		f()
	}()
}

// enter notes a goroutine of somebody else's that works for the replica, so that Close waits for it: it has to call wg.Done. It fails unless the replica is at work.
func (r *Replica) enter() bool {
	r.turning.Lock()
	defer r.turning.Unlock()
	if !r.open {
		return false
	}
	r.wg.Add(1)
	return true
}

// Close stops the replica and waits until its goroutines are gone. Log and state machine are the caller's to close then. A leader that should hand
// over first is told so by Transfer.
func (r *Replica) Close() error {
	r.cancel()
	r.servingUntil.Store(0)
	r.proposals.close(ErrStopped)
	r.turning.Lock()
	r.open = false // no turn begins from here on, and none starts another goroutine
	r.turning.Unlock()
	r.wg.Wait()
	return r.err()
}

// fail ends the replica for good.
func (r *Replica) fail(err error) {
	if r.ctx.Err() != nil && r.failed.Load() == nil && errors.Is(err, context.Canceled) {
		return // Close interrupted the work
	}
	if !r.failed.CompareAndSwap(nil, &err) {
		return
	}
	r.servingUntil.Store(0)
	r.cancel()
	r.proposals.close(ErrStopped)
	r.cfg.Fatal(err)
}

func (r *Replica) err() error {
	if p := r.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// Serving reports whether this replica may answer from its own state: it leads, holds the lease, and has applied everything that any leader before
// it acknowledged. Ask before the work and again before its result leaves. It is cheap.
func (r *Replica) Serving() bool {
	until := r.servingUntil.Load()
	return until != 0 && r.cfg.Clock.MonotonicNS() < until
}

// ServingTerm returns the term in which Serving is true, 0 if it is not. Events come later: until LeaderLost of an earlier term and LeaderReady of this one have come, the caller knows of another leadership.
func (r *Replica) ServingTerm() uint64 {
	if !r.Serving() {
		return 0
	}
	return r.servingTerm.Load()
}

// Propose hands data to the log and returns when it was accepted, not when it was applied: Config.Applied tells that. It waits while too much is
// under way. The slice belongs to the log from then on. After an error nothing was proposed. After nil, either Applied is called for it here, or LeaderLost
// comes and nothing is known.
func (r *Replica) Propose(ctx context.Context, data []byte) error {
	if len(data) > r.cfg.MaxEntryBytes {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, len(data))
	}
	return r.proposals.add(ctx, data)
}

// proposed is called when there is a proposal. While nothing is being appended, a turn now is the fastest way; otherwise the proposals that come meanwhile are
// better taken together, in the run loop's next turn.
func (r *Replica) proposed() {
	if r.appending.Load() > 0 {
		r.inbox.signal()
		return
	}
	r.inbox.puts.Add(1)
	r.work()
}

// SetReport sets what the leader gets to know of this member (Status.Peers), such as its free space; at most MaxReportBytes.
func (r *Replica) SetReport(report []byte) {
	_ = r.do(func(int64) { r.core.SetReport(report) })
}

// SetReluctant tells whether this replica should rather not lead, because its node is in standby: then it campaigns later than the others, and Transfer does not
// pick it unless it is named. A replica that leads goes on leading; hand over with Transfer.
func (r *Replica) SetReluctant(reluctant bool) {
	_ = r.do(func(int64) { r.core.SetReluctant(reluctant) })
}

// Voters returns the voters of the current configuration, sorted. It is cheap.
func (r *Replica) Voters() []uint64 { return *r.voters.Load() }

// Status describes the replica.
func (r *Replica) Status() Status {
	var s Status
	if err := r.do(func(now int64) { s = r.status(now) }); err != nil {
		return Status{ID: r.cfg.ID, MissedTicks: r.missedTicks.Load()}
	}
	return s
}

func (r *Replica) status(now int64) Status {
	s := r.core.Status(now)
	s.MissedTicks = r.missedTicks.Load()
	s.InstalledBytes = r.installedBytes.Load()
	for i := range s.Peers {
		if n := r.sentBytes[s.Peers[i].ID]; n != nil {
			s.Peers[i].SnapshotBytes = n.Load()
		}
	}
	return s
}

// do runs f in the run loop and waits for it.
func (r *Replica) do(f func(now int64)) error {
	done := make(chan struct{})
	r.call(func(now int64) { f(now); close(done) })
	select {
	case <-done:
		return nil
	case <-r.ctx.Done():
		return ErrStopped
	}
}
