package state

import "slices"

// Flags of SEQUENCE's sr_status_flags that Front decides (RFC 8881 section 18.46.3).
const (
	StatusCBPathDown        uint32 = 0x00000001
	StatusCBPathDownSession uint32 = 0x00000200
)

// Expired returns the clients, by id, whose lease ran out: no renewal for one and a half lease times, counted from when this front first
// saw them. The half more is for requests on their way and clocks that differ. The caller holds the volume's lock shared and proposes the
// expiry. It also forgets sessions and clients that the tables no longer have.
//
// Nothing renews a lease that has lapsed: the client is told to ask again until the tables no longer have it, and is returned by each call until then. If it was told that its lease is
// renewed, it would rely on its locks for the time of a lease (RFC 8881 section 8.3), and they would be gone a moment later.
//
// Call it every few seconds. After a pause of half a lease or more the process itself was stopped, and clients could not reach it
// however they tried: then all leases start afresh.
func (f *Front[C]) Expired(t *Tables, now int64) []ClientID {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, s := range f.sessions {
		if t.sessions[id] == nil {
			f.forget(id, s)
		}
	}
	for id := range f.clients {
		if t.clients[id] == nil {
			delete(f.clients, id)
		}
	}
	stopped := now-f.lastSweep >= f.lease/2
	f.lastSweep = now
	var out []ClientID
	for id := range t.clients {
		c := f.client(id, now)
		if stopped {
			c.renew(now)
		}
		if c.lapsed = c.lapsed || now-c.renewed > f.lease+f.lease/2; c.lapsed {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// forget removes a session's entry. f.mu is held.
func (f *Front[C]) forget(id SessionID, s *frontSession[C]) {
	for _, conn := range s.conns {
		f.unlink(conn, id)
	}
	s.client.sessions = slices.DeleteFunc(s.client.sessions, func(x SessionID) bool { return x == id })
	delete(f.sessions, id)
}

// unlink removes id from a connection's sessions. f.mu is held.
func (f *Front[C]) unlink(conn C, id SessionID) {
	left := slices.DeleteFunc(f.conns[conn], func(x SessionID) bool { return x == id })
	if len(left) == 0 {
		delete(f.conns, conn)
		return
	}
	f.conns[conn] = left
}

// Bind notes that conn carries the session's back channel too (CREATE_SESSION with CONN_BACK_CHAN, BIND_CONN_TO_SESSION), and renews the
// client's lease. The latest 16 connections of a session are kept.
func (f *Front[C]) Bind(id SessionID, conn C, now int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.session(id, now)
	s.client.renew(now)
	if i := slices.Index(s.conns, conn); i >= 0 {
		s.conns = append(slices.Delete(s.conns, i, i+1), conn)
		return
	}
	if len(s.conns) == maxBackConns {
		f.unlink(s.conns[0], id)
		s.conns = slices.Delete(s.conns, 0, 1)
	}
	s.conns = append(s.conns, conn)
	f.conns[conn] = append(f.conns[conn], id)
}

// Unbind forgets a connection that was closed.
func (f *Front[C]) Unbind(conn C) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range f.conns[conn] {
		if s := f.sessions[id]; s != nil {
			s.conns = slices.DeleteFunc(s.conns, func(c C) bool { return c == conn })
		}
	}
	delete(f.conns, conn)
}

// backChannel returns a connection on which the session can be called back: the one bound last. f.mu is held.
func (f *Front[C]) backChannel(id SessionID) (conn C, ok bool) {
	if s := f.sessions[id]; s != nil && len(s.conns) > 0 {
		return s.conns[len(s.conns)-1], true
	}
	return conn, false
}

// BackChannelOf returns a connection on which one of the client's sessions can be called back.
func (f *Front[C]) BackChannelOf(id ClientID) (session SessionID, conn C, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.clients[id]; c != nil {
		for _, session = range c.sessions {
			if conn, ok = f.backChannel(session); ok {
				return session, conn, true
			}
		}
	}
	return SessionID{}, conn, false
}

// StatusFlags returns the callback path flags for a SEQUENCE reply: StatusCBPathDownSession if the session has no back channel, and
// StatusCBPathDown if no session of the client has one. wantsBack is whether the session was created with a back channel; without, there is nothing to miss.
func (f *Front[C]) StatusFlags(id SessionID, wantsBack bool) uint32 {
	if !wantsBack {
		return 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.backChannel(id); ok {
		return 0
	}
	if c := f.clients[id.Client()]; c != nil {
		for _, other := range c.sessions {
			if _, ok := f.backChannel(other); ok {
				return StatusCBPathDownSession
			}
		}
	}
	return StatusCBPathDown | StatusCBPathDownSession
}
