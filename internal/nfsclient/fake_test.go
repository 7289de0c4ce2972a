package nfsclient

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"holdfast/internal/rpc"
	"holdfast/internal/xdr"
)

// fakeServer is as much of a server of both versions as it takes to see what the client does about lost connections. Its one file holds what was
// written, in order of execution.
type fakeServer struct {
	*rpc.Server
	addr string

	mu        sync.Mutex // guards the fields below
	slots     map[uint32]*fakeSlot
	xids      map[uint32]bool
	executed  []string // payloads of WRITE
	resent    int      // requests answered from the slot or the XID
	misorders int
	verifier  byte
	committed Stability
	// fault is asked about each request, numbered from 0.
	fault    func(n int) fault
	requests int
	held     chan struct{} // closed to end the fault hold
}

type fakeSlot struct {
	seq   uint32
	reply []byte
}

type fault int

const (
	serve        fault = iota
	cutBefore          // close the connection, execute nothing
	cutAfter           // execute, then close the connection instead of answering
	badSession         // answer SEQUENCE with BADSESSION
	delaySeq           // answer SEQUENCE with DELAY
	delayOp            // answer the operation with DELAY
	hold               // answer only after held is closed
	stateRevoked       // set a flag of SEQUENCE
	rubbish            // answer with bytes that are no results
)

func newFakeServer(t *testing.T) *fakeServer {
	t.Helper()
	s := &fakeServer{slots: make(map[uint32]*fakeSlot), xids: make(map[uint32]bool), held: make(chan struct{}), committed: FileSync}
	s.Server = rpc.NewServer(rpc.ServerConfig{Conn: rpc.ConnConfig{Handler: rpc.HandlerFunc(s.handle)}})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = s.Serve(ctx, ln) }()
	t.Cleanup(func() { cancel(); <-ended })
	return s
}

func (s *fakeServer) handle(c *rpc.Conn, rec rpc.Record) {
	var call rpc.Call
	if err := rpc.ParseCall(rec.Bytes(), &call); err != nil {
		c.Fail(err)
		rec.Done()
		return
	}
	s.mu.Lock()
	n := s.requests
	s.requests++
	f := serve
	if s.fault != nil {
		f = s.fault(n)
	}
	s.mu.Unlock()
	go func() { // each on its own, as a held request must not hold others
		defer rec.Done()
		if f == hold {
			<-s.held
		}
		if f == cutBefore {
			c.Reset()
			return
		}
		reply := s.execute(&call, f)
		if f == cutAfter {
			c.Reset()
			return
		}
		_ = c.Send(reply)
	}()
}

func (s *fakeServer) execute(call *rpc.Call, f fault) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := xdr.NewEncoder(nil)
	rpc.AppendAccepted(e, call.XID, rpc.Success)
	d := xdr.NewDecoder(call.Args)
	switch {
	case f == rubbish:
		e.Uint32(0)
		e.Uint32(9999)
	case call.Vers == 4:
		d.String(100)
		d.Uint32()
		s.compound(d, e, d.Uint32(), f)
	default:
		s.version3(call, d, e, f)
	}
	return e.Bytes()
}

func (s *fakeServer) compound(d *xdr.Decoder, e *xdr.Encoder, ops uint32, f fault) {
	e.Uint32(0)
	e.Uint32(0)
	e.Uint32(ops)
	body := e.Len()
	var slot *fakeSlot
	for range ops {
		op := d.Uint32()
		e.Uint32(op)
		if op == opSequence {
			var done bool
			if slot, done = s.sequence(d, e, f); done {
				e.PutUint32(body-4, 1)
				return
			}
			if slot.reply != nil {
				s.resent++
				e.Truncate(body)
				e.Raw(slot.reply)
				return
			}
			continue
		}
		if f == delayOp && (op == opWrite || op == opGetAttr) {
			e.Uint32(uint32(ErrDelay))
			break
		}
		s.op(op, d, e)
	}
	if slot != nil {
		slot.reply = append([]byte(nil), e.Bytes()[body:]...)
	}
}

