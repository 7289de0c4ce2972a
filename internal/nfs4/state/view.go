package state

// ClientView is one client for a status display.
type ClientView struct {
	ID              ClientID
	Owner           string
	Addr, Impl      string
	Principal       Principal
	Confirmed       bool
	ReclaimComplete bool
	Sessions        []SessionView
	Opens, Locks    int
}

// SessionView is one session.
type SessionView struct {
	ID         SessionID
	Slots      uint32
	ReplyBytes int // recorded
	BackChan   bool
}

// Clients returns all clients, by id.
func (t *Tables) Clients() []ClientView {
	out := make([]ClientView, 0, len(t.clients))
	for _, c := range t.sortedClients() {
		v := ClientView{
			ID: c.id, Owner: c.owner, Addr: c.addr, Impl: c.impl, Principal: c.principal,
			Confirmed: c.confirmed, ReclaimComplete: c.reclaimComplete, Opens: len(c.opens), Locks: c.ranges,
		}
		for _, s := range c.sessions {
			sv := SessionView{ID: s.id, Slots: uint32(len(s.slots)), BackChan: s.flags&SessionBackChan != 0}
			for _, sl := range s.slots {
				sv.ReplyBytes += len(sl.reply())
			}
			v.Sessions = append(v.Sessions, sv)
		}
		out = append(out, v)
	}
	return out
}
