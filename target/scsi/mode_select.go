package scsi

import (
	"bytes"
	"encoding/binary"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/twinlun/twinlun/target/sam"
)

// bitPF of MODE SELECT: the list is made of pages, as the standard has them. There
// is no other kind here; SP (save) is not in the usage map.
const bitPF = 0x10

// selectOperations are MODE SELECT (6) and (10) (SPC-4 6.11, 6.12). Parameter list:
//
//	(6)   (10)
//	0-1   0-2   mode data length and medium type, which mean nothing here
//	  2     3   device-specific parameter, the same
//	        4   LONGLBA
//	  3   6-7   length of the block descriptor: 0, or one as MODE SENSE returns it
//	  …     …   pages as MODE SENSE returns them
//
// All of it is checked before anything is changed.
func selectOperations() []operation {
	return []operation{
		selectOperation(api.MODE_SELECT, []byte{0, bitPF, 0, 0, 0xff, 0}, field(4, 1), 4),
		selectOperation(api.MODE_SELECT_10, []byte{0, bitPF, 0, 0, 0, 0, 0, 0xff, 0xff, 0}, field(7, 2), 8),
	}
}

func selectOperation(code api.SCSICommandType, usage []byte, size length, header int) operation {
	return operation{
		code: code, action: noAction, access: accessChanges, path: pathStandby, bare: true, usage: usage,
		prepare: func(_ *view, c *sam.Command) sense {
			if c.CDB[1]&bitPF == 0 && size(c.CDB) > 0 {
				return invalidBits(1, bitPF)
			}
			c.WantOut = uint32(size(c.CDB))
			return sense{}
		},
		execute: func(v *view, c *sam.Command) sense {
			c.Needed = uint32(size(c.CDB))
			switch {
			case c.Needed == 0:
				return sense{}
			case len(c.Out) < int(c.Needed), int(c.Needed) < header:
				return illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
			}
			return v.selectModes(c, c.Out[:c.Needed], header)
		},
	}
}

// selectModes checks a parameter list, and then changes what it asks for.
func (v *view) selectModes(c *sam.Command, list []byte, header int) sense {
	long, size := false, int(list[3])
	if header == 8 {
		long, size = list[4]&0x01 != 0, int(binary.BigEndian.Uint16(list[6:]))
	}
	if size > len(list)-header {
		return illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
	}
	at := header + size
	if size > 0 && !v.unit.sameBlocks(list[header:at], long) {
		return invalidParameter(header)
	}
	return v.changeModes(c, list, at)
}

// sameBlocks tells whether a block descriptor asks for the blocks that there are. No
// blocks means: as many as now.
func (u *unit) sameBlocks(p []byte, long bool) bool {
	now := u.blockDescriptor([]byte{0, 0}, long)
	if len(p) != len(now) {
		return false
	}
	count := len(now) / 2
	return bytes.Equal(p[count:], now[count:]) && (allZero(p[:count]) || bytes.Equal(p[:count], now[:count]))
}

// wantedModes checks pages against the present ones: only what can be changed may
// differ. It returns all changeable fields as they are wanted.
func (u *unit) wantedModes(list []byte, at int) (wanted []bool, s sense) {
	fields := modeFields()
	for i := range fields {
		wanted = append(wanted, fields[i].get(u))
	}
	for at < len(list) {
		if len(list)-at < 2 {
			return nil, illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
		}
		page, s := u.samePage(list, at)
		if s.failed() {
			return nil, s
		}
		at += len(page.appendHeader(nil))
		for i, f := range fields {
			if f.page == page.code && page.subpage == 0 {
				wanted[i] = list[at+f.at]&f.bit != 0
			}
		}
		at += len(page.data)
	}
	return wanted, sense{}
}

// samePage finds the page at an offset of a parameter list, and checks that it is there
// in full and that nothing differs from the present one but what can be changed.
func (u *unit) samePage(list []byte, at int) (page modePage, s sense) {
	page, size, ok := u.modePage(list[at:])
	if !ok {
		return page, invalidParameter(at)
	}
	header := page.appendHeader(nil)
	if len(list)-at < size {
		return page, illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
	}
	length := size / 2 // where it stands, and how many bytes it has
	switch {
	case !bytes.Equal(list[at+length:at+size], header[length:]):
		return page, invalidParameter(at + length)
	case len(list)-at-size < len(page.data):
		return page, illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
	}
	now, may := u.modeData(&page, modeCurrent), u.modeData(&page, modeChangeable)
	for i, b := range list[at+size : at+size+len(page.data)] {
		if fault := (b ^ now[i]) &^ may[i]; fault != 0 {
			return page, invalidParameterBits(at+size+i, fault)
		}
	}
	return page, sense{}
}

// changeModes changes fields, here and at the other site, and tells the other nexuses.
// When it turns the cache off, what is in there is made durable, too.
func (v *view) changeModes(c *sam.Command, list []byte, at int) sense {
	u := v.unit
	changed, s := u.changeFields(list, at)
	if s.failed() || changed == 0 {
		return s
	}
	v.port.target.tellOthers(v, attentionModesChanged)
	if changed&(1<<settingCache) != 0 && u.writeThrough.Load() {
		s = u.sync(c)
	}
	if there := u.tellSettings(c); !s.failed() {
		s = there
	}
	return s
}

// changeFields changes the fields that a list changes, and returns them as bits.
func (u *unit) changeFields(list []byte, at int) (changed uint, s sense) {
	u.settings.Lock()
	defer u.settings.Unlock()
	wanted, s := u.wantedModes(list, at)
	if s.failed() {
		return 0, s
	}
	for i, on := range wanted {
		if u.changeLocked(i, on) {
			changed |= 1 << i
		}
	}
	return changed, s
}

// tellOthers establishes a unit attention for all nexuses but the view's own.
func (t *Device) tellOthers(v *view, which uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.ports {
		if p != v.port {
			p.establishOn(v.unit, which)
		}
	}
}
