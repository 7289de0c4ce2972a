package nfs4

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/buildbarn/go-xdr/pkg/protocols/nfsv4"

	"holdfast/internal/nfs4/state"
	"holdfast/internal/rpc"
	"holdfast/internal/volume"
)

// fakeConn is a client's end of a back channel with the slot table of a Linux client.
type fakeConn struct {
	t     *testing.T
	slots [16]uint32
	minor uint32
	calls chan *nfsv4.CbCompound4args
	fail  error
}

func newFakeConn(t *testing.T) *fakeConn {
	return &fakeConn{t: t, minor: 2, calls: make(chan *nfsv4.CbCompound4args, 16)}
}

func (f *fakeConn) Call(_ context.Context, prog, vers, proc uint32, auth *rpc.Auth, args []byte) ([]byte, error) {
	if f.fail != nil {
		return nil, f.fail
	}
	var a nfsv4.CbCompound4args
	r := bytes.NewReader(args)
	if _, err := a.ReadFrom(r); err != nil || r.Len() != 0 {
		f.t.Errorf("callback %x: %v", args, err)
	}
	if prog != 0x40000000 || vers != 1 || proc != 1 || auth.Flavor != rpc.AuthSys || a.Minorversion != f.minor {
		f.t.Errorf("callback to program %d version %d procedure %d with flavour %d, minor version %d", prog, vers, proc, auth.Flavor, a.Minorversion)
	}
	seq := a.Argarray[0].(*nfsv4.NfsCbArgop4_OP_CB_SEQUENCE).Opcbsequence
	st := nfsv4.Nfsstat4(errSeqMisordered)
	switch slot := &f.slots[seq.CsaSlotid]; seq.CsaSequenceid {
	case *slot + 1:
		*slot++
		st = nfsv4.NFS4_OK
		f.calls <- &a
	case *slot:
		st = nfsv4.Nfsstat4(errRetryUncachedRep)
	}
	var seqRes nfsv4.CbSequence4res = &nfsv4.CbSequence4res_default{CsrStatus: st}
	if st == nfsv4.NFS4_OK {
		seqRes = &nfsv4.CbSequence4res_NFS4_OK{}
	}
	var b bytes.Buffer
	_, err := (&nfsv4.CbCompound4res{Status: st, Resarray: []nfsv4.NfsCbResop4{&nfsv4.NfsCbResop4_OP_CB_SEQUENCE{Opcbsequence: seqRes}}}).WriteTo(&b)
	return b.Bytes(), err
}

// frontServer is a server behind a leader's front.
type frontServer struct {
	*server
	f    *Front
	mono int64
}

func newFrontServer(t *testing.T) *frontServer {
	s := newServer(t)
	return &frontServer{server: s, f: NewFront(s.p, s.v, 0)}
}

// through admits and executes ops as a node does.
func (s *frontServer) through(conn BackChannel, ops ...nfsv4.NfsArgop4) *nfsv4.Compound4res {
	s.t.Helper()
	args := encodeCompound(s.t, 2, ops)
	req := volume.Request{Client: testClient, Time: s.now, Rules: s.rules}
	if err := rpc.ParseCall(s.record(1, args), &req.Call); err != nil {
		s.t.Fatal(err)
	}
	if reply, done := s.f.Admit(conn, &req, s.p.Mutates(&req), s.mono); done {
		_, results, err := rpc.ParseReply(reply)
		if err != nil {
			s.t.Fatal(err)
		}
		return s.decode(results)
	}
	s.flags = s.f.SeqFlags(&req)
	return s.decode(s.raw(args))
}

