package state

import (
	"encoding/binary"
	"fmt"

	"holdfast/internal/rangelock"
	"holdfast/internal/volume"
)

// KV receives every change of the tables as it happens; volume.Tx.Put and Del with the program's prefix are one. It must not keep key or
// value after it returns, as both are scratch, and must preserve order, as one operation may delete a key and put it again.
type KV interface {
	// Put sets the value of a key.
	Put(key, value []byte)
	// Del deletes a key.
	Del(key []byte)
}

// ClientID is a clientid4: the volume's instance in the upper half, a counter in the lower (see Tables.Seed).
type ClientID uint64

// SessionID is a sessionid4: the client id, then a counter, big-endian.
type SessionID [16]byte

// Client returns the client that the session belongs to or belonged to.
func (s SessionID) Client() ClientID { return ClientID(binary.BigEndian.Uint64(s[:])) }

func (s SessionID) counter() uint64 { return binary.BigEndian.Uint64(s[8:]) }

// String returns the id in hexadecimal.
func (s SessionID) String() string { return fmt.Sprintf("%x", s[:]) }

// StateID is a stateid4. Other is the lower half of the client id, then a counter, big-endian.
type StateID struct {
	Seqid uint32
	Other [12]byte
}

// The special stateids of RFC 8881 section 8.2.3. CurrentStateID is for the caller to resolve before it asks the tables.
var (
	AnonymousStateID = StateID{}
	BypassStateID    = StateID{Seqid: ^uint32(0), Other: [12]byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}}
	CurrentStateID   = StateID{Seqid: 1}
	// InvalidStateID is what CLOSE returns: no operation accepts it (RFC 8881 section 18.2.4).
	InvalidStateID = StateID{Seqid: ^uint32(0)}
)

// Special reports whether the stateid is anonymous or READ bypass: no state stands behind it.
func (s StateID) Special() bool { return s == AnonymousStateID || s == BypassStateID }

// Principal is who made a request, as far as ownership of a client record goes (RFC 8881 section 18.35.4). With AUTH_SYS it is the uid
// alone: the groups of a superuser differ between processes of one client.
type Principal struct {
	Flavor uint32
	UID    uint32
	Name   string // of a GSS principal; empty for AUTH_NONE and AUTH_SYS
}

// Share access and deny bits (RFC 8881 section 18.16.1).
const (
	AccessRead  uint32 = 1
	AccessWrite uint32 = 2
	AccessBoth  uint32 = 3
	DenyRead    uint32 = 1
	DenyWrite   uint32 = 2
	DenyBoth    uint32 = 3
)

// LockType is an nfs_lock_type4 (RFC 8881 section 18.10.1).
type LockType uint32

// The values of LockType. The W forms wait: a denied owner is remembered and told with CB_NOTIFY_LOCK.
const (
	LockRead   LockType = 1
	LockWrite  LockType = 2
	LockReadW  LockType = 3
	LockWriteW LockType = 4
)

// Valid reports whether the type is one of the four.
func (t LockType) Valid() bool { return t >= LockRead && t <= LockWriteW }

func (t LockType) write() bool { return t == LockWrite || t == LockWriteW }

func (t LockType) waits() bool { return t == LockReadW || t == LockWriteW }

// ChannelAttrs are channel_attrs4 without the RDMA part (RFC 8881 section 18.36.1). Sizes are in bytes and include the RPC header.
type ChannelAttrs struct {
	HeaderPad   uint32
	MaxRequest  uint32
	MaxResponse uint32
	MaxCached   uint32
	MaxOps      uint32
	MaxRequests uint32 // slots
}

// Flags of CREATE_SESSION (RFC 8881 section 18.36.1).
const (
	SessionPersist  uint32 = 1
	SessionBackChan uint32 = 2
	SessionRDMA     uint32 = 4
)

// Limits bound what clients can make the tables hold. They decide results and are therefore part of the state machine: all replicas must
// use the same, and a change needs a new cluster version. Where a limit is hit, the error is the one that RFC 8881 section 15.2 allows
// for the operation and that a Linux client survives.
type Limits struct {
	Clients           int    // records; EXCHANGE_ID beyond it drops the oldest unconfirmed record, or answers NFS4ERR_DELAY
	Sessions          int    // of all clients; CREATE_SESSION beyond it: NFS4ERR_NOSPC
	SessionsPerClient int    // the same
	Slots             uint32 // most slots of a session's fore channel
	Opens             int    // open stateids of all clients; OPEN beyond it: NFS4ERR_NOSPC
	OpensPerClient    int    // the same
	Locks             int    // lock stateids, and, counted apart, ranges; LOCK and LOCKU beyond it: NFS4ERR_DELAY, as the RFC lists nothing better
	LocksPerClient    int    // the same
	Waiters           int    // remembered waiters; further ones are not told and find out by polling
	WaitersPerFile    int    // the same
	OwnerBytes        int    // of client, open and lock owners (NFS4_OPAQUE_LIMIT); beyond it: NFS4ERR_INVAL
	MaxRequest        uint32 // bytes of a request, RPC header and all
	MaxResponse       uint32
	MaxCached         uint32 // bytes of a recorded reply; a longer one is recorded as NFS4ERR_RETRY_UNCACHED_REP
	ReplyBytes        int    // of all recorded replies together; treated like MaxCached beyond it
	ReplyPerClient    int    // the same for one client
	MaxOps            uint32
	MaxBackRequest    uint32 // bytes of a callback
}

