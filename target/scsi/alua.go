package scsi

import (
	"encoding/binary"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/twinlun/twinlun/target/sam"
)

// AccessState is the asymmetric access state of a target port group (SPC-4
// 5.15.2.4).
type AccessState byte

// The states. Of an active group hosts are told whether it is the optimized one for
// them (SetPreference, LUN.PreferredGroup).
const (
	ActiveOptimized    AccessState = 0x0
	activeNonOptimized AccessState = 0x1
	Standby            AccessState = 0x2
	Unavailable        AccessState = 0x3
	Transitioning      AccessState = 0xf
)

// path says in which states of its target port group an operation runs (SPC-4
// 5.15.2.4, 5.15.2.5).
type path byte

const (
	pathActive  path = iota // active ones only
	pathStandby             // in standby, too
	pathAny                 // in all
)

// notActive is the answer to an operation that does not run in a state.
func (s AccessState) notActive(op *operation) sense {
	switch {
	case s == ActiveOptimized, op.path == pathAny, s == Standby && op.path == pathStandby:
		return sense{}
	case s == Standby:
		return sense{key: gotgt.NOT_READY, code: codeStandby}
	case s == Unavailable:
		return sense{key: gotgt.NOT_READY, code: codeUnavailable}
	}
	return sense{key: gotgt.NOT_READY, code: codeTransition}
}

// SetAccessState says in which state a target port group is for a logical unit:
// active (ActiveOptimized), Standby, Unavailable or Transitioning. All are active at
// first. Hosts are told that states have changed.
func (t *Device) SetAccessState(number, group uint16, s AccessState) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.luns[number]
	switch {
	case u == nil:
		return fmt.Errorf("set the access state of LUN %d: there is no such LUN", number)
	case s != ActiveOptimized && s != Standby && s != Unavailable && s != Transitioning:
		return fmt.Errorf("set the access state of LUN %d: %d is none that can be set", number, s)
	}
	u.restrict(func(g *guard) {
		g.states = maps.Clone(g.states)
		if g.states == nil {
			g.states = make(map[uint16]AccessState)
		}
		if g.states[group] = s; s == ActiveOptimized {
			delete(g.states, group)
		}
	})
	u.moved.Store(group, true)
	for _, p := range t.ports {
		p.establishOn(u, attentionAccessChanged)
	}
	return nil
}

// SetPreference assigns initiators (see Target) to a target port group: that one is
// active/optimized for them, and preferred, and the others are not optimized, whatever
// the logical units prefer. 0 takes that back.
func (t *Target) SetPreference(initiator string, group uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := make(map[*port]uint16)
	for key, p := range t.ports {
		if key.target == t {
			before[p], _ = closest(t.preferred, key.from.Name)
		}
	}
	if t.preferred[initiator] = group; group == 0 {
		delete(t.preferred, initiator)
	}
	for p, group := range before {
		if after, _ := closest(t.preferred, p.key.from.Name); after != group {
			p.establish(attentionAccessChanged)
		}
	}
}

// Prefer says which target port group is active/optimized for hosts that are not assigned
// to one (see LUN.PreferredGroup).
func (t *Device) Prefer(number, group uint16) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.luns[number]
	if u == nil {
		return fmt.Errorf("set the preference of LUN %d: there is no such LUN", number)
	}
	if u.preferred.Swap(uint32(group)) == uint32(group) {
		return nil
	}
	for _, p := range t.ports {
		p.establishOn(u, attentionAccessChanged)
	}
	return nil
}

// preference is the group that an initiator port prefers for a unit; 0: none.
func (v *view) preference() uint16 {
	t := v.port.target
	t.mu.Lock()
	defer t.mu.Unlock()
	if group, assigned := closest(t.preferred, v.port.key.from.Name); assigned {
		return group
	}
	return uint16(v.unit.preferred.Load())
}

// accessStates are the states of a unit's target port groups that are not active.
func (u *unit) accessStates() map[uint16]AccessState {
	if g := u.guard.Load(); g != nil {
		return g.states
	}
	return nil
}

