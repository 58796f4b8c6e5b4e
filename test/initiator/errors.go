package initiator

import (
	"errors"
	"fmt"
)

var (
	// ErrConnectionLost is the end of a session that nobody asked for. Whether the
	// command was carried out is not known.
	ErrConnectionLost = errors.New("iSCSI connection lost")
	// ErrClosed is a command after Close or Logout, or overtaken by one.
	ErrClosed = errors.New("iSCSI session closed")
	// ErrAborted is a command ended by a task management function of this session.
	// Whether it was carried out, wholly or in part, is not known.
	ErrAborted = errors.New("command aborted")
)

// ProtocolError is a breach of RFC 7143 by the target. The session ends with it.
type ProtocolError struct{ What string }

func (e *ProtocolError) Error() string { return "target breaks RFC 7143: " + e.What }

func protocolError(format string, args ...any) error {
	return &ProtocolError{fmt.Sprintf(format, args...)}
}

// LoginError is a login that the target refused (RFC 7143 section 11.13.5).
type LoginError struct {
	Class, Detail byte
	TargetAddress string // where to go instead, with class 1
}

func (e *LoginError) Error() string {
	s := fmt.Sprintf("login refused: status %02x%02x", e.Class, e.Detail)
	if e.TargetAddress != "" {
		s += ", moved to " + e.TargetAddress
	}
	return s
}

// CheckCondition is a command that ended with CHECK CONDITION.
type CheckCondition struct {
	Key, ASC, ASCQ byte
	Sense          []byte // as received
}

func (e *CheckCondition) Error() string {
	return fmt.Sprintf("CHECK CONDITION: sense key %x, additional sense %02x/%02x", e.Key, e.ASC, e.ASCQ)
}

// held tells that the target cannot read or write there now, as the newest data is at a site
// that is away: a host's administrator would wait for that.
func (e *CheckCondition) held() bool {
	return e.Key == SenseMediumError && e.ASCQ == 0 && (e.ASC == 0x11 || e.ASC == 0x0c)
}

// SCSI status codes and sense keys in use (SAM-5 5.3.1, SPC-4 4.5.6).
const (
	StatusGood           = 0x00
	StatusCheckCondition = 0x02
	StatusBusy           = 0x08
	StatusTaskSetFull    = 0x28
	StatusTaskAborted    = 0x40

	SenseNotReady       = 0x2
	SenseMediumError    = 0x3
	SenseIllegalRequest = 0x5
	SenseUnitAttention  = 0x6
	SenseAborted        = 0xb
	SenseMiscompare     = 0xe
)

// StatusError is a command that ended with a status other than GOOD and CHECK
// CONDITION.
type StatusError struct{ Status byte }

func (e *StatusError) Error() string {
	names := map[byte]string{
		StatusBusy: "BUSY", StatusTaskSetFull: "TASK SET FULL", StatusTaskAborted: "TASK ABORTED",
		0x04: "CONDITION MET", 0x18: "RESERVATION CONFLICT", 0x30: "ACA ACTIVE",
	}
	return fmt.Sprintf("SCSI status %02xh %s", e.Status, names[e.Status])
}

// ResponseError is a command that failed below SCSI: a SCSI response with a
// response code other than 0 (RFC 7143 section 11.4.3).
type ResponseError struct{ Code byte }

func (e *ResponseError) Error() string {
	return fmt.Sprintf("iSCSI service response %02xh", e.Code)
}

// RejectError is a PDU of ours that the target refused (RFC 7143 section 11.17).
type RejectError struct{ Reason byte }

func (e *RejectError) Error() string { return fmt.Sprintf("PDU rejected, reason %02xh", e.Reason) }

// senseError makes an error of sense data, in fixed or descriptor format
// (SPC-4 4.5). Sense data too short to tell leaves zeros.
func senseError(sense []byte) *CheckCondition {
	e := &CheckCondition{Sense: append([]byte(nil), sense...)}
	at := func(i int) byte {
		if i < len(sense) {
			return sense[i]
		}
		return 0
	}
	switch at(0) & 0x7f {
	case 0x70, 0x71:
		e.Key, e.ASC, e.ASCQ = at(2)&0xf, at(12), at(13)
	case 0x72, 0x73:
		e.Key, e.ASC, e.ASCQ = at(1)&0xf, at(2), at(3)
	}
	return e
}

// AsyncError is the target's word that it ends the connection: 1 it asks for a
// logout, 2 it drops this connection, 3 all of the session's.
type AsyncError struct{ Event byte }

func (e *AsyncError) Error() string {
	return fmt.Sprintf("the target ends the connection (asynchronous event %d)", e.Event)
}
