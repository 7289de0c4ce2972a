package nfs4

// Attribute numbers (RFC 8881 section 5.6 and 5.7, RFC 7862 section 12.2, RFC 8275 section 4).
const (
	attrSupportedAttrs    = 0
	attrType              = 1
	attrFHExpireType      = 2
	attrChange            = 3
	attrSize              = 4
	attrLinkSupport       = 5
	attrSymlinkSupport    = 6
	attrNamedAttr         = 7
	attrFSID              = 8
	attrUniqueHandles     = 9
	attrLeaseTime         = 10
	attrRdattrError       = 11
	attrACLSupport        = 13
	attrCanSetTime        = 15
	attrCaseInsensitive   = 16
	attrCasePreserving    = 17
	attrChownRestricted   = 18
	attrFilehandle        = 19
	attrFileID            = 20
	attrFilesAvail        = 21
	attrFilesFree         = 22
	attrFilesTotal        = 23
	attrHomogeneous       = 26
	attrMaxFileSize       = 27
	attrMaxLink           = 28
	attrMaxName           = 29
	attrMaxRead           = 30
	attrMaxWrite          = 31
	attrMode              = 33
	attrNoTrunc           = 34
	attrNumLinks          = 35
	attrOwner             = 36
	attrOwnerGroup        = 37
	attrRawDev            = 41
	attrSpaceAvail        = 42
	attrSpaceFree         = 43
	attrSpaceTotal        = 44
	attrSpaceUsed         = 45
	attrTimeAccess        = 47
	attrTimeAccessSet     = 48
	attrTimeCreate        = 50
	attrTimeDelta         = 51
	attrTimeMetadata      = 52
	attrTimeModify        = 53
	attrTimeModifySet     = 54
	attrMountedOnFileID   = 55
	attrFSLayoutTypes     = 62
	attrModeSetMasked     = 74
	attrSuppattrExclcreat = 75
	attrFSCharsetCap      = 76
	attrChangeAttrType    = 79
	attrModeUmask         = 81
)

// Values of attributes.
const (
	fhPersistent           = 0 // fh_expire_type FH4_PERSISTENT
	charsetContainsNonUTF8 = 1 // FSCHARSET_CAP4_CONTAINS_NON_UTF8
	changeMonotonic        = 0 // NFS4_CHANGE_TYPE_IS_MONOTONIC_INCR
	changeUndefined        = 4 // NFS4_CHANGE_TYPE_IS_UNDEFINED
)

var (
	attrsWriteOnly = bitmapOf(attrTimeAccessSet, attrTimeModifySet, attrModeSetMasked, attrModeUmask)

	attrsSupported41 = bitmapOf(
		attrSupportedAttrs, attrType, attrFHExpireType, attrChange, attrSize, attrLinkSupport, attrSymlinkSupport, attrNamedAttr,
		attrFSID, attrUniqueHandles, attrLeaseTime, attrRdattrError, attrACLSupport, attrCanSetTime, attrCaseInsensitive,
		attrCasePreserving, attrChownRestricted, attrFilehandle, attrFileID, attrFilesAvail, attrFilesFree, attrFilesTotal,
		attrHomogeneous, attrMaxFileSize, attrMaxLink, attrMaxName, attrMaxRead, attrMaxWrite, attrMode, attrNoTrunc, attrNumLinks,
		attrOwner, attrOwnerGroup, attrRawDev, attrSpaceAvail, attrSpaceFree, attrSpaceTotal, attrSpaceUsed, attrTimeAccess,
		attrTimeAccessSet, attrTimeCreate, attrTimeDelta, attrTimeMetadata, attrTimeModify, attrTimeModifySet, attrMountedOnFileID,
		attrFSLayoutTypes, attrModeSetMasked, attrSuppattrExclcreat, attrFSCharsetCap,
	)
	attrsSupported42 = attrsSupported41.or(bitmapOf(attrChangeAttrType, attrModeUmask))

	// attrsSettable are those that a SETATTR may hold; mode_umask only a create (RFC 8275 section 4.1).
	attrsSettable  = bitmapOf(attrSize, attrMode, attrOwner, attrOwnerGroup, attrTimeAccessSet, attrTimeModifySet, attrModeSetMasked)
	attrsCreatable = attrsSettable.without(bitmapOf(attrModeSetMasked)).or(bitmapOf(attrModeUmask))

	// attrsFSWide need space figures of the volume.
	attrsSpace = bitmapOf(attrFilesAvail, attrFilesFree, attrFilesTotal, attrSpaceAvail, attrSpaceFree, attrSpaceTotal)
	// attrsFromEntry can be answered from a directory entry alone, without reading the inode.
	attrsFromEntry = bitmapOf(attrType, attrFileID, attrMountedOnFileID, attrRdattrError)
)

// supported returns supported_attrs of a minor version.
func supported(minor uint32) bitmap {
	if minor >= 2 {
		return attrsSupported42
	}
	return attrsSupported41
}

// exclcreat returns suppattr_exclcreat (RFC 8881 section 5.8.1.14): everything that can be set at creation, as no attribute is needed to keep the verifier.
func exclcreat(minor uint32) bitmap { return attrsCreatable.and(supported(minor)) }
