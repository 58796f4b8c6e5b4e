package scsi

import (
	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/twinlun/twinlun/target/reservation"
	"github.com/twinlun/twinlun/target/sam"
	"github.com/twinlun/twinlun/target/sanitize"
)

// access says what an operation may run under while another I_T nexus has reserved
// the logical unit (SPC-4 table 65, SBC-3 table 13; for RESERVE of old, SPC-2 table
// 11), and whether it is one that write protection is about.
type access byte

const (
	accessStores  access = iota // under none; stores to the medium
	accessChanges               // under none; changes something else
	accessReads                 // under those that let everybody read
	accessFree                  // under all persistent ones
	accessAlways                // under all
	accessRemoval               // PREVENT ALLOW MEDIUM REMOVAL: under all, if it allows
	accessStart                 // START STOP UNIT: under all, if it starts
)

// access of an operation with this CDB.
func (op *operation) accessOf(cdb []byte) access {
	harmless := false
	switch op.access {
	case accessRemoval:
		harmless = cdb[4]&bitsPrevention == 0
	case accessStart:
		harmless = cdb[4]&(bitStart|bitLoadEject|bitsCondition) == bitStart
	default:
		return op.access
	}
	if harmless {
		return accessAlways
	}
	return accessChanges
}

// guard is what keeps commands from a logical unit at present: a reservation, write
// protection, a target port group that is not active, a medium that is not there. A unit that is open to all has none, and finds that out with one
// atomic load.
type guard struct {
	persistent *reservation.State // with a reservation in it, or nil
	unknown    bool               // whether there is one
	reserved   *port              // who has reserved it with RESERVE, or nil
	protected  bool               // SWP
	readOnly   bool               // for good
	ejected    bool               // there is no medium
	sanitize   *sanitize.Status   // it is being sanitized, or could not be

	// states are those of target port groups that are not active. The map is replaced
	// as a whole, too.
	states map[uint16]AccessState
}

func (g *guard) open() bool {
	return g.persistent == nil && !g.unknown && g.reserved == nil && len(g.states) == 0 &&
		!g.protected && !g.readOnly && !g.ejected && g.sanitize == nil
}

// admit looks whether a command may run, and is asked twice: before its data comes,
// and when it is carried out. A reservation that was made in between counts.
func (v *view) admit(op *operation, cdb []byte) sense {
	if v.unit == nil {
		return sense{}
	}
	g := v.unit.guard.Load()
	if g == nil {
		return sense{}
	}
	if s := g.states[v.port.group].notActive(op); s.failed() {
		return s
	}
	if s := g.sanitizing(op); s.failed() {
		return s
	}
	if s := g.admit(v.port, op.accessOf(cdb)); s.failed() {
		return s
	}
	if g.ejected && !op.bare {
		return sense{key: gotgt.NOT_READY, code: gotgt.ASC_MEDIUM_NOT_PRESENT}
	}
	return sense{}
}

func (g *guard) admit(p *port, a access) sense {
	switch {
	case g.unknown && a < accessFree:
		return reservationsUnknown
	case g.reserved != nil && g.reserved != p && a < accessAlways:
		return conflict
	case g.persistent != nil && a < accessFree && !g.persistent.Allows(p.name, a == accessReads):
		return conflict
	case g.readOnly && a == accessStores:
		return sense{key: gotgt.DATA_PROTECT, code: gotgt.ASC_WRITE_PROTECT}
	case g.protected && a == accessStores:
		return sense{key: gotgt.DATA_PROTECT, code: codeSoftwareProtected}
	}
	return sense{}
}

// restrict changes what guards a unit.
func (u *unit) restrict(change func(*guard)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.restrictLocked(change)
}

func (u *unit) restrictLocked(change func(*guard)) {
	next := &guard{readOnly: u.readOnly}
	if g := u.guard.Load(); g != nil {
		*next = *g
	}
	change(next)
	if next.open() {
		next = nil
	}
	u.guard.Store(next)
}

// holderOfOld is who has reserved a unit with RESERVE.
func (u *unit) holderOfOld() *port {
	if g := u.guard.Load(); g != nil {
		return g.reserved
	}
	return nil
}

// oldOperations are RESERVE (6) and RELEASE (6) (SPC-2 7.17, 7.21), as far as SPC-4
// 5.13.3 leaves them. Extents, third parties and identifications are obsolete.
func oldOperations() []operation {
	return []operation{
		{code: api.RESERVE, action: noAction, access: accessFree, bare: true, usage: make([]byte, 6),
			prepare: nothing, execute: reserveOld},
		{code: api.RELEASE, action: noAction, access: accessAlways, bare: true, usage: make([]byte, 6),
			prepare: nothing, execute: releaseOld},
	}
}

// reserveOld is RESERVE (6). Once initiators are registered, the unit is theirs.
func reserveOld(v *view, _ *sam.Command) sense {
	u := v.unit
	u.mu.Lock()
	defer u.mu.Unlock()
	switch state, holder := u.reservations.Load(), u.holderOfOld(); {
	case state == nil:
		return reservationsUnknown
	case state.Admits(v.port.name):
		return sense{}
	case state.Registered(), holder != nil && holder != v.port:
		return conflict
	}
	u.restrictLocked(func(g *guard) { g.reserved = v.port })
	return sense{}
}

// releaseOld is RELEASE (6). From who has not reserved it does nothing.
func releaseOld(v *view, _ *sam.Command) sense {
	if state := v.unit.reservations.Load(); state.Registered() && !state.Admits(v.port.name) {
		return conflict
	}
	v.unit.releaseOldOf(v.port)
	return sense{}
}

// releaseOldOf ends a port's RESERVE.
func (u *unit) releaseOldOf(p *port) {
	if u.holderOfOld() != p {
		return
	}
	u.restrict(func(g *guard) {
		if g.reserved == p {
			g.reserved = nil
		}
	})
}