// session makes a client and its session through the front.
func (s *frontServer) session(conn BackChannel, owner string) *client {
	s.t.Helper()
	ok := s.through(conn, exchangeID(owner, [8]byte{1}, 0)).Resarray[0].(*nfsv4.NfsResop4_OP_EXCHANGE_ID).OpexchangeId.(*nfsv4.ExchangeId4res_NFS4_OK).EirResok4
	c := &client{server: s.server, minor: 2, id: ok.EirClientid}
	res := s.through(conn, createSession(c.id, ok.EirSequenceid))
	c.session = res.Resarray[0].(*nfsv4.NfsResop4_OP_CREATE_SESSION).OpcreateSession.(*nfsv4.CreateSession4res_NFS4_OK).CsrResok4.CsrSessionid
	s.want(statusOK, 0, s.through(conn, c.sequence(), &nfsv4.NfsArgop4_OP_RECLAIM_COMPLETE{}))
	return c
}

// want checks a reply's status and SEQUENCE's flags.
func (s *frontServer) want(st status, flags uint32, res *nfsv4.Compound4res) {
	s.t.Helper()
	if status(res.Status) != st {
		s.t.Fatalf("status %d, want %d", res.Status, st)
	}
	if ok, is := res.Resarray[0].(*nfsv4.NfsResop4_OP_SEQUENCE).Opsequence.(*nfsv4.Sequence4res_NFS4_OK); is && ok.SrResok4.SrStatusFlags != flags {
		s.t.Errorf("flags %#x, want %#x", ok.SrResok4.SrStatusFlags, flags)
	}
}

func TestFrontAdmitsInOrder(t *testing.T) {
	s := newFrontServer(t)
	conn := newFakeConn(t)
	c := s.session(conn, "a")
	seq := c.sequence()
	s.want(statusOK, 0, s.through(conn, seq, putrootfh()))
	s.want(statusOK, 0, s.through(conn, seq, putrootfh())) // a read that is retried
	c.seq += 5
	s.want(errSeqMisordered, 0, s.through(conn, c.sequence(), putrootfh()))
	unknown := &nfsv4.NfsArgop4_OP_SEQUENCE{Opsequence: nfsv4.Sequence4args{SaSequenceid: 1}}
	s.want(errBadSession, 0, s.through(conn, unknown))

	// Another leader takes what comes first on each slot.
	s.f = NewFront(s.p, s.v, 0)
	s.want(statusOK, state.StatusCBPathDown|state.StatusCBPathDownSession, s.through(conn, c.sequence(), putrootfh()))
}

func TestFrontBindsConnections(t *testing.T) {
	const down = state.StatusCBPathDown | state.StatusCBPathDownSession
	s := newFrontServer(t)
	first, second := newFakeConn(t), newFakeConn(t)
	c := s.session(first, "a") // CREATE_SESSION's connection is bound
	s.f.ConnClosed(first)
	s.want(statusOK, down, s.through(second, c.sequence()))
	bind := func(dir nfsv4.ChannelDirFromClient4) nfsv4.NfsArgop4 {
		return &nfsv4.NfsArgop4_OP_BIND_CONN_TO_SESSION{OpbindConnToSession: nfsv4.BindConnToSession4args{BctsaSessid: c.session, BctsaDir: dir}}
	}
	res := s.through(second, bind(bindFore))
	if got := res.Resarray[0].(*nfsv4.NfsResop4_OP_BIND_CONN_TO_SESSION).OpbindConnToSession.(*nfsv4.BindConnToSession4res_NFS4_OK).BctsrResok4.BctsrDir; got != bindFore {
		t.Errorf("granted direction %d", got)
	}
	s.want(statusOK, down, s.through(second, c.sequence()))
	s.through(second, bind(bindBackOrBoth))
	s.want(statusOK, 0, s.through(second, c.sequence()))
}

