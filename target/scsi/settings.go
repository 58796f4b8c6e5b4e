package scsi

import (
	"context"
	"encoding/binary"

	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/twinlun/twinlun/target/sam"
)

// Settings are what hosts change of a unit, for all hosts at both sites: the mode fields
// that can be changed, in their order, and whether the medium is ejected.
//
// Each has a version: how often it was changed from its default value, to the other one
// of two and back. So a version has one value, and sites that have told each other their
// versions, in whatever order, go on with the higher one: with the same settings.
const (
	settingCache = iota
	settingTAS
	settingProtected
	settingEjected
	settingCount

	// settingSize is a setting as it is told: version u64, big endian; value, 0 or 1.
	settingSize = 9
)

func (u *unit) setting(i int) bool {
	if i == settingEjected {
		return !u.present()
	}
	return modeFields()[i].get(u)
}

func (u *unit) putSetting(i int, on bool) {
	if i == settingEjected {
		u.restrict(func(g *guard) { g.ejected = on && u.removable })
		return
	}
	modeFields()[i].set(u, on)
}

// changeLocked changes a setting, if that is a change.
func (u *unit) changeLocked(i int, on bool) bool {
	if u.setting(i) == on {
		return false
	}
	u.putSetting(i, on)
	u.version[i]++
	return true
}

func (u *unit) change(i int, on bool) bool {
	u.settings.Lock()
	defer u.settings.Unlock()
	return u.changeLocked(i, on)
}

func (u *unit) versions() [settingCount]uint64 {
	u.settings.Lock()
	defer u.settings.Unlock()
	return u.version
}

// encode appends all settings.
func (u *unit) encode(p []byte) []byte {
	u.settings.Lock()
	defer u.settings.Unlock()
	for i, version := range u.version {
		p = binary.BigEndian.AppendUint64(p, version)
		p = append(p, flag(u.setting(i)))
	}
	return p
}

// tellSettings tells the twin the settings that a command has changed. It fails if what
// a cache held there could not be made durable.
func (u *unit) tellSettings(c *sam.Command) sense {
	if m := u.tellTwin(0); m.wait(c.Ctx) && m.volatile {
		return sense{key: gotgt.MEDIUM_ERROR, code: gotgt.ASC_WRITE_ERROR}
	}
	return sense{}
}

// follow takes settings of the twin that are newer, tells all hosts here, and makes
// durable what a cache held that is off now, or is gone with the medium. False: that
// failed; to be slow is no failure, as a flush goes on by itself. A later version of the Device may tell of more settings, which mean nothing
// here.
func (u *unit) follow(ctx context.Context, told []byte) (durable bool) {
	flush, which := u.merge(told)
	u.establish(which)
	if !flush {
		return true
	}
	err := u.disk.Sync(ctx)
	if err != nil {
		u.target.log.Error("what the write cache of a LUN held is not durable yet", "lun", u.number, "err", err)
	}
	return err == nil || ctx.Err() != nil
}

// merge takes what is newer. It returns whether a cache is to be flushed, and what hosts
// are to be told.
func (u *unit) merge(told []byte) (flush bool, which uint32) {
	u.settings.Lock()
	defer u.settings.Unlock()
	for i := 0; i < settingCount && len(told) >= settingSize; i++ {
		version, on := binary.BigEndian.Uint64(told), told[settingSize-1] != 0
		told = told[settingSize:]
		if version <= u.version[i] {
			continue
		}
		if u.version[i] = version; on == u.setting(i) {
			continue
		}
		u.putSetting(i, on)
		which |= settingAttention(i, on)
		flush = flush || i == settingCache && !on || i == settingEjected && on
	}
	return flush, which
}

// settingAttention is what hosts are told that did not make the change.
func settingAttention(i int, on bool) uint32 {
	switch {
	case i != settingEjected:
		return attentionModesChanged
	case !on:
		return attentionMediumChanged
	}
	return 0 // they find out
}
