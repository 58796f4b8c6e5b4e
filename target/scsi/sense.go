package scsi

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"syscall"

	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/twinlun/twinlun/target/sam"
)

// Additional sense codes that gotgt's table lacks (SPC-4 annex F).
const (
	codeBecomingReady    gotgt.SCSISubError = 0x0401
	codePortUnavailable  gotgt.SCSISubError = 0x040C // SPC-4 table 58: not accessible, target port in unavailable state
	codeSpaceAllocFailed gotgt.SCSISubError = 0x2707
	codeHardReset        gotgt.SCSISubError = 0x2902
	codeLUNReset         gotgt.SCSISubError = 0x2903

	codeSoftwareProtected      gotgt.SCSISubError = 0x2702
	codeRegistrationsPreempted gotgt.SCSISubError = 0x2a05
	codeAccessStateChanged     gotgt.SCSISubError = 0x2a06

	codeCapacityChanged  gotgt.SCSISubError = 0x2a09
	codeThresholdReached gotgt.SCSISubError = 0x3807
	codeSelfTestFailed   gotgt.SCSISubError = 0x3e03

	codeSanitizing     gotgt.SCSISubError = 0x041b
	codeSanitizeFailed gotgt.SCSISubError = 0x3103

	codeTransition  gotgt.SCSISubError = 0x040a
	codeStandby     gotgt.SCSISubError = 0x040b
	codeUnavailable gotgt.SCSISubError = 0x040c
)

// senseSize is the length of all fixed format sense data here.
const senseSize = 18

// sense is how a command failed. Its zero value means that it did not.
type sense struct {
	key  byte
	code gotgt.SCSISubError

	status sam.Status // other than CHECK CONDITION; then there is no sense data

	// The field pointer of ILLEGAL REQUEST, if pointed.
	pointed, inCDB bool
	bit            int8 // of the field's byte, or -1
	field          uint16

	progress uint32 // of NOT READY: 1 + progress indication of 65536; 0: none

	// INFORMATION, if informed.
	informed    bool
	information uint32

	specificInformation uint32 // COMMAND-SPECIFIC INFORMATION
}

// conditionMet is no failure: a PRE-FETCH that has read all.
var conditionMet = sense{status: sam.ConditionMet}

// conflict is a command that a reservation keeps out.
var conflict = sense{status: sam.ReservationConflict}

func (s sense) failed() bool { return s != sense{} }

func illegal(code gotgt.SCSISubError) sense {
	return sense{key: gotgt.ILLEGAL_REQUEST, code: code}
}

// invalidField is INVALID FIELD IN CDB, pointing to a byte.
func invalidField(at int) sense {
	return sense{key: gotgt.ILLEGAL_REQUEST, code: gotgt.ASC_INVALID_FIELD_IN_CDB,
		pointed: true, inCDB: true, bit: -1, field: uint16(at)}
}

// invalidBits is invalidField, pointing to the highest bit at fault.
func invalidBits(at int, fault byte) sense {
	s := invalidField(at)
	s.bit = int8(bits.Len8(fault) - 1)
	return s
}

// invalidParameter is INVALID FIELD IN PARAMETER LIST, pointing to a byte.
func invalidParameter(at int) sense {
	return sense{key: gotgt.ILLEGAL_REQUEST, code: gotgt.ASC_INVALID_FIELD_IN_PARMS,
		pointed: true, bit: -1, field: uint16(at)}
}

// invalidParameterBits is invalidParameter, pointing to the highest bit at fault.
func invalidParameterBits(at int, fault byte) sense {
	s := invalidParameter(at)
	s.bit = int8(bits.Len8(fault) - 1)
	return s
}

// appendFixed appends the sense data in fixed format (SPC-4 4.5.3).
func (s sense) appendFixed(p []byte) []byte {
	valid := byte(0)
	if s.informed {
		valid = 0x80
	}
	p = append(p, valid|0x70, 0, s.key)
	p = binary.BigEndian.AppendUint32(p, s.information)
	p = append(p, senseSize-8)
	p = binary.BigEndian.AppendUint32(p, s.specificInformation)
	p = append(p,
		byte(s.code>>8), byte(s.code), 0)
	sks := s.specific()
	return append(p, sks[:]...)
}

// appendDescriptor appends the sense data in descriptor format (SPC-4 4.5.2), which
// only REQUEST SENSE can ask for; with a sense key specific descriptor, if there is one.
func (s sense) appendDescriptor(p []byte) []byte {
	p = append(p, 0x72, s.key, byte(s.code>>8), byte(s.code), 0, 0, 0, 0)
	if sks := s.specific(); sks != [3]byte{} {
		p[len(p)-1] = 8
		p = append(p, 0x02, 0x06, 0, 0, sks[0], sks[1], sks[2], 0)
	}
	return p
}

// specific gives the sense-key specific bytes (SPC-4 4.5.2.4.2).
func (s sense) specific() (p [3]byte) {
	if s.progress > 0 {
		p[0] = 0x80
		binary.BigEndian.PutUint16(p[1:], uint16(s.progress-1))
		return p
	}
	if !s.pointed {
		return p
	}
	p[0] = 0x80
	if s.inCDB {
		p[0] |= 0x40
	}
	if s.bit >= 0 {
		p[0] |= 0x08 | byte(s.bit)
	}
	binary.BigEndian.PutUint16(p[1:], s.field)
	return p
}

// finish sets the outcome of a command.
func (s sense) finish(c *sam.Command) {
	if !s.failed() {
		c.Status = sam.Good
		return
	}
	c.InLen, c.Needed = 0, 0
	if c.Status = s.status; s.status == 0 {
		c.Status = sam.CheckCondition
		c.Sense = s.appendFixed(c.Sense[:0])
	}
}

// notReady is implemented by errors of a Disk that will pass: initiators then
// wait and try again instead of failing the host's I/O.
type notReady interface{ SCSINotReady() bool }

// unavailable is implemented by errors of a Disk that only the other target port's
// group can serve at present: initiators that know both go there.
type unavailable interface{ SCSIUnavailable() bool }

// mediumSense turns an error of a Disk into sense data. code tells what failed.
func mediumSense(err error, code gotgt.SCSISubError) sense {
	var wait notReady
	var away unavailable
	switch {
	case err == nil:
		return sense{}
	case errors.As(err, &away) && away.SCSIUnavailable():
		return sense{key: gotgt.NOT_READY, code: codePortUnavailable}
	case errors.As(err, &wait) && wait.SCSINotReady():
		return sense{key: gotgt.NOT_READY, code: codeBecomingReady}
	case (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)) && code == gotgt.ASC_WRITE_ERROR:
		return sense{key: gotgt.DATA_PROTECT, code: codeSpaceAllocFailed}
	}
	return sense{key: gotgt.MEDIUM_ERROR, code: code}
}
