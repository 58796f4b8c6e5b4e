package scsi

import (
	"encoding/binary"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/twinlun/twinlun/target/sam"
)

// requestSense is REQUEST SENSE (SPC-4 6.39): a pending unit attention is
// returned as parameter data, and is told by that.
func requestSense(v *view, c *sam.Command) ([]byte, sense) {
	s := illegal(gotgt.ASC_LUN_NOT_SUPPORTED)
	if v.unit != nil {
		s = v.take()
		if g := v.unit.guard.Load(); !s.failed() && g != nil {
			s = g.sanitizing(&operation{})
		}
	}
	if c.CDB[1]&0x01 != 0 {
		return s.appendDescriptor(nil), sense{}
	}
	return s.appendFixed(nil), sense{}
}

// reportLUNs is REPORT LUNS (SPC-4 6.33). There are no well known, administrative
// or subsidiary logical units.
func reportLUNs(v *view, c *sam.Command) ([]byte, sense) {
	var numbers []uint16
	switch c.CDB[2] {
	case 0x00, 0x02, 0x11: // addressed plainly; all; all but subsidiary ones
		numbers = v.port.luns()
	case 0x01, 0x10: // well known; administrative
	default:
		return nil, invalidField(2)
	}
	for _, other := range *v.port.views.Load() {
		other.clear(attentionLUNsChanged)
	}
	data := binary.BigEndian.AppendUint32(make([]byte, 0, 8+8*len(numbers)), uint32(8*len(numbers)))
	data = append(data, 0, 0, 0, 0)
	for _, number := range numbers {
		data = appendLUN(data, number)
	}
	return data, sense{}
}

// Service action and reporting options of REPORT SUPPORTED OPERATION CODES
// (SPC-4 6.35.1).
const (
	reportCodes     = 0x0c
	reportFunctions = 0x0d

	optionAll    = 0
	optionCode   = 1 // one command that has no service actions
	optionAction = 2 // one service action
	optionEither = 3

	supportNone     = 1
	supportStandard = 3
)

func (o *operations) reportOperations() []operation {
	return []operation{
		answers(operation{code: api.REPORT_LUNS, action: noAction, quiet: true, during: duringAll, access: accessAlways, path: pathAny, bare: true,
			usage: []byte{0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0}}, field(6, 4), reportLUNs),
		answers(operation{code: api.MAINT_PROTOCOL_IN, action: reportCodes, during: duringAll, access: accessReads, bare: true,
			usage: []byte{0, reportCodes, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0}}, field(6, 4), o.reportCodes),
		answers(operation{code: api.MAINT_PROTOCOL_IN, action: reportFunctions, during: duringAll, access: accessReads, bare: true,
			usage: []byte{0, reportFunctions, 0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0}}, field(6, 4), functionsData),
	}
}

// functionsData is REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 6.36): ABORT
// TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET, TARGET RESET; with REPD
// followed by timeouts, none of which is recommended.
func functionsData(_ *view, c *sam.Command) ([]byte, sense) {
	p := []byte{0xda, 0, 0, 0}
	if c.CDB[2]&0x80 != 0 {
		p[3] = 0x0c
		p = append(p, make([]byte, 12)...)
	}
	return p, sense{}
}

// reportCodes is REPORT SUPPORTED OPERATION CODES (SPC-4 6.35).
func (o *operations) reportCodes(v *view, c *sam.Command) ([]byte, sense) {
	timeouts := c.CDB[2]&0x80 != 0
	option, code := c.CDB[2]&0x07, c.CDB[3]
	action := int(binary.BigEndian.Uint16(c.CDB[4:]))
	plain := len(o[code]) == 0 || o[code][0].action == noAction
	switch {
	case option == optionAll:
		return o.reportAll(v.unit, timeouts), sense{}
	case option > optionEither:
		return nil, invalidBits(2, 0x07)
	case option == optionCode && !plain, option == optionAction && plain && len(o[code]) > 0:
		return nil, invalidBits(2, 0x07)
	case option == optionCode, option == optionEither && plain && action == 0:
		action = noAction
	}
	return reportOne(o.lookUp(v.unit, code, action), timeouts), sense{}
}

func (o *operations) lookUp(u *unit, code byte, action int) *operation {
	for _, op := range o[code] {
		if op.action == action && !u.lacks(op.code) {
			return op
		}
	}
	return nil
}

// reportAll lists command descriptors (SPC-4 6.35.2).
func (o *operations) reportAll(u *unit, timeouts bool) []byte {
	p := make([]byte, 4)
	for _, ops := range o {
		for _, op := range ops {
			if !u.lacks(op.code) {
				p = op.appendDescriptor(p, timeouts)
			}
		}
	}
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	return p
}

func (op *operation) appendDescriptor(p []byte, timeouts bool) []byte {
	var flags byte // CTDP, SERVACTV
	if timeouts {
		flags |= 0x02
	}
	if op.action != noAction {
		flags |= 0x01
	}
	p = append(p, byte(op.code), 0, 0, byte(max(op.action, 0)), 0, flags, 0, byte(len(op.usage)))
	if timeouts {
		p = appendTimeouts(p)
	}
	return p
}

// reportOne is the one command parameter data (SPC-4 6.35.3).
func reportOne(op *operation, timeouts bool) []byte {
	if op == nil {
		return []byte{0, supportNone, 0, 0}
	}
	p := append([]byte{0, supportStandard, 0, byte(len(op.usage))}, op.usage...)
	if timeouts {
		p[1] |= 0x80 // CTDP
		p = appendTimeouts(p)
	}
	return p
}

// appendTimeouts appends a command timeouts descriptor (SPC-4 6.35.4) that
// recommends none: how long a command waits depends on the link to the peer.
func appendTimeouts(p []byte) []byte {
	return append(p, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
}
