package drill

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"holdfast/internal/nfsclient"
)

// Client is what a drill needs of an NFS client; its methods are those of nfsclient.Client.
type Client interface {
	Root() nfsclient.Handle
	GetAttr(ctx context.Context, h nfsclient.Handle) (nfsclient.Attr, error)
	// OpenFile is Open for a file that is to be locked.
	OpenFile(ctx context.Context, dir nfsclient.Handle, name string, o nfsclient.OpenOptions) (File, error)
	Remove(ctx context.Context, dir nfsclient.Handle, name string) error
	Stats() nfsclient.Stats
	Close(ctx context.Context) error
}

// File is an open file with byte-range locks; *nfsclient.V4File.
type File interface {
	nfsclient.File
	// Lock takes a byte-range lock for owner, a name within this client. If another owner is in the way the error is nfsclient.ErrDenied.
	Lock(ctx context.Context, owner string, typ nfsclient.LockType, off, length uint64) error
	// TestLock reports whether owner could take a lock: nil, or nfsclient.ErrDenied. It changes nothing.
	TestLock(ctx context.Context, owner string, typ nfsclient.LockType, off, length uint64) error
	// Unlock gives up a range.
	Unlock(ctx context.Context, owner string, off, length uint64) error
}

// Config says what to rehearse.
type Config struct {
	// Address is where clients mount the volume, host:port, and Export the path that they mount.
	Address, Export string
	// From is the address to connect from, the kernel's choice if it is zero. On a node it must be the node's own: the kernel would take the volume's, which moves away.
	From netip.Addr
	// Moves are executed one after the other.
	Moves []Move
	// Calm is how long the client writes before, between and after the moves. Default 2 s.
	Calm time.Duration
	// Patience is how long one request may take before the drill counts as failed; clients wait for ever. Default 60 s.
	Patience time.Duration
	// Mount connects; nil stands for NFSv4.1 over TCP.
	Mount func(ctx context.Context, cfg nfsclient.Config) (Client, error)
	// Note, unless nil, hears what the drill is about to do.
	Note func(text string)
}

// Move moves the volume, and returns from which node to which when the new one serves.
type Move func(ctx context.Context) (from, to string, err error)

// Defaults of Config.
const (
	defaultCalm     = 2 * time.Second
	defaultPatience = time.Minute
	mountTimeout    = 15 * time.Second
	cleanupTimeout  = 10 * time.Second
)

// Outage is one move as the client felt it.
type Outage struct {
	From string `json:"from"`
	To   string `json:"to"`
	// MoveMS is how long the cluster took for the move, and OutageMS the longest time between two acknowledged writes around it, in milliseconds.
	MoveMS   float64 `json:"move_ms"`
	OutageMS float64 `json:"outage_ms"`
}

// Result is what came of a drill.
type Result struct {
	Address string   `json:"address"`
	Export  string   `json:"export"`
	Outages []Outage `json:"outages"`
	Writes  uint64   `json:"writes"` // acknowledged, of RecordBytes each
	// TypicalMS is the median time that a write took, in milliseconds.
	TypicalMS  float64 `json:"typical_ms"`
	Reconnects uint64  `json:"reconnects"`
	// Failures are the things that went wrong; a client must see none.
	Failures []string `json:"failures,omitempty"`
}

// OK reports whether the client noticed nothing but a pause.
func (r *Result) OK() bool { return len(r.Failures) == 0 }

func (r *Result) failed(format string, args ...any) {
	r.Failures = append(r.Failures, fmt.Sprintf(format, args...))
}

// Run executes a drill. An error means that it could not take place: nothing was moved. What went wrong in the drill itself is in Result.Failures.
func Run(ctx context.Context, cfg Config) (Result, error) {
	if cfg.Calm <= 0 {
		cfg.Calm = defaultCalm
	}
	if cfg.Patience <= 0 {
		cfg.Patience = defaultPatience
	}
	if cfg.Mount == nil {
		cfg.Mount = mountV4
	}
	if cfg.Note == nil {
		cfg.Note = func(string) {}
	}
	res := Result{Address: cfg.Address, Export: cfg.Export}
	cfg.Note("mounting " + cfg.Address + ":" + cfg.Export)
	p, err := newProbe(ctx, &cfg)
	if err != nil {
		return res, err
	}
	err = rehearse(ctx, &cfg, p, &res)
	// Also after an interrupt: no file and no lock stay behind.
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if cleanErr := p.close(cleanup); cleanErr != nil && err == nil {
		res.failed("clean up: %v", cleanErr)
	}
	return res, err
}

// rehearse writes, moves, and looks at what is there at the end.
func rehearse(ctx context.Context, cfg *Config, p *probe, res *Result) error {
	p.start(ctx, cfg.Patience)
	cfg.Note("writing")
	stopped := p.calm(ctx, cfg.Calm)
	for i, move := range cfg.Moves {
		if stopped {
			break
		}
		cfg.Note("moving the volume")
		begin := time.Now()
		from, to, err := move(ctx)
		took := time.Since(begin)
		if err != nil {
			if i == 0 && len(p.failures()) == 0 {
				_ = p.stop()
				return fmt.Errorf("move the volume: %w", err)
			}
			res.failed("move the volume: %v", err)
			break
		}
		cfg.Note(fmt.Sprintf("%s leads, writing on", to))
		stopped = p.calm(ctx, cfg.Calm)
		res.Outages = append(res.Outages, Outage{From: from, To: to, MoveMS: millis(took), OutageMS: millis(p.acks.gap(begin, time.Now()))})
		if !stopped {
			p.testLock(ctx)
		}
	}
	if err := p.stop(); err != nil {
		res.failed("%v", err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("the drill was interrupted: %w", err)
	}
	cfg.Note("reading back")
	p.verify(ctx, cfg.Patience)
	res.Failures = append(res.Failures, p.failures()...)
	res.Writes, res.TypicalMS = p.written(), millis(p.acks.median())
	res.Reconnects = p.client.Stats().Reconnects
	if lost := p.client.Stats().LostState; lost > 0 {
		res.failed("the server said %d times that it lost the client's state", lost)
	}
	return nil
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

type v4Client struct{ *nfsclient.V4 }

// OpenFile returns a nil File, not a nil *V4File in one, with an error.
func (c v4Client) OpenFile(ctx context.Context, dir nfsclient.Handle, name string, o nfsclient.OpenOptions) (File, error) {
	f, err := c.V4.OpenFile(ctx, dir, name, o)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func mountV4(ctx context.Context, cfg nfsclient.Config) (Client, error) {
	c, err := nfsclient.MountV4(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return v4Client{c}, nil
}

// explainMount says what a person can do about a mount that failed.
func explainMount(cfg *Config, err error) error {
	var status nfsclient.Status
	switch {
	case errors.As(err, &status) && (status == nfsclient.ErrNoEnt || status == nfsclient.ErrAccess || status == nfsclient.ErrPerm):
		return fmt.Errorf("this machine may not mount %s: add its address to the export's clients (`holdfast export set`), name another export with --export, or run the drill on a client: %w", cfg.Export, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("nobody answers NFS at %s from this machine: look at `holdfast status`, and whether this machine can reach that address: %w", cfg.Address, err)
	}
	return err
}
