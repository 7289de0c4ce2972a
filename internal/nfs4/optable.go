package nfs4

import (
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

// Operation numbers (RFC 8881 section 16.2.1, RFC 7862 section 15) that the code names.
const (
	opnumCreate        = 6
	opnumLink          = 11
	opnumLookup        = 15
	opnumOpen          = 18
	opnumPutFH         = 22
	opnumRemove        = 28
	opnumRename        = 29
	opnumRestoreFH     = 31
	opnumSaveFH        = 32
	opnumSetattr       = 34
	opnumWrite         = 38
	opnumBindConn      = 41
	opnumCreateSession = 43
	opnumSequence      = 53
	opnumIllegal       = 10044

	firstOpnum = 3
	lastOpnum  = 71
)

// opFlags tell how an operation may stand in a compound and what it may do.
type opFlags uint8

const (
	// opMutates: the operation may change the file system or the protocol state, so its compound must be logged.
	opMutates opFlags = 1 << iota
	// opAlone: it may come without SEQUENCE, and then must be the only one (RFC 8881 section 2.4).
	opAlone
	// opNeverWithSequence: it must always be the only one.
	opNeverWithSequence
	// opRefused: it answers an error whatever its arguments, which are not decoded, and so ends every compound.
	opRefused
)

// opInfo describes one operation.
type opInfo struct {
	name   string
	minor  uint32 // the first minor version that has it
	flags  opFlags
	decode func(*args, *xdr.Decoder)
	run    func(*compound) status
}

func refuse(st status) func(*compound) status { return func(*compound) status { return st } }

func refused(name string, minor uint32, st status) opInfo {
	return opInfo{name: name, minor: minor, flags: opRefused, decode: decodeNothing, run: refuse(st)}
}

var opTable [lastOpnum + 1]opInfo

// The table is filled here and not in its declaration, as run functions refer to it.
func init() {
	const none opFlags = 0
	notSupp := func(name string, minor uint32) opInfo { return refused(name, minor, volume.ErrNotSupp) }
	opTable = [lastOpnum + 1]opInfo{
		3:  {"ACCESS", 1, none, decodeCountOnly, opAccess},
		4:  {"CLOSE", 1, opMutates, decodeClose, opClose},
		5:  {"COMMIT", 1, none, decodeCommit, opCommit},
		6:  {"CREATE", 1, opMutates, decodeCreate, opCreate},
		7:  notSupp("DELEGPURGE", 1),
		8:  {"DELEGRETURN", 1, none, decodeStateidOnly, opDelegReturn},
		9:  {"GETATTR", 1, none, decodeBitsOnly, opGetattr},
		10: {"GETFH", 1, none, decodeNothing, opGetFH},
		11: {"LINK", 1, opMutates, decodeName, opLink},
		12: {"LOCK", 1, opMutates, decodeLock, opLock},
		13: {"LOCKT", 1, none, decodeLockt, opLockT},
		14: {"LOCKU", 1, opMutates, decodeLocku, opLockU},
		15: {"LOOKUP", 1, none, decodeName, opLookup},
		16: {"LOOKUPP", 1, none, decodeNothing, opLookupP},
		17: {"NVERIFY", 1, none, decodeAttrsOnly, opNverify},
		18: {"OPEN", 1, opMutates, decodeOpen, opOpen},
		19: notSupp("OPENATTR", 1),
		20: notSupp("OPEN_CONFIRM", 1),
		21: {"OPEN_DOWNGRADE", 1, opMutates, decodeOpenDowngrade, opOpenDowngrade},
		22: {"PUTFH", 1, none, decodePutFH, opPutFH},
		23: {"PUTPUBFH", 1, none, decodeNothing, opPutRootFH},
		24: {"PUTROOTFH", 1, none, decodeNothing, opPutRootFH},
		25: {"READ", 1, none, decodeRead, opRead},
		26: {"READDIR", 1, none, decodeReaddir, opReaddir},
		27: {"READLINK", 1, none, decodeNothing, opReadlink},
		28: {"REMOVE", 1, opMutates, decodeName, opRemove},
		29: {"RENAME", 1, opMutates, decodeRename, opRename},
		30: notSupp("RENEW", 1),
		31: {"RESTOREFH", 1, none, decodeNothing, opRestoreFH},
		32: {"SAVEFH", 1, none, decodeNothing, opSaveFH},
		33: {"SECINFO", 1, none, decodeName, opSecinfo},
		34: {"SETATTR", 1, opMutates, decodeSetattr, opSetattr},
		35: notSupp("SETCLIENTID", 1),
		36: notSupp("SETCLIENTID_CONFIRM", 1),
		37: {"VERIFY", 1, none, decodeAttrsOnly, opVerify},
		38: {"WRITE", 1, opMutates, decodeWrite, opWrite},
		39: notSupp("RELEASE_LOCKOWNER", 1),
		40: {"BACKCHANNEL_CTL", 1, opMutates, decodeBackchannelCtl, opBackchannelCtl},
		41: {"BIND_CONN_TO_SESSION", 1, opAlone | opNeverWithSequence, decodeBindConn, opBindConn},
		42: {"EXCHANGE_ID", 1, opMutates | opAlone, decodeExchangeID, opExchangeID},
		43: {"CREATE_SESSION", 1, opMutates | opAlone, decodeCreateSession, opCreateSession},
		44: {"DESTROY_SESSION", 1, opMutates | opAlone, decodeSessionOnly, opDestroySession},
		45: {"FREE_STATEID", 1, opMutates, decodeStateidOnly, opFreeStateid},
		46: {"GET_DIR_DELEGATION", 1, none, decodeGetDirDelegation, opGetDirDelegation},
		47: notSupp("GETDEVICEINFO", 1),
		48: notSupp("GETDEVICELIST", 1),
		49: notSupp("LAYOUTCOMMIT", 1),
		50: refused("LAYOUTGET", 1, errLayoutUnavailable),
		51: notSupp("LAYOUTRETURN", 1),
		52: {"SECINFO_NO_NAME", 1, none, decodeSecinfoNoName, opSecinfoNoName},
		53: {"SEQUENCE", 1, none, decodeSequence, opSequence},
		54: notSupp("SET_SSV", 1),
		55: {"TEST_STATEID", 1, none, decodeTestStateid, opTestStateid},
		56: notSupp("WANT_DELEGATION", 1),
		57: {"DESTROY_CLIENTID", 1, opMutates | opAlone, decodeClientIDOnly, opDestroyClientID},
		58: {"RECLAIM_COMPLETE", 1, opMutates, decodeFlagOnly, opReclaimComplete},
		59: {"ALLOCATE", 2, opMutates, decodeIO, opAllocate},
		60: notSupp("COPY", 2),
		61: notSupp("COPY_NOTIFY", 2),
		62: {"DEALLOCATE", 2, opMutates, decodeIO, opDeallocate},
		63: {"IO_ADVISE", 2, none, decodeIOAdvise, opIOAdvise},
		64: notSupp("LAYOUTERROR", 2),
		65: notSupp("LAYOUTSTATS", 2),
		66: notSupp("OFFLOAD_CANCEL", 2),
		67: notSupp("OFFLOAD_STATUS", 2),
		68: notSupp("READ_PLUS", 2),
		69: {"SEEK", 2, none, decodeSeek, opSeek},
		70: notSupp("WRITE_SAME", 2),
		71: notSupp("CLONE", 2),
	}
}

// Extended attributes (RFC 8276) are operations 72 to 75. They are NFS4ERR_OP_ILLEGAL, as for any server of RFC 7862 alone; xattr_support is not in supported_attrs.

var illegalOp = refused("ILLEGAL", 0, errOpIllegal)

// opOf returns what op is in a minor version; illegalOp if it is nothing.
func opOf(op, minor uint32) *opInfo {
	if op < firstOpnum || op > lastOpnum || opTable[op].minor > minor {
		return &illegalOp
	}
	return &opTable[op]
}

// place decides whether an operation may stand at position i of a compound of n (RFC 8881 section 2.10.6.1 and the descriptions of the operations named).
func place(info *opInfo, op uint32, i, n uint32) status {
	switch {
	case i == 0 && (op == opnumSequence || info == &illegalOp):
		return statusOK
	case i == 0 && info.flags&opAlone == 0:
		return errOpNotInSession
	case i == 0 && n != 1, i > 0 && info.flags&opNeverWithSequence != 0:
		return errNotOnlyOp
	case i > 0 && op == opnumSequence:
		return errSequencePos
	}
	return statusOK
}
