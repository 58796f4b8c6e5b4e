package iscsi

// Opcodes of what initiators send (RFC 7143 section 11.2.1.2).
const (
	opNopOut     = 0x00
	opSCSI       = 0x01
	opTaskMgmt   = 0x02
	opLogin      = 0x03
	opText       = 0x04
	opDataOut    = 0x05
	opLogout     = 0x06
	opSNACK      = 0x10
	opNopIn      = 0x20
	opSCSIResp   = 0x21
	opTaskResp   = 0x22
	opLoginResp  = 0x23
	opTextResp   = 0x24
	opDataIn     = 0x25
	opLogoutResp = 0x26
	opR2T        = 0x31
	opAsync      = 0x32
	opReject     = 0x3f
)

// Bits of the first two bytes of a header.
const (
	bitImmediate = 0x40
	bitFinal     = 0x80 // login: transit
	bitContinue  = 0x40 // login and text requests and responses
	bitRead      = 0x40 // SCSI command
	bitWrite     = 0x20 // SCSI command
	bitOverflow  = 0x04 // SCSI response, Data-In
	bitUnderflow = 0x02 // SCSI response, Data-In
	bitStatus    = 0x01 // Data-In
)

// noTag is the reserved value of initiator and target task tags.
const noTag = 0xffffffff

// rejectReason says why a PDU was rejected (RFC 7143 section 11.17.1).
type rejectReason byte

const (
	rejectDataDigest   rejectReason = 0x02
	rejectSNACK        rejectReason = 0x03
	rejectProtocol     rejectReason = 0x04
	rejectUnsupported  rejectReason = 0x05
	rejectTooManyImm   rejectReason = 0x06
	rejectTaskInFlight rejectReason = 0x07
	rejectInvalidField rejectReason = 0x09
)

// Responses to task management requests (RFC 7143 section 11.6.1).
const (
	tmfComplete      = 0
	tmfNoTask        = 1
	tmfNoLUN         = 2
	tmfNoReassign    = 4
	tmfNotSupported  = 5
	taskReassign     = 8 // the function that sam does not know
	logoutSession    = 0 // reasons of logout requests (section 11.14.1)
	logoutConnection = 1
	logoutRecovery   = 2
	logoutDone       = 0 // responses to them (section 11.15.1)
	logoutNoCID      = 1
	logoutNoRecovery = 2
	asyncLogout      = 1 // asynchronous events (section 11.9.1)
)

// Stages of a login (RFC 7143 section 11.12.3).
const (
	stageSecurity    = 0
	stageOperational = 1
	stageFullFeature = 3
)