// DefaultLimits are the limits of cluster version 1. Requests and responses hold 1 MiB of data and 8 KiB of everything else.
var DefaultLimits = Limits{
	Clients:           16384,
	Sessions:          16384,
	SessionsPerClient: 16,
	Slots:             64,
	Opens:             1 << 20,
	OpensPerClient:    1 << 17,
	Locks:             1 << 20,
	LocksPerClient:    1 << 17,
	Waiters:           1 << 16,
	WaitersPerFile:    64,
	OwnerBytes:        1024,
	MaxRequest:        1<<20 + 8192,
	MaxResponse:       1<<20 + 8192,
	MaxCached:         64 << 10,
	ReplyBytes:        256 << 20,
	ReplyPerClient:    8 << 20,
	MaxOps:            64,
	MaxBackRequest:    4096,
}

// ExchangeArgs is an EXCHANGE_ID (RFC 8881 section 18.35).
type ExchangeArgs struct {
	Owner     []byte
	Verifier  [8]byte
	Principal Principal
	// Update is EXCHGID4_FLAG_UPD_CONFIRMED_REC_A.
	Update bool
	// Addr and Impl (nii_name) are shown in views and mean nothing else. They are cut at 64 and 128 bytes.
	Addr, Impl string
}

// ExchangeResult is the answer to an EXCHANGE_ID.
type ExchangeResult struct {
	Client ClientID
	// Sequence is the csa_sequence that the client's next CREATE_SESSION must carry.
	Sequence uint32
	// Confirmed is EXCHGID4_FLAG_CONFIRMED_R.
	Confirmed bool
}

// CreateSessionArgs is a CREATE_SESSION that BeginCreateSession found to be new (RFC 8881 section 18.36).
type CreateSessionArgs struct {
	Client     ClientID
	Principal  Principal
	Flags      uint32
	Fore, Back ChannelAttrs
	CBProgram  uint32
	// CBSec is the callback security that the client offered and the caller chose, opaque to the tables; at most 1024 bytes are kept.
	CBSec []byte
}

// CreateSessionResult is what the new session is like, and what ended with it.
type CreateSessionResult struct {
	Session    SessionID
	Flags      uint32
	Fore, Back ChannelAttrs
	// Dropped is the state of the client's former incarnation, which confirming the new one ended.
	Dropped Dropped
}

// Dropped is what the end of some state means for others.
type Dropped struct {
	// Closed are the inodes whose last open went away, ascending: candidates for Tx.ReleaseOrphan.
	Closed []volume.Ino
	// Notify are the waiters whose lock may now be granted.
	Notify []Waiter
}

// Waiter is a lock request that was denied and asked to be told (RFC 8881 section 20.11). Waiters are advisory: they are not mirrored
// into the KV, and clients poll besides.
type Waiter struct {
	Client ClientID
	Ino    volume.Ino
	// Handle is the file handle that the client used, as given in LockArgs.
	Handle string
	Owner  string
	Type   LockType

	wants rangelock.Range
}

// OpenArgs is what OPEN asks for once the file is known (RFC 8881 section 18.16).
type OpenArgs struct {
	Client       ClientID
	Owner        []byte
	Ino          volume.Ino
	Access, Deny uint32
	// Reclaim says CLAIM_PREVIOUS.
	Reclaim bool
}

// CloseResult is the outcome of a CLOSE.
type CloseResult struct {
	StateID StateID // InvalidStateID
	// LastClose says that nobody has the file open any longer.
	LastClose bool
	Notify    []Waiter
}

// LockArgs is a LOCK (RFC 8881 section 18.10).
type LockArgs struct {
	Client  ClientID
	Ino     volume.Ino
	Handle  []byte // kept for CB_NOTIFY_LOCK; at most 128 bytes
	Type    LockType
	Reclaim bool
	Offset  uint64
	Length  uint64
	// NewOwner selects open_to_lock_owner: StateID is then an open stateid and Owner names the lock owner. Otherwise StateID is the
	// lock stateid and Owner is not used.
	NewOwner bool
	StateID  StateID
	Owner    []byte
}

// LockResult is the outcome of a LOCK: StateID if it was granted, Denied if the status is ErrDenied.
type LockResult struct {
	StateID StateID
	Denied  Denied
	Notify  []Waiter // when a downgrade let others in
}

// Denied describes the lock that stands in the way (LOCK4denied). Length is all ones for a lock to the end of file.
type Denied struct {
	Offset, Length uint64
	Type           LockType
	Client         ClientID
	Owner          string
}

// Verdict is what BeginMutating found.
type Verdict uint8

// The verdicts.
const (
	New    Verdict = iota // execute, then Record
	Replay                // answer with the recorded reply
)
