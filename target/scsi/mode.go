package scsi

import (
	"encoding/binary"
	"slices"

	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/twinlun/twinlun/target/sam"
)

// Fields of MODE SENSE (SPC-4 6.13).
const (
	modeAllPages    = 0x3f
	modeAllSubpages = 0xff
	modeCurrent     = 0
	modeChangeable  = 1
	modeDefault     = 2
	modeSaved       = 3

	// The device-specific parameter (SBC-3 6.4.1): DPO and FUA are understood; write
	// protected.
	modeDPOFUA = 0x10
	modeWP     = 0x80
)

// modePage is a mode page, or a subpage of one.
type modePage struct {
	code, subpage byte
	data          []byte // what follows the header, with default values
}

// modeSPF is the bit of a page's first byte that says that it is a subpage.
const modeSPF = 0x40

// modePages are a unit's mode pages, ascending.
func (u *unit) modePages() []modePage {
	all := []modePage{
		// Caching: WCE. SYNCHRONIZE CACHE and FUA are what make a write durable.
		{0x08, 0, append([]byte{0x04}, make([]byte, 0x11)...)},
		// Control: unrestricted reordering; sense data in fixed format.
		{0x0a, 0, append([]byte{0, 0x10}, make([]byte, 8)...)},
		// Informational exceptions control: DEXCPT, none are reported.
		{0x1c, 0, append([]byte{0x08}, make([]byte, 9)...)},
	}
	if u.tellsSpace() {
		all = slices.Insert(all, 0, modePage{0x01, 0, errorRecovery()})
		all = append(all, modePage{0x1c, 0x02, u.thresholds()})
	}
	return all
}

// appendHeader appends what a page begins with, in page_0 or sub_page format (SPC-4
// 7.5.7).
func (m *modePage) appendHeader(p []byte) []byte {
	if m.subpage == 0 {
		return append(p, m.code, byte(len(m.data)))
	}
	p = append(p, modeSPF|m.code, m.subpage)
	return binary.BigEndian.AppendUint16(p, uint16(len(m.data)))
}

// modeField is a setting (settings.go): a bit of a mode page that can be changed. Changes are not saved: with
// a reset or a loss of power it gets its default value again (SPC-4 7.5.1).
type modeField struct {
	page byte
	at   int // in what follows code and length
	bit  byte
	get  func(*unit) bool
	set  func(*unit, bool)
}

// modeFields are settings 0 to 2.
func modeFields() [settingEjected]modeField {
	return [...]modeField{
		// settingCache: WCE (SBC-3 6.4.5): without it a write is durable when it is answered.
		{page: 0x08, at: 0, bit: 0x04,
			get: func(u *unit) bool { return !u.writeThrough.Load() },
			set: func(u *unit, on bool) { u.writeThrough.Store(!on) }},
		// settingTAS: TAS (SPC-4 7.5.8): commands that another nexus ends are answered.
		{page: 0x0a, at: 3, bit: 0x40,
			get: func(u *unit) bool { return u.answersAborted.Load() },
			set: func(u *unit, on bool) { u.answersAborted.Store(on) }},
		// settingProtected: SWP (SPC-4 7.5.8): nothing stores to the medium.
		{page: 0x0a, at: 2, bit: 0x08,
			get: (*unit).protected,
			set: func(u *unit, on bool) { u.restrict(func(g *guard) { g.protected = on }) }},
	}
}

func (u *unit) protected() bool {
	g := u.guard.Load()
	return g != nil && g.protected
}

// deviceSpecific is the device-specific parameter.
func (u *unit) deviceSpecific() byte {
	if u.readOnly || u.protected() {
		return modeWP | modeDPOFUA
	}
	return modeDPOFUA
}

// modeSense6 is MODE SENSE (6), SPC-4 6.13.
func modeSense6(v *view, c *sam.Command) ([]byte, sense) {
	pages, s := v.unit.selectPages(c.CDB)
	if s.failed() {
		return nil, s
	}
	block := v.unit.blockDescriptor(c.CDB, false)
	size := 4 + len(block) + len(pages)
	p := []byte{byte(size - 1), 0, v.unit.deviceSpecific(), byte(len(block))}
	return append(append(p, block...), pages...), sense{}
}

// modeSense10 is MODE SENSE (10), SPC-4 6.14.
func modeSense10(v *view, c *sam.Command) ([]byte, sense) {
	pages, s := v.unit.selectPages(c.CDB)
	if s.failed() {
		return nil, s
	}
	long := c.CDB[1]&0x10 != 0
	block := v.unit.blockDescriptor(c.CDB, long)
	p := binary.BigEndian.AppendUint16(nil, uint16(8-2+len(block)+len(pages)))
	p = append(p, 0, v.unit.deviceSpecific(), 0, 0, 0, byte(len(block)))
	if long && len(block) > 0 {
		p[4] = 0x01 // LONGLBA
	}
	return append(append(p, block...), pages...), sense{}
}

// selectPages gives the mode pages that a CDB asks for.
func (u *unit) selectPages(cdb []byte) ([]byte, sense) {
	control, page, subpage := cdb[2]>>6, cdb[2]&0x3f, cdb[3]
	if control == modeSaved {
		return nil, illegal(gotgt.ASC_SAVING_PARMS_UNSUP)
	}
	var p []byte
	wrong := invalidBits(2, 0x3f)
	for _, m := range u.modePages() {
		switch {
		case page != m.code && page != modeAllPages:
		case subpage == m.subpage && (subpage == 0 || page == m.code) || subpage == modeAllSubpages:
			p = append(m.appendHeader(p), u.modeData(&m, control)...)
		default:
			wrong = invalidField(3)
		}
	}
	if p == nil {
		return nil, wrong
	}
	return p, sense{}
}

// modePage finds the page that a list begins with; size is that of its header. False:
// there is no such page.
func (u *unit) modePage(list []byte) (m modePage, size int, ok bool) {
	code, subpage, size := list[0], byte(0), 2
	if code&modeSPF != 0 {
		code, subpage, size = code&^modeSPF, list[1], 4
	}
	for _, m := range u.modePages() {
		if m.code == code && m.subpage == subpage && (subpage != 0) == (size == 4) {
			return m, size, true
		}
	}
	return m, size, false
}

// modeData is what follows a page's header: current or default values, or ones where
// something can be changed.
func (u *unit) modeData(m *modePage, control byte) []byte {
	p := make([]byte, len(m.data))
	if control != modeChangeable {
		copy(p, m.data)
	}
	for _, f := range modeFields() {
		switch {
		case f.page != m.code || m.subpage != 0 || control == modeDefault:
		case control == modeChangeable || f.get(u):
			p[f.at] |= f.bit
		default:
			p[f.at] &^= f.bit
		}
	}
	return p
}

// blockDescriptor is the short or long LBA mode parameter block descriptor
// (SBC-3 6.4.2), or none if the CDB disables it.
func (u *unit) blockDescriptor(cdb []byte, long bool) []byte {
	if cdb[1]&0x08 != 0 {
		return nil
	}
	blocks, size := u.blocks(), uint32(1)<<u.shift
	if long {
		p := binary.BigEndian.AppendUint64(nil, blocks)
		return binary.BigEndian.AppendUint64(p, uint64(size))
	}
	p := binary.BigEndian.AppendUint32(nil, uint32(min(blocks, 1<<32-1)))
	return binary.BigEndian.AppendUint32(p, size)
}
