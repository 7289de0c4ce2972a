package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/internal/cluster"
	"holdfast/internal/replica"
	"holdfast/internal/store"
	"holdfast/internal/vfs"
)

// A copy whose disk gave back bad data or none is marked. While it is, this node leads the volume only if no other can; a request that met the damage is answered by the node that takes
// over. Whatever could not be read is still there in the other copies, so the mark goes when the copy is made anew, or when a check has read all of it.

// damageFile is the mark in the volume's folder, with which it goes.
const damageFile = "damage.json"

// damageMark says what happened to a copy.
type damageMark struct {
	Since time.Time `json:"since"`
	What  string    `json:"what"`
	// Stopped: an entry of the log needed what could not be read, so that the copy ended there.
	Stopped bool `json:"stopped,omitempty"`
}

// damage is what this node knows of damage to its copy of a volume.
type damage struct {
	file string
	mark atomic.Pointer[damageMark]
	// found is signalled when somebody met damage.
	found chan struct{}

	mu sync.Mutex
	// attempt is the one to hand over that requests wait for; nil if none does.
	attempt *attempt
	known   *damageMark // what has been told of the mark
	alone   bool        // it has been told that nobody can take over
}

// attempt is one to hand over.
type attempt struct {
	done chan struct{} // closed at its end
	// again: the lead is elsewhere, or will be. It is set before done is closed.
	again bool
}

func newDamage(dir string) *damage {
	return &damage{file: filepath.Join(dir, damageFile), found: make(chan struct{}, 1)}
}

// marked reports whether the copy is damaged as far as anybody knows.
func (d *damage) marked() bool { return d.mark.Load() != nil }

// signal wakes who handles damage.
func (d *damage) signal() {
	select {
	case d.found <- struct{}{}:
	default:
	}
}

// load reads the mark.
func (d *damage) load() error {
	b, err := os.ReadFile(d.file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var m damageMark
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		// That there is a mark says enough.
		m = damageMark{Since: time.Now(), What: fmt.Sprintf("its mark cannot be read: %v", err)}
	}
	d.mark.Store(&m)
	return nil
}

// save writes the mark, or deletes it.
func (d *damage) save(m *damageMark) error {
	if m == nil {
		if err := os.Remove(d.file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("delete the mark of damage: %w", err)
		}
		return nil
	}
	b, err := json.Marshal(m)
	if err == nil {
		err = vfs.WriteFile(vfs.OS(), d.file, append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write down that the copy is damaged: %w", err)
	}
	return nil
}

// errStopped is why a copy is not opened that was stopped by damage.
func (m *damageMark) errStopped() error {
	return fmt.Errorf("its copy is damaged, since %s: %s", m.Since.Local().Format(time.DateTime), m.What)
}

// openDamage reads the mark of the copy in dir. One that was stopped is not opened again while its metadata cannot be read: it would stop again at the same entry, and the node's other volumes with it.
func (s *service) openDamage(dir string) error {
	s.damage = newDamage(dir)
	if err := s.damage.load(); err != nil {
		return err
	}
	m := s.damage.mark.Load()
	if m == nil || !m.Stopped {
		return nil
	}
	n := s.node
	n.mu.Lock()
	tried := n.broken[s.number] != nil && n.broken[s.number].Error() == m.errStopped().Error()
	n.mu.Unlock()
	if tried {
		return m.errStopped()
	}
	s.log.Info("this copy was stopped by damage: its metadata are read now, all of them", "since", m.Since)
	st, err := store.Open(filepath.Join(dir, storeDir), store.Options{})
	if err == nil {
		err = errors.Join(st.Scan([]byte{0}, []byte{0xff}, func(_, _ []byte) bool { return s.ctx.Err() == nil }), st.Close())
	}
	if err != nil {
		s.log.Error("the metadata of this copy are damaged", "err", err)
		return m.errStopped()
	}
	going := *m
	going.Stopped = false
	s.damage.mark.Store(&going)
	return s.damage.save(&going)
}

// metDamage notes that this copy could not be read (volume.Config.Damaged). If it stops by that, this process is about to end.
func (s *service) metDamage(err error, stops bool) {
	d := s.damage
	m := &damageMark{Since: time.Now().UTC(), What: err.Error(), Stopped: stops}
	if !d.mark.CompareAndSwap(nil, m) && stops {
		d.mark.Store(m)
	}
	if !stops {
		d.signal()
		return
	}
	s.log.Error("THIS COPY IS DAMAGED and stops: its disk gave bad data or none. The other copies go on. Look at the disk, and make the copy anew: "+s.repairCommand()+" --wrong "+s.node.id.Name, "err", err)
	if err := d.save(m); err != nil {
		s.log.Error("the damage will not be known after a restart", "err", err)
	}
}

func (s *service) repairCommand() string { return "`holdfast check " + s.name + " --repair`" }

// watchDamage handles damage until the service ends.
func (s *service) watchDamage() {
	d := s.damage
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-d.found:
		}
		s.tellDamage()
		d.mu.Lock()
		a := d.attempt
		d.mu.Unlock()
		again := !d.marked() || s.handOverDamaged()
		if a == nil {
			continue
		}
		d.mu.Lock()
		a.again, d.attempt = again, nil
		d.mu.Unlock()
		close(a.done)
	}
}

