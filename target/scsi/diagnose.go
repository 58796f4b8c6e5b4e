package scsi

import (
	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/twinlun/twinlun/target/sam"
)

// Bits of SEND DIAGNOSTIC and RECEIVE DIAGNOSTIC RESULTS (SPC-4 6.32, 6.23).
const (
	bitSelfTest  = 0x04
	bitsOffline  = 0x03 // DEVOFFL, UNITOFFL: allowed, and not made use of
	bitPageValid = 0x01

	diagnosticPage = 4 // the length of page 00h as it is sent
)

func diagnosticOperations() []operation {
	return []operation{
		answers(operation{code: api.RECEIVE_DIAGNOSTIC, action: noAction, access: accessReads, path: pathStandby, bare: true,
			usage: []byte{0, bitPageValid, 0xff, 0xff, 0xff, 0}}, field(3, 2), receiveDiagnostic),
		{code: api.SEND_DIAGNOSTIC, action: noAction, access: accessChanges, path: pathStandby, bare: true,
			usage:   []byte{0, bitPF | bitSelfTest | bitsOffline, 0, 0xff, 0xff, 0},
			prepare: prepareDiagnostic, execute: sendDiagnostic},
	}
}

// receiveDiagnostic returns the only page that there is: the list of pages.
func receiveDiagnostic(_ *view, c *sam.Command) ([]byte, sense) {
	if c.CDB[1]&bitPageValid != 0 && c.CDB[2] != 0 {
		return nil, invalidField(2)
	}
	return []byte{0, 0, 0, 1, 0}, sense{}
}

func prepareDiagnostic(_ *view, c *sam.Command) sense {
	size := field(3, 2)(c.CDB)
	switch {
	case size > 0 && c.CDB[1]&bitSelfTest != 0:
		return invalidField(3)
	case size > 0 && c.CDB[1]&bitPF == 0:
		return invalidBits(1, bitPF)
	case size > 0 && size != diagnosticPage:
		return illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
	}
	c.WantOut = uint32(size)
	return sense{}
}

// sendDiagnostic does the default self-test, or takes the request for the list of
// pages, which RECEIVE DIAGNOSTIC RESULTS gives anyway.
func sendDiagnostic(v *view, c *sam.Command) sense {
	c.Needed = uint32(field(3, 2)(c.CDB))
	switch {
	case c.CDB[1]&bitSelfTest != 0:
		return v.unit.selfTest(c)
	case len(c.Out) < int(c.Needed):
		return illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
	}
	for i, b := range c.Out[:c.Needed] {
		if b != 0 {
			return invalidParameter(i)
		}
	}
	return sense{}
}

// selfTest reads the first block.
func (u *unit) selfTest(c *sam.Command) sense {
	s := u.read(c, make([]byte, 1<<u.shift), 0)
	if s.key == gotgt.MEDIUM_ERROR {
		return sense{key: gotgt.HARDWARE_ERROR, code: codeSelfTestFailed}
	}
	return s
}
