package state

import (
	"cmp"
	"slices"
)

// Display strings are cut at these lengths.
const (
	maxAddrBytes = 64
	maxImplBytes = 128
)

// ExchangeID creates, finds or updates a client record: the cases of RFC 8881 section 18.35.4, whose numbers the comments give.
func (t *Tables) ExchangeID(kv KV, a *ExchangeArgs) (ExchangeResult, Status) {
	if len(a.Owner) == 0 || len(a.Owner) > t.limits.OwnerBytes {
		return ExchangeResult{}, ErrInval
	}
	recs := t.owners[string(a.Owner)]
	conf := recs.confirmed
	if a.Update {
		return t.updateClient(kv, conf, a)
	}
	if conf != nil {
		switch {
		case conf.principal != a.Principal:
			if conf.busy() {
				return ExchangeResult{}, ErrClientInUse // 3. collision
			}
			t.drop(kv, conf) // 3. collision with a client that holds nothing: as 1
		case conf.verifier == a.Verifier:
			return conf.exchanged(), OK // 2. not an update: a retry, or trunking
		}
		// 5. the client restarted: the confirmed record stays until the new one is confirmed.
	}
	if recs.unconfirmed != nil {
		t.drop(kv, recs.unconfirmed) // 4. replacement of an unconfirmed record
	}
	if st := t.makeRoomForClient(kv); st != OK {
		return ExchangeResult{}, st
	}
	c := t.newClient(kv, a) // 1. new owner
	return c.exchanged(), OK
}

// updateClient is EXCHANGE_ID with EXCHGID4_FLAG_UPD_CONFIRMED_REC_A: cases 6 to 9 of RFC 8881 section 18.35.4.
func (t *Tables) updateClient(kv KV, conf *client, a *ExchangeArgs) (ExchangeResult, Status) {
	switch {
	case conf == nil:
		return ExchangeResult{}, ErrNoEnt // 7
	case conf.verifier != a.Verifier:
		return ExchangeResult{}, ErrNotSame // 8
	case conf.principal != a.Principal:
		return ExchangeResult{}, ErrPerm // 9
	}
	conf.describe(a) // 6
	t.putClient(kv, conf)
	return conf.exchanged(), OK
}

func (c *client) exchanged() ExchangeResult {
	return ExchangeResult{Client: c.id, Sequence: c.createSeq + 1, Confirmed: c.confirmed}
}

func (c *client) describe(a *ExchangeArgs) {
	c.addr = a.Addr[:min(len(a.Addr), maxAddrBytes)]
	c.impl = a.Impl[:min(len(a.Impl), maxImplBytes)]
}

// busy reports whether the client has state in the sense of NFS4ERR_CLID_INUSE and NFS4ERR_CLIENTID_BUSY.
func (c *client) busy() bool { return len(c.sessions) > 0 || len(c.opens) > 0 }

// makeRoomForClient keeps the number of records within the limit at the cost of the oldest unconfirmed one: it takes nothing but an
// EXCHANGE_ID to get such a record, and its client can get another.
func (t *Tables) makeRoomForClient(kv KV) Status {
	if len(t.clients) < t.limits.Clients {
		return OK
	}
	var oldest *client
	for _, c := range t.clients {
		if !c.confirmed && (oldest == nil || c.id < oldest.id) {
			oldest = c
		}
	}
	if oldest == nil {
		return ErrDelay
	}
	t.drop(kv, oldest)
	return OK
}

func (t *Tables) newClient(kv KV, a *ExchangeArgs) *client {
	id := ClientID(t.instance)<<32 | ClientID(t.nextClient)
	for t.clients[id] != nil { // the counter went once around
		t.nextClient++
		id = ClientID(t.instance)<<32 | ClientID(t.nextClient)
	}
	t.nextClient++
	c := &client{id: id, owner: string(a.Owner), verifier: a.Verifier, principal: a.Principal}
	c.describe(a)
	t.addClient(c)
	t.putMeta(kv)
	t.putClient(kv, c)
	return c
}

// addClient enters a client into the indexes.
func (t *Tables) addClient(c *client) {
	c.opens = make(map[openKey]*open)
	c.lockOwners = make(map[string]*lockOwner)
	t.clients[c.id] = c
	recs := t.owners[c.owner]
	if c.confirmed {
		recs.confirmed = c
	} else {
		recs.unconfirmed = c
	}
	t.owners[c.owner] = recs
}

// confirm makes an unconfirmed record the owner's confirmed one. The caller has dropped the former.
func (t *Tables) confirm(kv KV, c *client) {
	c.confirmed = true
	t.owners[c.owner] = records{confirmed: c}
	t.putClient(kv, c)
}

// drop removes a client record with all that hangs on it.
func (t *Tables) drop(kv KV, c *client) Dropped {
	var d Dropped
	for _, s := range slices.Clone(c.sessions) {
		t.dropSession(kv, s)
	}
	opens := make([]*open, 0, len(c.opens))
	for _, o := range c.opens {
		opens = append(opens, o)
	}
	slices.SortFunc(opens, func(a, b *open) int { return cmp.Compare(a.id, b.id) })
	for _, o := range opens {
		ino := o.file.ino
		for _, w := range t.dropOpen(kv, o) {
			if w.Client != c.id {
				d.Notify = append(d.Notify, w)
			}
		}
		if !t.InUse(ino) {
			d.Closed = append(d.Closed, ino)
		}
	}
	slices.Sort(d.Closed)
	recs := t.owners[c.owner]
	if recs.confirmed == c {
		recs.confirmed = nil
	}
	if recs.unconfirmed == c {
		recs.unconfirmed = nil
	}
	if recs == (records{}) {
		delete(t.owners, c.owner)
	} else {
		t.owners[c.owner] = recs
	}
	delete(t.clients, c.id)
	kv.Del(t.clientKey(c.id))
	return d
}

// DestroyClientID is RFC 8881 section 18.50: NFS4ERR_CLIENTID_BUSY while the client has sessions, opens or locks.
func (t *Tables) DestroyClientID(kv KV, id ClientID) Status {
	c := t.clients[id]
	if c == nil {
		return ErrStaleClientID
	}
	if c.busy() {
		return ErrClientIDBusy
	}
	t.drop(kv, c)
	return OK
}

// ReclaimComplete is RFC 8881 section 18.51 with rca_one_fs false.
func (t *Tables) ReclaimComplete(kv KV, id ClientID) Status {
	c := t.clients[id]
	if c == nil {
		return ErrStaleClientID
	}
	if c.reclaimComplete {
		return ErrCompleteAlready
	}
	c.reclaimComplete = true
	t.putClient(kv, c)
	if t.reclaimers[c.owner] {
		delete(t.reclaimers, c.owner)
		kv.Del(t.reclaimerKey(c.owner))
		if len(t.reclaimers) == 0 {
			t.EndGrace(kv)
		}
	}
	return OK
}

// ExpireClient drops a client, confirmed or not, with everything it holds. It reports false if there is no such client.
func (t *Tables) ExpireClient(kv KV, id ClientID) (Dropped, bool) {
	c := t.clients[id]
	if c == nil {
		return Dropped{}, false
	}
	return t.drop(kv, c), true
}

func (t *Tables) sortedClients() []*client {
	out := make([]*client, 0, len(t.clients))
	for _, c := range t.clients {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *client) int { return cmp.Compare(a.id, b.id) })
	return out
}

// hasOpen reports whether the client has the file open. It looks at the file's opens, of which there are few.
func (c *client) hasOpen(f *file) bool {
	return slices.ContainsFunc(f.opens, func(o *open) bool { return o.client == c })
}
