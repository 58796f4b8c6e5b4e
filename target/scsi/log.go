package scsi

import (
	"encoding/binary"

	"github.com/gostor/gotgt/pkg/api"

	"github.com/twinlun/twinlun/target/sam"
)

// Provisioned is a Disk that knows how much space it takes.
type Provisioned interface {
	// Provisioning tells how many bytes the disk takes, and how many more there are for
	// it, which it may share with others. Not ok: it cannot be told now.
	Provisioning() (used, available int64, ok bool)
}

// LOG SENSE (SPC-4 6.6): pages and values.
const (
	logSupported    = 0x00
	logProvisioning = 0x0c
	logSubpages     = 0xff

	logCumulative = 1 // PC: the values that there are

	logAvailable = 0x0001 // parameter codes of page 0Ch
	logUsed      = 0x0002
)

func logOperations() []operation {
	return []operation{
		answers(operation{code: api.LOG_SENSE, action: noAction, access: accessAlways, path: pathStandby, bare: true,
			usage: []byte{0, 0, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0}}, field(7, 2), logSense),
	}
}

// logPages are the pages that a unit has, ascending.
func (u *unit) logPages() []byte {
	if u.tellsSpace() {
		return []byte{logSupported, logProvisioning}
	}
	return []byte{logSupported}
}

func logSense(v *view, c *sam.Command) ([]byte, sense) {
	control, page, subpage := c.CDB[2]>>6, c.CDB[2]&0x3f, c.CDB[3]
	first := binary.BigEndian.Uint16(c.CDB[5:])
	var body []byte
	switch pages := v.unit.logPages(); {
	case page == logSupported && subpage == 0:
		body = pages
	case page == logSupported && subpage == logSubpages:
		body = []byte{logSupported, 0, logSupported, logSubpages}
		for _, code := range pages[1:] {
			body = append(body, code, 0)
		}
	case page != logProvisioning || len(pages) == 1:
		return nil, invalidBits(2, 0x3f)
	case subpage != 0:
		return nil, invalidField(3)
	case control != logCumulative:
		return nil, invalidBits(2, 0xc0)
	case first > logUsed:
		return nil, invalidField(5)
	default:
		body = v.unit.logProvisioning(first)
	}
	p := []byte{page, subpage}
	if subpage != 0 {
		p[0] |= 0x40 // SPF
	}
	return append(binary.BigEndian.AppendUint16(p, uint16(len(body))), body...), sense{}
}

// logProvisioning is the logical block provisioning log page (SBC-3 6.3.4), from a
// parameter on. A parameter:
//
//	offset size
//	     0    2  code
//	     2    1  03h: binary, in a list
//	     3    1  8
//	     4    4  threshold sets
//	     8    1  scope: 1, of this unit; 2, there may be others
func (u *unit) logProvisioning(first uint16) (p []byte) {
	used, available, ok := u.disk.(Provisioned).Provisioning()
	if !ok {
		return nil
	}
	for _, parameter := range []struct {
		code  uint16
		bytes int64
		scope byte
	}{{logAvailable, available, 2}, {logUsed, used, 1}} {
		if parameter.code < first {
			continue
		}
		p = append(binary.BigEndian.AppendUint16(p, parameter.code), 0x03, 8)
		p = binary.BigEndian.AppendUint32(p, uint32(min(max(parameter.bytes, 0)>>thresholdShift, 1<<32-1)))
		p = append(p, parameter.scope, 0, 0, 0)
	}
	return p
}