// tellDamage tells everybody, once, that this copy is damaged, or that it is no longer.
func (s *service) tellDamage() {
	d := s.damage
	m := d.mark.Load()
	if m == d.known {
		return
	}
	told := d.known != nil
	d.known = m
	self := s.node.cluster.state().Node(s.node.id.Node)
	s.replica.SetReluctant(m != nil || self != nil && (self.Standby || self.Leaving))
	s.sendReport()
	switch {
	case m != nil && !told:
		s.log.Error("THIS COPY IS DAMAGED: its disk gave bad data or none. Another node leads the volume while one can. Look at the disk, and make the copy anew: "+s.repairCommand(), "err", m.What)
		s.noteEvent(fmt.Sprintf("the copy on node %s is damaged: %s: look at the disk, and make the copy anew: %s", s.node.id.Name, m.What, s.repairCommand()))
	case m == nil:
		s.log.Info("all of this copy can be read: it counts as whole again")
		s.noteEvent(fmt.Sprintf("the copy on node %s could be read, all of it, and counts as whole again", s.node.id.Name))
	}
	if err := d.save(m); err != nil {
		s.log.Error("what is known of damage to this copy will not be known after a restart", "err", err)
	}
}

// noteEvent writes an event about this copy, in the background.
func (s *service) noteEvent(text string) {
	s.node.note(cluster.Event{Kind: cluster.EventMember, Volume: s.name, Node: s.node.id.Name, Text: text})
}

// noteRetry is how long it takes until it is tried again to write an event.
const noteRetry = 2 * time.Second

// note writes an event, in the background, when the cluster can.
func (n *Node) note(e cluster.Event) {
	n.work.Go(func() {
		for n.ctx.Err() == nil {
			limited, cancel := context.WithTimeout(n.ctx, leaderPatience)
			_, err := n.cluster.do(limited, n.id.Name, cluster.Command{Note: &e})
			cancel()
			if err == nil {
				return
			}
			n.log.Info("an event could not be written down; trying on", "volume", e.Volume, "event", e.Text, "err", err)
			pause(n.ctx, noteRetry)
		}
	})
}

// escape waits until this node has tried to give the lead to one whose copy is whole, for a request that met damage here, which err is about. It reports whether the request is to be tried again; if not there is
// no such node, and the client has to hear of it.
func (s *service) escape(err error) bool {
	s.metDamage(err, false)
	d := s.damage
	d.mu.Lock()
	if d.attempt == nil {
		d.attempt = &attempt{done: make(chan struct{})}
	}
	a := d.attempt
	d.mu.Unlock()
	d.signal()
	select {
	case <-a.done:
		return a.again
	case <-s.ctx.Done():
		return true
	}
}

// handOverRetry is how long a leader waits that could not hand over, although there is somebody to take over.
const handOverRetry = 50 * time.Millisecond

// handOverDamaged gives the lead to a node whose copy is whole. It reports false if there is none.
func (s *service) handOverDamaged() bool {
	if !s.isLeader() {
		return true
	}
	to := s.wholeSuccessor(nil)
	s.damage.mu.Lock()
	wasAlone := s.damage.alone
	s.damage.alone = to == 0
	s.damage.mu.Unlock()
	if to == 0 {
		if !wasAlone {
			s.log.Error("NO OTHER COPY CAN TAKE OVER from this damaged one: clients get I/O errors for what it cannot read. Bring another copy in sync")
		}
		return false
	}
	if err := s.move(to, fmt.Sprintf("the copy on node %s is damaged", s.node.id.Name)); err != nil {
		s.log.Warn("the lead could not be given up although this copy is damaged; trying on", "err", err)
		pause(s.ctx, handOverRetry)
	}
	return true
}

// wholeSuccessor returns a node that could lead now and whose copy is whole as far as it knows, the one that would rather lead and whose log goes furthest; 0 if there is none.
func (s *service) wholeSuccessor(except []uint64) uint64 {
	var best replica.PeerStatus
	for _, p := range s.replica.Status().Peers {
		if !canLead(&p) || slices.Contains(except, p.ID) {
			continue
		}
		if best.ID == 0 || best.Reluctant && !p.Reluctant || best.Reluctant == p.Reluctant && p.Match > best.Match {
			best = p
		}
	}
	return best.ID
}

// canLead reports whether a member could take over now: it has everything, answers, and knows of no damage to its copy.
func canLead(p *replica.PeerStatus) bool {
	r, _ := decodeReport(p.Report)
	return p.Voter && p.Active && p.InSync && !p.NeedsSnapshot && !p.Recovering && !r.Damaged && !replica.IsWitness(p.ID)
}

// stepAside gives the lead up where this copy is not one to make others of: it is damaged, or to be thrown away. wait: nothing else is to be done until that has happened.
func (s *service) stepAside(v *cluster.Volume) (wait bool, err error) {
	if s.damage.marked() {
		s.damage.signal()
	}
	if !slices.Contains(v.Rebuild, s.node.id.Node) {
		return false, nil
	}
	to := s.wholeSuccessor(v.Rebuild)
	if to == 0 {
		return true, fmt.Errorf("the copy on this node is to be made anew, but no other one is in sync to take over and to make it of")
	}
	return true, s.move(to, fmt.Sprintf("the copy on node %s is made anew", s.node.id.Name))
}

// damaged reports whether this node's copy of a group's volume is marked.
func damaged(g group) bool {
	s, ok := g.(*service)
	return ok && s.damage.marked()
}

// problems says what is wrong with this copy, for status.
func (s *service) problems() []string {
	m := s.damage.mark.Load()
	if m == nil {
		return nil
	}
	return []string{fmt.Sprintf("node %s: %v", s.node.id.Name, m.errStopped())}
}

// couldRead notes that all of this copy was read since began, so that what could not be read earlier can.
func (s *service) couldRead(began time.Time) {
	if m := s.damage.mark.Load(); m != nil && m.Since.Before(began) && s.damage.mark.CompareAndSwap(m, nil) {
		s.damage.signal()
	}
}
