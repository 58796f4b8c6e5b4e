package scsi

import (
	"encoding/binary"

	"github.com/gostor/gotgt/pkg/api"
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

// modePages are the mode pages, ascending; Data is what follows code and length,
// with default values.
func modePages() []api.ModePage {
	return []api.ModePage{
		// Caching: WCE. SYNCHRONIZE CACHE and FUA are what make a write durable.
		{PageCode: 0x08, Size: 0x12, Data: append([]byte{0x04}, make([]byte, 0x11)...)},
		// Control: unrestricted reordering; sense data in fixed format.
		{PageCode: 0x0a, Size: 0x0a, Data: append([]byte{0, 0x10}, make([]byte, 8)...)},
		// Informational exceptions control: DEXCPT, none are reported.
		{PageCode: 0x1c, Size: 0x0a, Data: append([]byte{0x08}, make([]byte, 9)...)},
	}
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
	if subpage != 0 && subpage != modeAllSubpages {
		return nil, invalidField(3)
	}
	var p []byte
	for i := range u.lu.ModePages {
		if m := &u.lu.ModePages[i]; page == m.PageCode || page == modeAllPages {
			p = append(append(p, m.PageCode, m.Size), u.modeData(m, control)...)
		}
	}
	if p == nil {
		return nil, invalidBits(2, 0x3f)
	}
	return p, sense{}
}

// modePage finds a page; nil: there is none.
func (u *unit) modePage(code byte) *api.ModePage {
	for i := range u.lu.ModePages {
		if m := &u.lu.ModePages[i]; m.PageCode == code {
			return m
		}
	}
	return nil
}

// modeData is what follows a page's code and length: current or default values, or
// ones where something can be changed.
func (u *unit) modeData(m *api.ModePage, control byte) []byte {
	p := make([]byte, m.Size)
	if control != modeChangeable {
		copy(p, m.Data)
	}
	for _, f := range modeFields() {
		switch {
		case f.page != m.PageCode || control == modeDefault:
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
