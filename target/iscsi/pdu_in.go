package iscsi

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// errFormat is wrapped by the errors of PDUs whose fields make no sense. They
// end the session (RFC 7143 section 7.6).
var errFormat = errors.New("malformed PDU (the initiator breaks RFC 7143)")

// scsiCommand is a SCSI Command (RFC 7143 section 11.3).
//
//	 0  .I 0x01, F R W . . ATTR(3), reserved (2)
//	 8  LUN
//	16  initiator task tag
//	20  expected data transfer length
//	24  CmdSN
//	28  ExpStatSN
//	32  CDB (16), continued in an AHS
//	48  AHS; data: immediate data
type scsiCommand struct {
	final       bool // no unsolicited Data-Out follows
	read, write bool
	attribute   attribute
	lun         [8]byte
	tag         uint32
	expected    uint32 // bytes
	cmdSN       uint32
	bidi        bool   // it has the AHS of a bidirectional command
	extended    []byte // the CDB's bytes after the 16th, inside the AHS given to parse
}

func parseSCSICommand(h *header, ahs []byte) (c scsiCommand, err error) {
	c = scsiCommand{
		final: h.flag(bitFinal), read: h.flag(bitRead), write: h.flag(bitWrite),
		attribute: attribute(h[1] & bitsAttribute), lun: h.lun(), tag: h.tag(), expected: h.u32(20), cmdSN: h.u32(24),
	}
	switch {
	case c.tag == noTag:
		return c, fmt.Errorf("SCSI command with the reserved task tag: %w", errFormat)
	case !c.write && h.dataLength() > 0:
		return c, fmt.Errorf("SCSI command with %d bytes of data that is no write: %w", h.dataLength(), errFormat)
	case !c.write && !c.final:
		return c, fmt.Errorf("SCSI command without F bit that is no write: %w", errFormat)
	}
	return c, c.parseAHS(ahs)
}

// Types of additional header segments (RFC 7143 section 11.2.2.1).
const (
	ahsExtendedCDB = 1
	ahsBidi        = 2
	maxExtended    = 260 - 16
)

// parseAHS reads the additional header segments, each of this form, filled up
// to a multiple of four bytes (RFC 7143 section 11.2.2):
//
//	0  2  length of what follows the type
//	2  1  bits 5-0: type
//	3  1  reserved for the two types in use
//	4  …  1: rest of the CDB; 2: expected bidirectional read length (4)
func (c *scsiCommand) parseAHS(ahs []byte) error {
	for len(ahs) > 0 {
		n := int(binary.BigEndian.Uint16(ahs)) // len(ahs) is a multiple of four
		size := 3 + n + padding(3+n)
		if n < 1 || size > len(ahs) {
			return fmt.Errorf("AHS of %d bytes where %d are left: %w", 3+n, len(ahs), errFormat)
		}
		body := ahs[4 : 3+n]
		switch kind := ahs[2] & 0x3f; {
		case kind == ahsExtendedCDB && c.extended == nil && len(body) > 0 && len(body) <= maxExtended:
			c.extended = body
		case kind == ahsBidi && !c.bidi && len(body) == 4:
			c.bidi = true
		default:
			return fmt.Errorf("AHS of type %d with %d bytes: %w", kind, len(body), errFormat)
		}
		ahs = ahs[size:]
	}
	return nil
}

// dataOut is a SCSI Data-Out (RFC 7143 section 11.7).
//
//	 0  0x05, F…, reserved (2)
//	 8  LUN, if the target transfer tag is not reserved
//	16  initiator task tag
//	20  target transfer tag, of an R2T; reserved: unsolicited
//	28  ExpStatSN
//	36  DataSN: counts from 0 in every sequence
//	40  buffer offset
type dataOut struct {
	final       bool // the last of its sequence
	tag         uint32
	transferTag uint32
	dataSN      uint32
	offset      uint32
	length      uint32
}

func parseDataOut(h *header) dataOut {
	return dataOut{
		final: h.flag(bitFinal), tag: h.tag(), transferTag: h.u32(20),
		dataSN: h.u32(36), offset: h.u32(40), length: uint32(h.dataLength()),
	}
}

// taskRequest is a Task Management Function Request (RFC 7143 section 11.5).
//
//	 0  .I 0x02, 1 function(7), reserved (2)
//	 8  LUN
//	16  initiator task tag
//	20  referenced task tag
//	24  CmdSN
//	28  ExpStatSN
//	32  RefCmdSN
//	36  ExpDataSN
type taskRequest struct {
	function byte
	lun      [8]byte
	tag      uint32
	refTag   uint32
	refCmdSN uint32
}

func parseTaskRequest(h *header) taskRequest {
	return taskRequest{
		function: h[1] & 0x7f, lun: h.lun(), tag: h.tag(),
		refTag: h.u32(20), refCmdSN: h.u32(32),
	}
}

// loginRequest is a Login Request (RFC 7143 section 11.12).
//
//	 0  0x43, T C . . CSG(2) NSG(2), Version-max, Version-min
//	 8  ISID (6), TSIH (2)
//	16  initiator task tag
//	20  CID (2), reserved (2)
//	24  CmdSN
//	28  ExpStatSN
//	48  data: text keys
type loginRequest struct {
	transit, cont bool
	stage, next   byte
	versionMin    byte
	isid          [6]byte
	tsih          uint16
	tag           uint32
	cid           uint16
	cmdSN         uint32
	expStatSN     uint32
}

func parseLoginRequest(h *header) loginRequest {
	q := loginRequest{
		transit: h.flag(bitFinal), cont: h.flag(bitContinue),
		stage: h[1] >> 2 & 3, next: h[1] & 3, versionMin: h[3],
		tsih: h.u16(14), tag: h.tag(), cid: h.u16(20),
		cmdSN: h.u32(24), expStatSN: h.u32(28),
	}
	copy(q.isid[:], h[8:14])
	return q
}

// textRequest is a Text Request (RFC 7143 section 11.10).
//
//	 0  .I 0x04, F C…, reserved (2)
//	 8  LUN
//	16  initiator task tag
//	20  target transfer tag: goes on with an earlier exchange; reserved: new
//	24  CmdSN
//	28  ExpStatSN
//	48  data: text keys
type textRequest struct {
	final, cont bool
	tag         uint32
	transferTag uint32
}

func parseTextRequest(h *header) textRequest {
	return textRequest{
		final: h.flag(bitFinal), cont: h.flag(bitContinue),
		tag: h.tag(), transferTag: h.u32(20),
	}
}

// logoutRequest is a Logout Request (RFC 7143 section 11.14).
//
//	 0  .I 0x06, 1 reason(7), reserved (2)
//	16  initiator task tag
//	20  CID (2), reserved (2)
//	24  CmdSN
//	28  ExpStatSN
type logoutRequest struct {
	reason byte
	tag    uint32
	cid    uint16
}

func parseLogoutRequest(h *header) logoutRequest {
	return logoutRequest{reason: h[1] & 0x7f, tag: h.tag(), cid: h.u16(20)}
}

// nopOut is a NOP-Out (RFC 7143 section 11.18).
//
//	 0  .I 0x00, 1…, reserved (2)
//	 8  LUN
//	16  initiator task tag; reserved: wants no answer
//	20  target transfer tag of the NOP-In that this answers, or reserved
//	24  CmdSN
//	28  ExpStatSN
//	48  data: ping data, to be sent back
type nopOut struct {
	lun [8]byte
	tag uint32
}

func parseNopOut(h *header) nopOut {
	return nopOut{lun: h.lun(), tag: h.tag()}
}
