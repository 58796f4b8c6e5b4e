package scsi

import (
	"encoding/binary"
	"fmt"

	gotgt "github.com/gostor/gotgt/pkg/scsi"
)

// vitalPage is a vital product data page (SPC-4 7.8, SBC-3 6.5).
type vitalPage struct {
	code byte
	body func(*view) []byte // what follows the four bytes of header
}

// vitalPages are the pages of a logical unit, ascending.
func vitalPages() []vitalPage {
	return []vitalPage{
		{0x00, supportedPages},
		{0x80, func(v *view) []byte { return []byte(v.unit.lu.Attrs.SCSISN) }},
		{0x83, (*view).identification},
		{0x86, func(*view) []byte { return extendedInquiry() }},
		{0x87, func(*view) []byte { return modePolicy() }},
		{0x88, (*view).scsiPorts},
		{0x8f, func(*view) []byte { return copyPage() }},
		{0xb0, func(v *view) []byte { return v.unit.blockLimits() }},
		{0xb1, func(*view) []byte { return characteristics() }},
		{0xb2, func(v *view) []byte { return v.unit.provisioning() }},
	}
}

func (v *view) vitalPage(code byte) ([]byte, bool) {
	if v.unit == nil {
		return []byte{0}, code == 0
	}
	for _, p := range vitalPages() {
		if p.code == code {
			return p.body(v), true
		}
	}
	return nil, false
}

func supportedPages(*view) (codes []byte) {
	for _, p := range vitalPages() {
		codes = append(codes, p.code)
	}
	return codes
}

// identification is the device identification page (SPC-4 7.8.6): first what
// names the logical unit, then the target port, then the target device.
func (v *view) identification() []byte {
	attrs := v.unit.lu.Attrs
	relative := []byte{0, 0, byte(v.port.name.Port >> 8), byte(v.port.name.Port)}
	group := []byte{0, 0, byte(v.port.group >> 8), byte(v.port.group)}

	p := appendDesignator(nil, gotgt.INQ_CODE_BIN, gotgt.ASS_LU, gotgt.DESG_NAA, v.unit.naa)
	if v.unit.eui != nil {
		p = appendDesignator(p, gotgt.INQ_CODE_BIN, gotgt.ASS_LU, gotgt.DESG_EUI64, v.unit.eui)
	}
	vendor := fmt.Appendf(nil, "%-8s%-16s%s", attrs.VendorID, attrs.ProductID, attrs.SCSISN)
	p = appendDesignator(p, gotgt.INQ_CODE_ASCII, gotgt.ASS_LU, gotgt.DESG_T10, vendor)
	p = appendDesignator(p, gotgt.INQ_CODE_BIN, gotgt.ASS_TGT_PORT, gotgt.DESG_REL_TGT_PORT, relative)
	p = appendDesignator(p, gotgt.INQ_CODE_BIN, gotgt.ASS_TGT_PORT, gotgt.DESG_TGT_PORT_GRP, group)
	p = v.port.target.appendPortName(p, v.port.key.group)
	return appendDesignator(p, gotgt.INQ_CODE_UTF8, gotgt.ASS_TGT_DEV, gotgt.DESG_SCSI, nameString(v.port.target.name))
}

// appendPortName appends the designator that names a target port.
func (t *Target) appendPortName(p []byte, tag uint16) []byte {
	name := nameString(fmt.Sprintf("%s,t,0x%04X", t.name, tag))
	return appendDesignator(p, gotgt.INQ_CODE_UTF8, gotgt.ASS_TGT_PORT, gotgt.DESG_SCSI, name)
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

// extendedInquiry is the extended INQUIRY data page (SPC-4 7.8.7): simple task
// attributes (the others are kept within a session alone), a volatile cache, unit
// attentions of each I_T nexus by themselves; no protection information.
func extendedInquiry() []byte {
	p := make([]byte, 0x3c)
	p[1] = 0x01 // SIMPSUP
	p[2] = 0x01 // V_SUP
	p[3] = 0x01 // LUICLR
	return p
}

// modePolicy is the mode page policy page (SPC-4 7.8.9): all pages and subpages are
// shared by all I_T nexuses, and belong to this logical unit alone.
func modePolicy() []byte { return []byte{0x3f, 0xff, 0, 0} }

// scsiPorts is the SCSI ports page (SPC-4 7.8.10), of the ports of this target. A port:
//
//	offset size
//	     2    2  relative target port identifier
//	     6    2  length of the initiator port's TransportID: 0, it is not one
//	    10    2  length of what follows
//	    12    …  designator that names the target port
func (v *view) scsiPorts() (p []byte) {
	t := v.port.target
	for _, g := range t.groupsOf(v.unit, v.port) {
		for _, tag := range g.Ports {
			name, relative := t.appendPortName(nil, tag), t.relative(tag)
			p = append(p, 0, 0, byte(relative>>8), byte(relative), 0, 0, 0, 0, 0, 0)
			p = binary.BigEndian.AppendUint16(p, uint16(len(name)))
			p = append(p, name...)
		}
	}
	return p
}

// blockLimits is the block limits page (SBC-3 6.5.3; SBC-4 6.6.4 for what is atomic),
// lengths in logical blocks.
func (u *unit) blockLimits() []byte {
	physical := uint32(1) << u.lu.Attrs.Lbppbe
	p := make([]byte, 0x3c)
	be := binary.BigEndian
	p[0] = 0x01 // WSNZ: WRITE SAME of "all the rest" is not bounded, so not allowed
	p[1] = byte(u.maxCompare())
	be.PutUint16(p[2:], uint16(physical))
	be.PutUint32(p[4:], MaxTransfer>>u.shift)
	be.PutUint32(p[16:], maxUnmap>>u.shift)
	be.PutUint32(p[20:], maxUnmapRanges)
	be.PutUint32(p[24:], physical)
	be.PutUint32(p[28:], 1<<31) // UGAVALID, alignment 0
	be.PutUint64(p[32:], maxWriteSame>>u.shift)
	be.PutUint32(p[40:], uint32(u.maxAtomic()))
	be.PutUint32(p[44:], uint32(u.atomicUnit()))
	be.PutUint32(p[48:], uint32(u.atomicUnit()))
	be.PutUint32(p[52:], uint32(u.maxAtomic())) // with a boundary
	be.PutUint32(p[56:], uint32(u.maxAtomic())) // of that
	return p
}

// characteristics is the block device characteristics page (SBC-3 6.5.2): not a
// rotating medium; after SANITIZE with BLOCK ERASE reads succeed (WABEREQ).
func characteristics() []byte { return append([]byte{0, 1, 0, 0x40}, make([]byte, 0x38)...) }

// provisioning is the logical block provisioning page (SBC-3 6.5.4): LBPU, LBPWS,
// LBPWS10, LBPRZ; thin provisioned; the size of a threshold set, if usage is told.
func (u *unit) provisioning() []byte {
	p := []byte{0, 0xe4, 0x02, 0}
	if u.tellsSpace() {
		p[0] = byte(thresholdShift - u.shift)
	}
	return p
}