// SetGroups replaces the device's target port groups: a site has come or gone. A portal
// group tag stays in its group. Hosts are told that states have changed.
func (t *Device) SetGroups(groups []PortGroup) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if reflect.DeepEqual(groups, *t.groups.Load()) {
		return
	}
	t.groups.Store(&groups)
	for _, p := range t.ports {
		p.establish(attentionAccessChanged)
	}
}

// Place says at which of the device's target port groups a logical unit is; none: at all
// of them. Hosts are told that states have changed.
func (t *Device) Place(number uint16, groups []uint16) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.luns[number]
	if u == nil {
		return fmt.Errorf("place LUN %d: there is no such LUN", number)
	}
	if old := u.places.Load(); old != nil && slices.Equal(*old, groups) {
		return nil
	}
	u.places.Store(&groups)
	for _, p := range t.ports {
		p.establishOn(u, attentionAccessChanged)
	}
	return nil
}

// at tells whether a unit is at a group; nil is at all of them.
func (u *unit) at(group uint16) bool {
	if u == nil {
		return true
	}
	places := u.places.Load()
	return places == nil || len(*places) == 0 || slices.Contains(*places, group)
}

// groupsOf are the target port groups by which a port's hosts reach a unit: its own at
// least.
func (t *Device) groupsOf(u *unit, p *port) (all []PortGroup) {
	own := false
	for _, g := range *t.groups.Load() {
		mine := slices.Contains(g.Ports, p.key.group)
		if own = own || mine; mine || u.at(g.ID) {
			all = append(all, g)
		}
	}
	if !own {
		all = slices.Insert(all, 0, PortGroup{ID: p.key.group, Ports: []uint16{p.key.group}})
	}
	return all
}

// groupOf is the target port group of a portal group.
func (t *Device) groupOf(tag uint16) uint16 {
	for _, g := range *t.groups.Load() {
		if slices.Contains(g.Ports, tag) {
			return g.ID
		}
	}
	return tag
}

// Service action of REPORT TARGET PORT GROUPS, and its formats (SPC-4 6.37).
const (
	reportGroups = 0x0a

	formatLengthOnly = 0
	formatExtended   = 1
)

func groupOperations() []operation {
	return []operation{
		answers(operation{code: api.MAINT_PROTOCOL_IN, action: reportGroups, during: duringAll, access: accessAlways, path: pathAny, bare: true,
			usage: []byte{0, 0xe0 | reportGroups, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0}}, field(6, 4), groupsData),
	}
}

// groupsData is REPORT TARGET PORT GROUPS (SPC-4 6.37). After four bytes of length,
// and in the extended format four more (the format; an implicit transition time that
// is not told), a descriptor for each group:
//
//	offset size
//	     0    1  PREF, access state
//	     1    1  states that there are: transitioning, unavailable, standby, both active
//	     2    2  target port group
//	     5    1  status: 2, the last change was implicit; 0, there was none
//	     7    1  number of target ports
//	     8    …  target ports: 2 bytes reserved, relative target port identifier u16
func groupsData(v *view, c *sam.Command) ([]byte, sense) {
	var p []byte
	switch format := c.CDB[1] >> 5; format {
	case formatLengthOnly:
		p = make([]byte, 4)
	case formatExtended:
		p = []byte{0, 0, 0, 0, formatExtended << 4, 0, 0, 0}
	default:
		return nil, invalidBits(1, 0xe0)
	}
	preferred, states := v.preference(), v.unit.accessStates()
	for _, g := range v.port.target.groupsOf(v.unit, v.port) {
		ports := v.unit.portsIn(g)
		p = append(p, byte(v.stateOf(g.ID, preferred, states)), 0x8f, byte(g.ID>>8), byte(g.ID), 0, 0, 0, byte(len(ports)))
		d := p[len(p)-8:]
		if g.ID == preferred {
			d[0] |= 0x80
		}
		if _, moved := v.unit.moved.Load(g.ID); moved {
			d[5] = 2
		}
		for _, relative := range ports {
			p = append(p, 0, 0, byte(relative>>8), byte(relative))
		}
	}
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	return p, sense{}
}

func (v *view) stateOf(group, preferred uint16, states map[uint16]AccessState) AccessState {
	if s, ok := states[group]; ok {
		return s
	}
	if preferred != 0 && preferred != group {
		return activeNonOptimized
	}
	return ActiveOptimized
}
