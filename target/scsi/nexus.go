package scsi

import (
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"

	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/twinlun/twinlun/target/reservation"
	"github.com/twinlun/twinlun/target/sam"
)

// port is what the target knows of one I_T nexus. It outlives the nexus, so that
// an initiator port that comes back finds its unit attentions.
type port struct {
	target *Target
	key    portKey
	name   reservation.Nexus
	group  uint16 // target port group
	absent *view  // stands for every logical unit that does not exist

	// views is replaced as a whole under Device.mu; commands read it without a lock.
	views atomic.Pointer[map[uint16]*view]

	// Under Device.mu.
	open   []*nexus // now
	opened uint64   // Device.clock when last opened
}

// view is one logical unit as one I_T nexus sees it.
type view struct {
	port *port
	unit *unit // nil: does not exist
	attentions
	copies copies
}

func (p *port) newView(u *unit, pending uint32) *view {
	v := &view{port: p, unit: u}
	v.establish(pending)
	return v
}

// establish is that of attentions. What a reset or the loss of the nexus is told by takes
// with it what came of copies.
func (v *view) establish(which uint32) {
	v.attentions.establish(which)
	if which&attentionResets != 0 {
		v.copies.discard()
	}
}

func (p *port) establish(which uint32) {
	for _, v := range *p.views.Load() {
		v.establish(which)
	}
}

// establishOn is establish for one logical unit, if the port sees it.
func (p *port) establishOn(u *unit, which uint32) {
	for _, v := range *p.views.Load() {
		if v.unit == u {
			v.establish(which)
		}
	}
}

// sees tells whether a view is one of those that the port has now.
func (p *port) sees(v *view) bool {
	for _, w := range *p.views.Load() {
		if w == v {
			return true
		}
	}
	return false
}

// view finds a logical unit; never nil.
func (p *port) view(lun [8]byte) *view {
	if number, ok := lunNumber(lun); ok {
		if v := (*p.views.Load())[number]; v != nil {
			return v
		}
	}
	return p.absent
}

// lunNumber reads a single level LUN in peripheral device or flat space
// addressing (SAM-5 4.7.6, 4.7.7).
func lunNumber(lun [8]byte) (uint16, bool) {
	first := binary.BigEndian.Uint16(lun[:])
	if [6]byte(lun[2:]) != [6]byte{} {
		return 0, false
	}
	switch first >> 14 {
	case 0:
		return first, first <= 0xff // the bus identifier must be 0
	case 1:
		return first & maxLUN, true
	}
	return 0, false
}

// appendLUN appends a LUN in the form that lunNumber reads.
func appendLUN(p []byte, number uint16) []byte {
	if number > 0xff {
		number |= 1 << 14
	}
	p = binary.BigEndian.AppendUint16(p, number)
	return append(p, 0, 0, 0, 0, 0, 0)
}

// nexus is an open I_T nexus. It implements sam.Nexus.
type nexus struct {
	port  *port
	close sync.Once

	// tasks are the transport's; nil: it has none to give, or has just logged in and has
	// no commands. Others may end those from the moment that the nexus is there.
	tasks atomic.Pointer[sam.Tasks]
}

// UseTasks implements sam.TaskUser.
func (n *nexus) UseTasks(t sam.Tasks) { n.tasks.Store(&t) }

// TAS implements sam.TaskUser.
func (n *nexus) TAS(lun [8]byte) bool {
	u := n.port.view(lun).unit
	return u != nil && u.answersAborted.Load()
}

// abort ends the nexus's commands on a unit, but not the one on whose behalf, and
// returns how many got no answer; with tas all are answered.
func (n *nexus) abort(u *unit, by *sam.Command, tas bool) (silent int) {
	tasks := n.tasks.Load()
	if tasks == nil {
		return 0
	}
	for number, v := range *n.port.views.Load() {
		if v.unit == u {
			silent += (*tasks).Abort([8]byte(appendLUN(nil, number)), by, tas)
		}
	}
	return silent
}

// Prepare implements sam.Nexus.
func (n *nexus) Prepare(c *sam.Command) bool {
	c.Status, c.Sense = sam.Good, c.Sense[:0]
	c.WantIn, c.WantOut, c.InLen, c.Needed, c.Unit = 0, 0, 0, 0, nil
	s := n.port.prepare(c)
	if !s.failed() {
		return true
	}
	s.finish(c)
	c.WantIn, c.WantOut = 0, 0
	return false
}