func TestFrontExpiresClients(t *testing.T) {
	s := newFrontServer(t)
	conn := newFakeConn(t)
	idle, busy := s.session(conn, "idle"), s.session(conn, "busy")
	step := int64(10 * time.Second)
	var commands [][]byte
	for s.mono = 0; s.mono < int64(DefaultLease)*2; s.mono += step {
		s.want(statusOK, 0, s.through(conn, busy.sequence(), putrootfh()))
		for _, payload := range s.f.Expired(s.mono) {
			if commands = append(commands, payload); len(commands) == 1 {
				continue // it does not come into the log
			}
			s.want(errDelay, 0, s.through(conn, idle.sequence(), putrootfh())) // it may be applied at any moment
			if st := status(s.through(conn, createSession(idle.id, 2)).Status); st != errDelay {
				t.Errorf("CREATE_SESSION: status %d", st)
			}
			s.apply(commandEntry(payload))
		}
	}
	if len(commands) != 2 || !bytes.Equal(commands[0], commands[1]) || !bytes.Equal(commands[0], expireCommand(state.ClientID(idle.id))) {
		t.Fatalf("commands %x, want the one for client %x twice", commands, idle.id)
	}
	s.want(errBadSession, 0, s.through(conn, idle.sequence(), putrootfh()))
	s.want(statusOK, 0, s.through(conn, busy.sequence(), putrootfh()))
}

// A lock that comes free is announced to who waits for it, also by a leader that does not know the callback slots' numbers.
func TestNotifyLock(t *testing.T) {
	s := newFrontServer(t)
	holder, waiter := s.session(newFakeConn(t), "holder"), s.session(newFakeConn(t), "waiter")
	fh := holder.create("f", "content")
	open := func(c *client) nfsv4.Stateid4 {
		return openOf(c.ok(putfh(c.data()), open("o", "f", 3, 0, noCreate()))[1]).Stateid
	}
	sh, sw := open(holder), open(waiter)
	conn := newFakeConn(t)
	for i := range conn.slots {
		conn.slots[i] = 3 // an earlier leader used them all
	}
	for range 2 {
		// Every round is under a new leader.
		s.f = NewFront(s.p, s.v, 0)
		s.through(conn, waiter.sequence())
		s.through(conn, &nfsv4.NfsArgop4_OP_BIND_CONN_TO_SESSION{OpbindConnToSession: nfsv4.BindConnToSession4args{BctsaSessid: waiter.session, BctsaDir: 3}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); s.f.Run(ctx) }()
		held := lockOf(holder.ok(putfh(fh), lock(2, 0, 100, sh, "h"))[1])
		waiter.want(errDenied, putfh(fh), lock(4, 0, 10, sw, "w"))
		holder.ok(putfh(fh), locku(0, 100, held))
		held.Seqid = 0 // the latest
		holder.ok(&nfsv4.NfsArgop4_OP_FREE_STATEID{OpfreeStateid: nfsv4.FreeStateid4args{FsaStateid: held}})
		call := <-conn.calls
		notify := call.Argarray[1].(*nfsv4.NfsCbArgop4_OP_CB_NOTIFY_LOCK).OpcbnotifyLock
		if !bytes.Equal(notify.CnlaFh, fh) || string(notify.CnlaLockOwner.Owner) != "w" || notify.CnlaLockOwner.Clientid != waiter.id {
			t.Errorf("notified of %+v", notify)
		}
		cancel()
		<-done
	}
	if s.p.onNotify.Load() != nil {
		t.Error("Run left its callback behind")
	}
}

func TestCallbackErrors(t *testing.T) {
	s := newFrontServer(t)
	conn := newFakeConn(t)
	c := s.session(conn, "a")
	w := &state.Waiter{Client: state.ClientID(c.id), Handle: "fh", Owner: "o"}
	if err := s.f.notifyLock(t.Context(), w); err != nil {
		t.Errorf("on an idle slot: %v", err)
	}
	conn.fail = errors.New("connection reset")
	if err := s.f.notifyLock(t.Context(), w); !errors.Is(err, conn.fail) {
		t.Errorf("on a broken connection: %v", err)
	}
	conn.fail = nil
	conn.slots[0]++ // the call did arrive
	if err := s.f.notifyLock(t.Context(), w); err != nil {
		t.Errorf("after a lost reply: %v", err)
	}
	if err := s.f.notifyLock(t.Context(), &state.Waiter{Client: 1}); !errors.Is(err, errNoBackChannel) {
		t.Errorf("to an unknown client: %v", err)
	}
}
