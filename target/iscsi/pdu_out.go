package iscsi

// The PDUs that a target sends. StatSN, ExpCmdSN and MaxCmdSN (offsets 24, 28
// and 32) are put in by the writer, which alone knows them.

// scsiResponse is a SCSI Response (RFC 7143 section 11.4).
//
//	 0  0x21, 1 . . o u O U ., response (0: completed at target), SCSI status
//	16  initiator task tag
//	20  SNACK tag
//	36  ExpDataSN: how many Data-In were sent for the command
//	40  bidirectional read residual count
//	44  residual count
//	48  data: length of the sense data (2), sense data
type scsiResponse struct {
	tag       uint32
	status    byte
	expDataSN uint32
	residual  residual
	senseSize int // with the two bytes of its length
}

func (r *scsiResponse) put(h *header) {
	*h = header{0: opSCSIResp, 1: bitFinal | r.residual.bits(), 3: r.status}
	h.setDataLength(r.senseSize)
	h.put32(16, r.tag)
	h.put32(36, r.expDataSN)
	h.put32(44, r.residual.count)
}

// residual tells by how much what a command transfers and what the initiator
// expected differ.
type residual struct {
	over, under bool
	count       uint32
}

func (r residual) bits() (b byte) {
	setFlag(&b, bitOverflow, r.over)
	setFlag(&b, bitUnderflow, r.under)
	return b
}

// dataIn is a SCSI Data-In (RFC 7143 section 11.7).
//
//	 0  0x25, F A . . . O U S, reserved, SCSI status if S
//	 8  LUN, if A
//	16  initiator task tag
//	20  target transfer tag, reserved unless A
//	24  StatSN if S
//	36  DataSN
//	40  buffer offset
//	44  residual count if S
//	48  data
type dataIn struct {
	final    bool // the last of its sequence
	last     bool // the command's last, with its status in it (S bit)
	tag      uint32
	status   byte
	dataSN   uint32
	offset   uint32
	residual residual
	length   int
}

func (d *dataIn) put(h *header) {
	*h = header{0: opDataIn}
	setFlag(&h[1], bitFinal, d.final)
	h.setDataLength(d.length)
	h.put32(16, d.tag)
	h.put32(20, noTag)
	h.put32(36, d.dataSN)
	h.put32(40, d.offset)
	if d.last {
		h[1] |= bitStatus | d.residual.bits()
		h[3] = d.status
		h.put32(44, d.residual.count)
	}
}

// readyToTransfer is an R2T (RFC 7143 section 11.8).
//
//	 0  0x31, 1…, reserved (2)
//	 8  LUN
//	16  initiator task tag
//	20  target transfer tag
//	24  StatSN: the next one; an R2T uses none up
//	36  R2TSN: counts from 0 in every command
//	40  buffer offset
//	44  desired data transfer length
type readyToTransfer struct {
	lun         [8]byte
	tag         uint32
	transferTag uint32
	r2tSN       uint32
	offset      uint32
	length      uint32
}

func (r *readyToTransfer) put(h *header) {
	*h = header{0: opR2T, 1: bitFinal}
	copy(h[8:], r.lun[:])
	h.put32(16, r.tag)
	h.put32(20, r.transferTag)
	h.put32(36, r.r2tSN)
	h.put32(40, r.offset)
	h.put32(44, r.length)
}

// taskResponse is a Task Management Function Response (RFC 7143 section 11.6).
//
//	 0  0x22, 1…, response, reserved
//	16  initiator task tag
type taskResponse struct {
	tag      uint32
	response byte
}

func (r *taskResponse) put(h *header) {
	*h = header{0: opTaskResp, 1: bitFinal, 2: r.response}
	h.put32(16, r.tag)
}

// loginResponse is a Login Response (RFC 7143 section 11.13).
//
//	 0  0x23, T C . . CSG(2) NSG(2), Version-max, Version-active
//	 8  ISID (6), TSIH (2)
//	16  initiator task tag
//	36  status class, status detail, reserved (2)
//	48  data: text keys
type loginResponse struct {
	transit     bool
	cont        bool // the text goes on in the next response
	stage, next byte
	isid        [6]byte
	tsih        uint16
	tag         uint32
	status      loginStatus
}

func (r *loginResponse) put(h *header) {
	*h = header{0: opLoginResp, 1: r.stage << 2}
	if r.transit {
		h[1] |= bitFinal | r.next
	}
	setFlag(&h[1], bitContinue, r.cont)
	copy(h[8:], r.isid[:])
	h.put16(14, r.tsih)
	h.put32(16, r.tag)
	h.put16(36, uint16(r.status))
}

// textResponse is a Text Response (RFC 7143 section 11.11).
//
//	 0  0x24, F C…, reserved (2)
//	 8  LUN
//	16  initiator task tag
//	20  target transfer tag, reserved with F
//	48  data: text keys
type textResponse struct {
	final, cont bool
	tag         uint32
	transferTag uint32
}

func (r *textResponse) put(h *header) {
	*h = header{0: opTextResp}
	setFlag(&h[1], bitFinal, r.final)
	setFlag(&h[1], bitContinue, r.cont)
	h.put32(16, r.tag)
	h.put32(20, r.transferTag)
}

// logoutResponse is a Logout Response (RFC 7143 section 11.15).
//
//	 0  0x26, 1…, response, reserved
//	16  initiator task tag
//	40  Time2Wait (2), Time2Retain (2), seconds
type logoutResponse struct {
	tag        uint32
	response   byte
	time2Wait  uint16
	time2Stays uint16
}

func (r *logoutResponse) put(h *header) {
	*h = header{0: opLogoutResp, 1: bitFinal, 2: r.response}
	h.put32(16, r.tag)
	h.put16(40, r.time2Wait)
	h.put16(42, r.time2Stays)
}

// nopIn is a NOP-In (RFC 7143 section 11.19).
//
//	 0  0x20, 1…, reserved (2)
//	 8  LUN
//	16  initiator task tag of the NOP-Out that this answers, or reserved
//	20  target transfer tag, if an answer is wanted, or reserved
//	48  data: ping data
type nopIn struct {
	lun         [8]byte
	tag         uint32
	transferTag uint32
}

func (n *nopIn) put(h *header) {
	*h = header{0: opNopIn, 1: bitFinal}
	copy(h[8:], n.lun[:])
	h.put32(16, n.tag)
	h.put32(20, n.transferTag)
}

// asyncMessage is an Asynchronous Message (RFC 7143 section 11.9).
//
//	 0  0x32, 1…, reserved (2)
//	 8  LUN
//	16  reserved tag
//	36  event, code, parameters 1, 2 and 3 (2 each)
type asyncMessage struct {
	event      byte
	parameter3 uint16 // logout request: seconds within which it is wanted
}

func (a *asyncMessage) put(h *header) {
	*h = header{0: opAsync, 1: bitFinal, 36: a.event}
	h.put32(16, noTag)
	h.put16(42, a.parameter3)
}

// reject is a Reject (RFC 7143 section 11.17).
//
//	 0  0x3f, 1…, reason, reserved
//	16  reserved tag
//	36  DataSN/R2TSN
//	48  data: the header of the PDU rejected
type reject struct {
	reason rejectReason
}

func (r *reject) put(h *header) {
	*h = header{0: opReject, 1: bitFinal, 2: byte(r.reason)}
	h.setDataLength(headerSize)
	h.put32(16, noTag)
}
