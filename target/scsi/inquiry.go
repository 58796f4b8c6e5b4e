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
//	0 peripheral   2 version    4 additional length   8 vendor    32 revision
//	1 not removable 3 HISUP, format  5-7 MULTIP, CMDQUE  16 product  58 versions
func (v *view) standardInquiry() []byte {
	attrs := api.SCSILuPhyAttribute{VendorID: "TWINLUN", ProductID: "twinlun"}
	if v.unit != nil {
		attrs = v.unit.lu.Attrs
	}
	p := []byte{v.peripheral(), 0, 0x06, gotgt.INQUIRY_HISUP | gotgt.INQUIRY_STANDARD_FORMAT,
		96 - 5, inquiryTPGS, gotgt.INQUIRY_MULTIP, gotgt.INQUIRY_CMDQUE}
	p = fmt.Appendf(p, "%-8s%-16s%-4s", attrs.VendorID, attrs.ProductID, attrs.ProductRev)
	p = append(p, make([]byte, 22)...)
	for _, version := range attrs.VersionDesction {
		p = binary.BigEndian.AppendUint16(p, version)
	}
	return append(p, make([]byte, 96-len(p))...)
}

// vitalPage is the body of a vital product data page (SPC-4 7.8, SBC-3 6.5).
func (v *view) vitalPage(page byte) ([]byte, bool) {
	if v.unit == nil {
		return []byte{0}, page == 0
	}
	switch page {
	case 0x00:
		return []byte{0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2}, true
	case 0x80:
		return []byte(v.unit.lu.Attrs.SCSISN), true
	case 0x83:
		return v.identification(), true
	case 0xb0:
		return v.unit.blockLimits(), true
	case 0xb1: // block device characteristics: not a rotating medium
		return append([]byte{0, 1}, make([]byte, 0x3a)...), true
	case 0xb2: // LBPU, LBPWS, LBPWS10, LBPRZ; thin provisioned
		return []byte{0, 0xe4, 0x02, 0}, true
	}
	return nil, false
}

// identification is the device identification page (SPC-4 7.8.6): first what
// names the logical unit, then the target port, then the target device. The
// relative port is the portal group tag.
func (v *view) identification() []byte {
	attrs := v.unit.lu.Attrs
	relative := []byte{0, 0, byte(v.port.key.group >> 8), byte(v.port.key.group)}
	group := []byte{0, 0, byte(v.port.group >> 8), byte(v.port.group)}
	name := v.port.target.name

	p := appendDesignator(nil, gotgt.INQ_CODE_BIN, gotgt.ASS_LU, gotgt.DESG_NAA, v.unit.naa)
	if v.unit.eui != nil {
		p = appendDesignator(p, gotgt.INQ_CODE_BIN, gotgt.ASS_LU, gotgt.DESG_EUI64, v.unit.eui)
	}
	vendor := fmt.Appendf(nil, "%-8s%-16s%s", attrs.VendorID, attrs.ProductID, attrs.SCSISN)
	p = appendDesignator(p, gotgt.INQ_CODE_ASCII, gotgt.ASS_LU, gotgt.DESG_T10, vendor)
	p = appendDesignator(p, gotgt.INQ_CODE_BIN, gotgt.ASS_TGT_PORT, gotgt.DESG_REL_TGT_PORT, relative)
	p = appendDesignator(p, gotgt.INQ_CODE_BIN, gotgt.ASS_TGT_PORT, gotgt.DESG_TGT_PORT_GRP, group)
	port := fmt.Sprintf("%s,t,0x%04X", name, v.port.key.group)
	p = appendDesignator(p, gotgt.INQ_CODE_UTF8, gotgt.ASS_TGT_PORT, gotgt.DESG_SCSI, nameString(port))
	return appendDesignator(p, gotgt.INQ_CODE_UTF8, gotgt.ASS_TGT_DEV, gotgt.DESG_SCSI, nameString(name))
}

// nameString ends a SCSI name string with one to four zeros (SPC-4 7.8.6.11).
func nameString(s string) []byte {
	return append([]byte(s), make([]byte, 4-len(s)%4)...)
}

// appendDesignator appends a designation descriptor (SPC-4 7.8.6.1). The
// protocol identifier is valid only with those of the port and the device.
func appendDesignator(p []byte, codeSet, association, kind byte, value []byte) []byte {
	second := association<<4 | kind
	if association != gotgt.ASS_LU {
		codeSet |= gotgt.PIV_ISCSI << 4
		second |= 0x80
	}
	return append(append(p, codeSet, second, 0, byte(len(value))), value...)
}

// blockLimits is the block limits page (SBC-3 6.5.3), lengths in logical blocks.
func (u *unit) blockLimits() []byte {
	physical := uint32(1) << u.lu.Attrs.Lbppbe
	p := make([]byte, 0x3c)
	be := binary.BigEndian
	p[0] = 0x01 // WSNZ: WRITE SAME of "all the rest" is not bounded, so not allowed
	be.PutUint16(p[2:], uint16(physical))
	be.PutUint32(p[4:], MaxTransfer>>u.shift)
	be.PutUint32(p[16:], maxUnmap>>u.shift)
	be.PutUint32(p[20:], maxUnmapRanges)
	be.PutUint32(p[24:], physical)
	be.PutUint32(p[28:], 1<<31) // UGAVALID, alignment 0
	be.PutUint64(p[32:], maxWriteSame>>u.shift)
	return p
}
