package scsi

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/twinlun/twinlun/target/sam"
)

// Twin reaches the Device at the other site that shows the same logical unit: hosts
// see one unit, whose state must be one, too.
type Twin interface {
	// Tell has Heard of that Device called, and returns its answer. With an error it
	// may have been called or not. It does not outlast the context by much.
	Tell(ctx context.Context, topic uint16, body []byte) (answer []byte, err error)
}

// What twins tell each other. Numbers are never used again for something else.
const (
	// topicTask: a task management function was carried out on the unit. Body: the
	// function, 1 byte. The answer is empty, and comes when the commands have ended.
	topicTask uint16 = 1
	// topicSettings: the unit's settings. Body:
	//
	//	0  4  version, big endian
	//	4  1  settings, see below
	topicSettings uint16 = 2
)

// bitEjected is a setting beside the changeable mode fields, which have the bits from 0.
const bitEjected = 1 << 7

// twinLimit bounds how long a host waits for what the other site does: longer than
// commands take to end there, and shorter than initiators wait for a reset.
const twinLimit = 5 * time.Second

// maxTwins is how many units are told of a target reset at a time.
const maxTwins = 32

// Heard is called with what the twin of a logical unit tells, and returns the answer.
// False: the topic is not known here. It may block for twinLimit, and no longer than ctx.
func (t *Device) Heard(ctx context.Context, number uint16, topic uint16, body []byte) (answer []byte, understood bool) {
	t.mu.Lock()
	u := t.luns[number]
	t.mu.Unlock()
	switch {
	case u == nil:
		return nil, true // it comes, or goes
	case topic == topicTask && len(body) == 1:
		u.heardTask(ctx, sam.TaskFunction(body[0]))
	case topic == topicSettings && len(body) == 5:
		u.heardSettings(ctx, settings{binary.BigEndian.Uint32(body), body[4]})
	default:
		return nil, false
	}
	return nil, true
}

// Joined says that a unit's twin can be told again what it may have missed.
func (t *Device) Joined(_ context.Context, number uint16) {
	t.mu.Lock()
	u := t.luns[number]
	t.mu.Unlock()
	if u != nil {
		u.tellSettings()
	}
}

// tell tells the twin, if there is one. That it does not hear is for the log: the link
// is down then, and hosts at the other site are not served until the sites have joined.
func (u *unit) tell(topic uint16, body []byte) {
	if u.twin == nil {
		return
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), twinLimit, errTwinSlow)
	defer cancel()
	if _, err := u.twin.Tell(ctx, topic, body); err != nil {
		u.target.log.Warn("the other site is not told what happened to a LUN", "lun", u.number, "err", err)
	}
}

var errTwinSlow = errors.New("the other site took too long to answer")

// tellTask tells the twins of units of a task management function.
func tellTask(units []*unit, f sam.TaskFunction) {
	room := make(chan struct{}, maxTwins)
	var telling sync.WaitGroup
	for _, u := range units {
		room <- struct{}{}
		telling.Go(func() {
			u.tell(topicTask, []byte{byte(f)})
			<-room
		})
	}
	telling.Wait()
}

// heardTask does here what a function did at the other site: there is one logical unit
// with one task set.
func (u *unit) heardTask(ctx context.Context, f sam.TaskFunction) {
	which := attentionLUNReset
	switch f {
	case sam.ClearTaskSet, sam.LogicalUnitReset:
	case sam.TargetWarmReset:
		which = attentionHardReset
	case sam.TargetColdReset:
		which = attentionPowerOn
	default:
		return
	}
	silent := u.abortAll(ctx)
	if f == sam.ClearTaskSet {
		for _, n := range silent {
			n.port.establishOn(u, attentionCleared)
		}
		return
	}
	u.reset()
	u.target.mu.Lock()
	defer u.target.mu.Unlock()
	for _, p := range u.target.ports {
		p.establishOn(u, which)
	}
}

// abortAll ends all commands on the unit, and waits for them. It returns the nexuses
// some of whose commands got no answer.
func (u *unit) abortAll(ctx context.Context) (silent []*nexus) {
	ctx, cancel := context.WithTimeoutCause(ctx, twinLimit, errTwinSlow)
	defer cancel()
	for _, n := range u.target.nexuses() {
		if n.abort(u, &sam.Command{Ctx: ctx}) > 0 {
			silent = append(silent, n)
		}
	}
	return silent
}

// nexuses are those that are open.
func (t *Device) nexuses() (open []*nexus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.ports {
		open = append(open, p.open...)
	}
	return open
}

// settings are what hosts change of a unit, for all hosts at both sites: mode fields,
// and whether the medium is ejected. With every change comes a higher version; after
// two changes at once, each at a site, the higher value counts.
type settings struct {
	version uint32
	bits    byte
}

// newer tells whether s replaces t.
func (s settings) newer(t settings) bool {
	return s.version > t.version || s.version == t.version && s.bits > t.bits
}

// settingsLocked are the present ones.
func (u *unit) settingsLocked() settings {
	s := settings{version: u.version}
	for i, f := range modeFields() {
		if f.get(u) {
			s.bits |= 1 << i
		}
	}
	if !u.present() {
		s.bits |= bitEjected
	}
	return s
}

// tellSettings tells the twin the present settings.
func (u *unit) tellSettings() {
	u.modes.Lock()
	s := u.settingsLocked()
	u.modes.Unlock()
	if s.version > 0 {
		u.tell(topicSettings, append(binary.BigEndian.AppendUint32(nil, s.version), s.bits))
	}
}

// heardSettings takes settings of the twin, if they are newer, and tells hosts here.
// What a cache held that is now turned off is made durable.
func (u *unit) heardSettings(ctx context.Context, s settings) {
	u.modes.Lock()
	defer u.modes.Unlock()
	now := u.settingsLocked()
	if !s.newer(now) {
		return
	}
	u.version = s.version
	cached := !u.writeThrough.Load()
	for i, f := range modeFields() {
		f.set(u, s.bits&(1<<i) != 0)
	}
	ejected := u.removable && s.bits&bitEjected != 0
	u.restrict(func(g *guard) { g.ejected = ejected })
	u.told(now.bits ^ u.settingsLocked().bits)
	if cached && u.writeThrough.Load() || ejected {
		if err := u.disk.Sync(ctx); err != nil {
			u.target.log.Error("what the write cache of a LUN held is not durable", "lun", u.number, "err", err)
		}
	}
}

// told tells all hosts here which settings have changed.
func (u *unit) told(changed byte) {
	which := uint32(0)
	if changed&^bitEjected != 0 {
		which |= attentionModesChanged
	}
	if changed&bitEjected != 0 && u.present() {
		which |= attentionMediumChanged
	}
	u.target.mu.Lock()
	defer u.target.mu.Unlock()
	for _, p := range u.target.ports {
		p.establishOn(u, which)
	}
}
