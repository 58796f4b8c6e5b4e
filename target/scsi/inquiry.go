package scsi

import (
	"encoding/binary"
	"fmt"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/twinlun/twinlun/target/sam"
)

// Peripheral qualifier and device type of a logical unit that does not exist
// (SPC-4 6.6.2).
const noUnit = 0x7f

// inquiryTPGS is in byte 5 of standard INQUIRY data: target port groups, with
// implicit changes of their states.
const inquiryTPGS = 0x10

// inquiry is INQUIRY (SPC-4 6.6).
func inquiry(v *view, c *sam.Command) ([]byte, sense) {
	page := c.CDB[2]
	if c.CDB[1]&0x01 == 0 {
		if page != 0 {
			return nil, invalidField(2)
		}
		return v.standardInquiry(), sense{}
	}
	body, ok := v.vitalPage(page)
	if !ok {
		return nil, invalidField(2)
	}
	data := []byte{v.peripheral(), page}
	data = binary.BigEndian.AppendUint16(data, uint16(len(body)))
	return append(data, body...), sense{}
}

func (v *view) peripheral() byte {
	if v.unit == nil {
		return noUnit
	}
	return gotgt.PQ_DEVICE_CONNECTED | byte(v.unit.lu.Attrs.DeviceType)
}

// standardInquiry is the standard INQUIRY data (SPC-4 6.6.2), 96 bytes:
//
//	0 peripheral   2 version        4 additional length        8 vendor   32 revision
//	1 RMB          3 HISUP, format  5-7 TPGS, 3PC, MULTIP, CMDQUE  16 product  58 versions
func (v *view) standardInquiry() []byte {
	attrs := api.SCSILuPhyAttribute{VendorID: "TWINLUN", ProductID: "twinlun"}
	var removable byte // RMB
	if v.unit != nil {
		attrs = v.unit.lu.Attrs
		if v.unit.removable {
			removable = 0x80
		}
	}
	p := []byte{v.peripheral(), removable, 0x06, gotgt.INQUIRY_HISUP | gotgt.INQUIRY_STANDARD_FORMAT,
		96 - 5, inquiryTPGS | inquiry3PC, gotgt.INQUIRY_MULTIP, gotgt.INQUIRY_CMDQUE}
	p = fmt.Appendf(p, "%-8s%-16s%-4s", attrs.VendorID, attrs.ProductID, attrs.ProductRev)
	p = append(p, make([]byte, 22)...)
	for _, version := range attrs.VersionDesction {
		p = binary.BigEndian.AppendUint16(p, version)
	}
	return append(p, make([]byte, 96-len(p))...)
}