func (p *port) prepare(c *sam.Command) sense {
	v := p.view(c.LUN)
	op, unknown := p.target.ops.find(c.CDB)
	if v.unit == nil && (op == nil || !op.worksWithout(c.LUN)) {
		return illegal(gotgt.ASC_LUN_NOT_SUPPORTED)
	}
	if v.lacks(c.CDB) {
		op, unknown = nil, illegal(gotgt.ASC_INVALID_OP_CODE)
	}
	if op == nil || !op.quiet {
		if s := v.take(); s.failed() {
			return s
		}
	}
	if op == nil {
		return unknown
	}
	if s := op.check(c.CDB); s.failed() {
		return s
	}
	if s := v.admit(op, c.CDB); s.failed() {
		return s
	}
	c.Unit = v
	return op.prepare(v, c)
}

// Execute implements sam.Nexus.
func (n *nexus) Execute(c *sam.Command) {
	n.port.execute(c).finish(c)
}

// execute carries a command out on the logical unit that it was prepared for,
// unless that was removed since: its number may name another one now, and a
// write meant for one disk must not reach the other.
func (p *port) execute(c *sam.Command) sense {
	v, prepared := c.Unit.(*view)
	c.Unit = nil
	op, _ := p.target.ops.find(c.CDB)
	if !prepared || op == nil {
		panic("scsi: a command is executed that Prepare did not let through")
	}
	if v.unit != nil && p.view(c.LUN) != v {
		return illegal(gotgt.ASC_LUN_NOT_SUPPORTED)
	}
	if s := v.admit(op, c.CDB); s.failed() {
		return s
	}
	return op.execute(v, c)
}

// HasLUN implements sam.Nexus.
func (n *nexus) HasLUN(lun [8]byte) bool { return n.port.view(lun).unit != nil }

// Unit implements sam.Mapped.
func (n *nexus) Unit(lun [8]byte) any { return n.port.view(lun).unit }

// Units implements sam.Mapped.
func (n *nexus) Units() (all []any) {
	for _, u := range n.port.target.units() {
		all = append(all, u)
	}
	return all
}

// Cleared implements sam.Nexus.
func (n *nexus) Cleared(lun [8]byte) { n.port.view(lun).establish(attentionCleared) }

// Reset implements sam.Nexus. A reset is told to every I_T nexus, the one that asked for
// it included (SAM-5 6.3.2, 6.3.3): initiators expect that. The other site is told of
// all these functions, and has carried them out on return, unless it cannot be reached.
func (n *nexus) Reset(ctx context.Context, f sam.TaskFunction, lun [8]byte) bool {
	t, u := n.port.target, n.port.view(lun).unit
	if u == nil && (f == sam.ClearTaskSet || f == sam.LogicalUnitReset) {
		return false
	}
	switch f {
	case sam.ClearTaskSet:
		manage(ctx, toldClear, u)
	case sam.LogicalUnitReset:
		manage(ctx, toldReset, u)
	case sam.TargetWarmReset:
		manage(ctx, toldWarm, t.units()...)
	case sam.TargetColdReset:
		manage(ctx, toldCold, t.units()...)
	}
	return true
}

// manage does with units what a function that has ended their commands does beside that,
// and has the other site do all of it.
func manage(ctx context.Context, function byte, units ...*unit) {
	told := make([]*message, len(units))
	for i, u := range units {
		if function&toldResets != 0 {
			u.reset()
			u.establish(resetAttentions(function))
		}
		told[i] = u.tellTwin(function)
	}
	for _, m := range told {
		m.wait(ctx)
	}
}

// reset is what a unit forgets with a reset: RESERVE, who prevents that its medium is
// moved, and what MODE SELECT changed. Persistent reservations stay (SPC-4 5.13.1).
func (u *unit) reset() {
	u.release()
	u.settings.Lock()
	defer u.settings.Unlock()
	for i, f := range modeFields() {
		page, _, _ := u.modePage([]byte{f.page})
		u.changeLocked(i, page.data[f.at]&f.bit != 0)
	}
}

// release ends RESERVE, and lets the medium go.
func (u *unit) release() {
	u.restrict(func(g *guard) { g.reserved = nil })
	u.allowRemoval(nil)
}

// Close implements sam.Nexus. What RESERVE has reserved is released: the nexus is
// lost (SPC-2 5.5.1). So does what it has prevented.
func (n *nexus) Close() {
	n.close.Do(func() {
		t := n.port.target
		t.mu.Lock()
		defer t.mu.Unlock()
		n.port.open = slices.DeleteFunc(n.port.open, func(o *nexus) bool { return o == n })
		for _, u := range t.luns {
			u.releaseOldOf(n.port)
			u.allowRemoval(n.port)
		}
	})
}
