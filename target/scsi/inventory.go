package scsi

import (
	"fmt"
	"maps"
	"slices"
)

// AddLUN puts a logical unit into the device, under a number from 0 to 16383, which
// is its LUN where nothing else is said (Show, SetMap).
func (t *Device) AddLUN(number uint16, l LUN) error {
	u, err := newUnit(t, number, l)
	if err != nil {
		return fmt.Errorf("add LUN %d: %w", number, err)
	}
	t.adding.Lock()
	defer t.adding.Unlock()
	if t.has(number) {
		return fmt.Errorf("add LUN %d: the number is taken; remove that LUN first", number)
	}
	u.watchReservations()
	if u.sanitizer != nil {
		u.sanitizer.Attach(sanitized{u})
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.luns[number] = u
	t.inventoryLocked()
	return nil
}

func (t *Device) has(number uint16) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.luns[number] != nil
}

// RemoveLUN takes a logical unit out. Commands on it that were prepared but not
// yet executed end with LOGICAL UNIT NOT SUPPORTED; those under way go on.
func (t *Device) RemoveLUN(number uint16) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.luns[number] == nil {
		return fmt.Errorf("remove LUN %d: there is no such LUN", number)
	}
	delete(t.luns, number)
	t.inventoryLocked()
	return nil
}

// Map says which logical units an initiator sees: its LUN, and the number that the
// logical unit has in the device. What is not there does no harm; it may come.
type Map map[uint16]uint16

// check tells what is wrong with a map.
func (m Map) check() error {
	as := make(map[uint16]uint16, len(m))
	for lun, number := range m {
		if other, twice := as[number]; twice {
			return fmt.Errorf("LUN %d would be LUN %d and LUN %d", number, min(lun, other), max(lun, other))
		}
		if as[number] = lun; lun > maxLUN {
			return fmt.Errorf("LUN %d: numbers go up to %d", lun, maxLUN)
		}
	}
	return nil
}

// Show says which logical units the target shows, and as which LUN to initiators without
// a map of their own; nil: all, under their numbers. It counts at once, as SetMap does.
func (t *Target) Show(m Map) error {
	if err := m.check(); err != nil {
		return fmt.Errorf("show the LUNs of target %s: %w", t.name, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.shown = maps.Clone(m)
	t.inventoryLocked()
	return nil
}

// SetMap gives initiators (see Target) a map of their own; an empty one shows them
// nothing, and none shows what the target does not. It counts at once, also for sessions
// that are open; what an initiator keeps under the same LUN is not disturbed.
func (t *Target) SetMap(initiator string, m Map) error {
	if err := m.check(); err != nil {
		return fmt.Errorf("map LUNs of target %s for %s: %w", t.name, initiator, err)
	}
	if m = maps.Clone(m); m == nil {
		m = Map{}
	}
	t.setMap(initiator, m)
	return nil
}

// ClearMap takes a map away. Who has none sees all that the target shows, or nothing if
// it is masked.
func (t *Target) ClearMap(initiator string) { t.setMap(initiator, nil) }

func (t *Target) setMap(initiator string, m Map) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.maps[initiator] = m; m == nil {
		delete(t.maps, initiator)
	}
	t.inventoryLocked()
}

// closest finds what was set for the initiators that a name fits most closely.
func closest[T any](all map[string]T, name string) (found T, ok bool) {
	if found, ok = all[name]; ok {
		return found, true
	}
	for n := len(name); n >= 0; n-- {
		if found, ok = all[name[:n]+"*"]; ok {
			return found, true
		}
	}
	return found, false
}

// visibleLocked is what an initiator sees, by its LUNs.
func (t *Target) visibleLocked(initiator string) map[uint16]*unit {
	m, own := closest(t.maps, initiator)
	switch {
	case t.closed, !own && t.masked:
		return nil
	case !own && t.shown == nil:
		return t.luns
	case !own:
		m = t.shown
	}
	visible := make(map[uint16]*unit, len(m))
	for lun, number := range m {
		if u := t.luns[number]; u != nil && t.showsLocked(number) {
			visible[lun] = u
		}
	}
	return visible
}

// inventoryLocked shows all ports what there is now.
func (t *Device) inventoryLocked() {
	for _, p := range t.ports {
		p.showLocked(p.target.visibleLocked(p.key.from.Name))
	}
}

// showLocked replaces a port's views if it sees other logical units now, and says so
// on all of them. Those that it has seen already stay as they are.
func (p *port) showLocked(visible map[uint16]*unit) {
	old := *p.views.Load()
	views, changed := make(map[uint16]*view, len(visible)), len(visible) != len(old)
	for lun, u := range visible {
		v := old[lun]
		if v == nil || v.unit != u {
			v, changed = p.newView(u, attentionPowerOn), true
		}
		views[lun] = v
	}
	if !changed {
		return
	}
	p.releaseUnseen(old, views)
	p.views.Store(&views)
	p.establish(attentionLUNsChanged)
}

// releaseUnseen ends RESERVEs of units that the port does not see any more, and lets
// their media go: it could not do so itself.
func (p *port) releaseUnseen(old, views map[uint16]*view) {
	for lun, v := range old {
		if views[lun] != v {
			v.unit.releaseOldOf(p)
			v.unit.allowRemoval(p)
		}
	}
}

// luns are the LUNs that the port sees, ascending.
func (p *port) luns() []uint16 { return slices.Sorted(maps.Keys(*p.views.Load())) }

// Resized tells hosts that a logical unit's Disk has another size now.
func (t *Device) Resized(number uint16) error {
	return t.tell(number, attentionCapacityChanged)
}

// InquiryChanged tells hosts that INQUIRY returns something else now.
func (t *Device) InquiryChanged(number uint16) error {
	return t.tell(number, attentionInquiryChanged)
}

// tell establishes a unit attention for all nexuses that see a unit.
func (t *Device) tell(number uint16, which uint32) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.luns[number]
	if u == nil {
		return fmt.Errorf("tell hosts of LUN %d: there is no such LUN", number)
	}
	for _, p := range t.ports {
		p.establishOn(u, which)
	}
	return nil
}
