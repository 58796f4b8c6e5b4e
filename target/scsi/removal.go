package scsi

import (
	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/twinlun/twinlun/target/sam"
)

// Fields of byte 4 of START STOP UNIT (SBC-3 5.25), and of PREVENT ALLOW MEDIUM
// REMOVAL (SPC-4 6.18).
const (
	bitStart       = 0x01
	bitLoadEject   = 0x02
	bitNoFlush     = 0x04
	bitsCondition  = 0xf0
	bitPrevent     = 0x01
	bitImmediate   = 0x01 // byte 1
	bitsModifier   = 0x0f // byte 3
	bitsPrevention = 0x03
)

// removalOperations are about starting and stopping, and about a medium that can be
// taken out, if it can.
func removalOperations() []operation {
	return []operation{
		{code: api.START_STOP, action: noAction, access: accessStart, bare: true,
			usage:   []byte{0, bitImmediate, 0, bitsModifier, bitStart | bitLoadEject | bitNoFlush | bitsCondition, 0},
			prepare: nothing, execute: startStop},
		{code: api.ALLOW_MEDIUM_REMOVAL, action: noAction, access: accessRemoval, bare: true,
			usage:   []byte{0, 0, 0, 0, bitsPrevention, 0},
			prepare: nothing, execute: preventAllow},
	}
}

// startStop is START STOP UNIT. A logical unit serves other hosts, too, and none of
// them can stop it: what a host gets from STOP is that all it has written is durable.
// There are no power conditions to change between; a wish for one is heard, and the
// unit stays active, which is always allowed (SPC-4 5.12).
func startStop(v *view, c *sam.Command) sense {
	switch flags := c.CDB[4]; {
	case flags&bitsCondition != 0:
		return sense{}
	case flags&bitLoadEject != 0:
		return v.loadEject(c, flags&bitStart != 0)
	case flags&(bitStart|bitNoFlush) == 0 && v.unit.present():
		return v.unit.sync(c)
	}
	return sense{}
}

// loadEject puts the medium in, or takes it out: for all hosts. What was in the cache
// is made durable then, and if that fails the medium is in again.
func (v *view) loadEject(c *sam.Command, load bool) sense {
	u := v.unit
	if !u.removable {
		if load {
			return sense{} // it is in
		}
		return invalidBits(4, bitLoadEject)
	}
	switch moved, s := u.moveMedium(c, load); {
	case !moved:
		return s
	case load:
		v.port.target.tellOthers(v, attentionMediumChanged)
		return u.tellSettings(c)
	}
	s := u.sync(c)
	if !s.failed() {
		s = u.tellSettings(c)
	}
	if s.failed() {
		u.change(settingEjected, false)
		u.tellTwin(0).wait(c.Ctx)
	}
	return s
}

// moveMedium puts the medium where it is wanted, unless it is there or somebody
// prevents it, at either site.
func (u *unit) moveMedium(c *sam.Command, load bool) (moved bool, s sense) {
	ctx, stop := c.Lasting()
	defer stop()
	if u.preventedThere(ctx) {
		return false, illegal(gotgt.ASC_MEDIUM_REMOVAL_PREVENTED)
	}
	u.settings.Lock()
	defer u.settings.Unlock()
	if len(u.prevents) > 0 {
		return false, illegal(gotgt.ASC_MEDIUM_REMOVAL_PREVENTED)
	}
	return u.changeLocked(settingEjected, !load), sense{}
}

// present tells whether the medium is in.
func (u *unit) present() bool {
	g := u.guard.Load()
	return g == nil || !g.ejected
}

// preventAllow is PREVENT ALLOW MEDIUM REMOVAL: the medium stays while any nexus wants
// it to.
func preventAllow(v *view, c *sam.Command) sense {
	u := v.unit
	u.settings.Lock()
	defer u.settings.Unlock()
	if c.CDB[4]&bitPrevent == 0 {
		delete(u.prevents, v.port)
		return sense{}
	}
	if u.prevents == nil {
		u.prevents = make(map[*port]bool)
	}
	u.prevents[v.port] = true
	return sense{}
}

// allowRemoval takes back what a port that is gone has prevented; nil: what all have.
func (u *unit) allowRemoval(p *port) {
	u.settings.Lock()
	defer u.settings.Unlock()
	if p == nil {
		clear(u.prevents)
	} else {
		delete(u.prevents, p)
	}
}

// prevented tells whether a host of this site wants the medium to stay.
func (u *unit) prevented() bool {
	u.settings.Lock()
	defer u.settings.Unlock()
	return len(u.prevents) > 0
}