// sequence executes SEQUENCE; done: its status is not OK. A slot with a reply is a retry.
func (s *fakeServer) sequence(d *xdr.Decoder, e *xdr.Encoder, f fault) (slot *fakeSlot, done bool) {
	id := d.Fixed(sessionIDBytes)
	seq, n := d.Uint32(), d.Uint32()
	d.Uint32()
	d.Bool()
	slot = s.slots[n]
	if slot == nil {
		slot = &fakeSlot{}
		s.slots[n] = slot
	}
	status := OK
	switch {
	case f == badSession:
		status = ErrBadSession
	case f == delaySeq:
		status = ErrDelay
	case seq == slot.seq+1:
		slot.seq, slot.reply = seq, nil
	case seq != slot.seq:
		s.misorders++
		status = ErrSeqMisordered
	}
	e.Uint32(uint32(status))
	if status != OK {
		return slot, true
	}
	e.Fixed(id)
	e.Uint32(seq)
	e.Uint32(n)
	e.Uint32(31)
	e.Uint32(31)
	flags := uint32(0)
	if f == stateRevoked {
		flags = 0x10
	}
	e.Uint32(flags)
	return slot, false
}

func (s *fakeServer) op(op uint32, d *xdr.Decoder, e *xdr.Encoder) {
	e.Uint32(uint32(OK))
	switch op {
	case opExchangeID:
		e.Uint64(1)
		e.Uint32(1)
	case opCreateSession:
		e.Fixed(make([]byte, sessionIDBytes))
		for _, v := range []uint32{1, 0, 0, 1 << 21, 1 << 21, 4096, 16, 4, 0} {
			e.Uint32(v)
		}
	case opReclaimComplete:
		d.Bool()
	case opPutFH, opLookup:
		d.Opaque(maxHandleBytes)
	case opGetFH:
		e.String("handle")
	case opGetAttr:
		decodeBitmap(d)
		makeBitmap(attrSize).encode(e)
		e.Uint32(8)
		e.Uint64(uint64(len(s.executed)))
	case opWrite:
		d.Fixed(4 + stateOtherBytes)
		d.Uint64()
		d.Uint32()
		s.write(d.Opaque(1<<20), e)
	case opCommit:
		d.Uint64()
		d.Uint32()
		e.Fixed([]byte{s.verifier, 0, 0, 0, 0, 0, 0, 0})
	}
}

func (s *fakeServer) write(data []byte, e *xdr.Encoder) {
	s.executed = append(s.executed, string(data))
	e.Uint32(uint32(len(data)))
	e.Uint32(uint32(s.committed))
	e.Fixed([]byte{s.verifier, 0, 0, 0, 0, 0, 0, 0})
}

func (s *fakeServer) version3(call *rpc.Call, d *xdr.Decoder, e *xdr.Encoder, f fault) {
	if call.Prog == rpc.ProgMount {
		e.Uint32(0)
		e.String("handle")
		e.Uint32(0)
		return
	}
	if f == delayOp {
		e.Uint32(uint32(ErrDelay))
		return
	}
	e.Uint32(0)
	d.Opaque(maxHandle3)
	switch call.Proc {
	case proc3FSInfo:
		e.Bool(false)
		for range 10 {
			e.Uint32(1 << 20)
		}
	case proc3GetAttr:
		for range 21 {
			e.Uint32(0)
		}
	case proc3Write:
		d.Uint64()
		d.Uint32()
		d.Uint32()
		e.Bool(false)
		e.Bool(false)
		if s.xids[call.XID] {
			s.resent++
			e.Uint32(uint32(len(d.Opaque(1 << 20))))
			e.Uint32(uint32(FileSync))
			e.Fixed(make([]byte, verifierBytes))
			return
		}
		s.xids[call.XID] = true
		s.write(d.Opaque(1<<20), e)
	}
}

// mountFake mounts the fake, and only then lets faults happen.
func mountFake(t *testing.T, s *fakeServer, version string, f func(n int) fault) Client {
	t.Helper()
	c, err := Mount(t.Context(), Config{Address: s.addr, Export: "/data", Version: version, ReplyTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.mu.Lock()
		s.fault = nil
		s.mu.Unlock()
		if err := c.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	s.mu.Lock()
	s.requests, s.fault = 0, f
	s.mu.Unlock()
	return c
}

func openFake(c Client) File {
	switch c := c.(type) {
	case *V4:
		return &V4File{v: c, handle: "handle", locks: make(map[string]stateID)}
	case *V3:
		return &v3File{v: c, handle: "handle"}
	}
	return nil
}
