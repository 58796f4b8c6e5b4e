package scsi

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twinlun/twinlun/target/reservation"
	"github.com/twinlun/twinlun/target/sam"
)

// MaxNumber is the highest number of a target. As many targets with a port each have
// room in what REPORT TARGET PORT GROUPS tells of a group, whose ports it counts in a
// byte.
const MaxNumber = 127

// Target is an iSCSI target node: a name, and target ports, by which initiators reach
// logical units of a Device. It implements sam.Target.
//
// SetMap and SetPreference are about initiators: the one with that iSCSI name; or, if
// it ends in an asterisk, all whose name begins so. For an initiator, what was set for
// its own name counts, or else for the longest beginning of it.
type Target struct {
	*Device

	// Fixed by NewTarget.
	name   string
	number uint8
	masked bool

	// Under Device.mu.
	shown     Map               // what it shows; nil: all that there is
	preferred map[string]uint16 // target port group, by initiators
	maps      map[string]Map    // by initiators
	closed    bool
}

// portKey names one I_T nexus.
type portKey struct {
	target *Target
	from   sam.InitiatorPort
	group  uint16
}

// NewTarget returns the only target of a new device.
func NewTarget(cfg Config) *Target {
	return NewDevice(cfg).newTarget(cfg.Name, 0, cfg.Masked)
}

// NewTarget gives a device a further target, with a name up to 223 bytes and a number
// up to MaxNumber, both its alone. Its relative target port identifiers come from the
// number, and persistent reservations refer to them: a target should keep its number, and
// have the same at all sites.
//
// The relative target port identifier is the portal group tag with target 0, and
// number * 256 + tag with the others, whose tags have to be under 256.
func (t *Device) NewTarget(name string, number uint8) (*Target, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if number > MaxNumber {
		return nil, fmt.Errorf("target %s: its number is %d, and at most %d", name, number, MaxNumber)
	}
	for _, g := range *t.groups.Load() {
		if number > 0 && slices.Max(append(g.Ports, 0)) > 0xff {
			return nil, fmt.Errorf("target %s: a portal group tag over 255 allows one target only, with number 0", name)
		}
	}
	for _, other := range t.targets {
		if other.number == number || other.name == name {
			return nil, fmt.Errorf("target %s: its name or its number, %d, is that of target %s", name, number, other.name)
		}
	}
	return t.newTarget(name, number, false), nil
}

func (t *Device) newTarget(name string, number uint8, masked bool) *Target {
	n := &Target{
		Device: t, name: name[:min(len(name), maxName)], number: number, masked: masked,
		preferred: make(map[string]uint16), maps: make(map[string]Map),
	}
	t.targets = append(t.targets, n)
	slices.SortFunc(t.targets, func(a, b *Target) int { return cmp.Compare(a.number, b.number) })
	return n
}

// Close takes a target away: whoever is still logged in sees no logical units. What its
// initiators have registered stays, for another target with its number.
func (t *Target) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.targets = slices.DeleteFunc(t.targets, func(o *Target) bool { return o == t })
	for key, p := range t.ports {
		if key.target == t {
			p.showLocked(nil)
			t.dropLocked(p)
		}
	}
}

// NewNexus implements sam.Target.
func (t *Target) NewNexus(from sam.InitiatorPort, portalGroup uint16) sam.Nexus {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := portKey{target: t, from: from, group: portalGroup}
	key.from.Name = strings.Clone(key.from.Name[:min(len(key.from.Name), maxName)])
	p := t.ports[key]
	if p == nil {
		p = t.newPortLocked(key)
		t.forgetLocked()
	} else {
		p.establish(attentionNexusLoss)
	}
	t.clock++
	n := &nexus{port: p}
	p.open, p.opened = append(p.open, n), t.clock
	return n
}

func (t *Target) newPortLocked(key portKey) *port {
	p := &port{target: t, key: key, name: reservation.Nexus{Initiator: portName(key.from), Port: t.relative(key.group)},
		group: t.groupOf(key.group)}
	p.absent = p.newView(nil, 0)
	visible := t.visibleLocked(key.from.Name)
	views := make(map[uint16]*view, len(visible))
	for lun, u := range visible {
		views[lun] = p.newView(u, attentionPowerOn)
	}
	p.views.Store(&views)
	if !t.closed { // else its names may be another's by now
		t.ports[key], t.named[p.name] = p, p
	}
	return p
}

// forgetLocked drops the port opened longest ago among those without a nexus,
// when there are too many.
func (t *Device) forgetLocked() {
	if len(t.ports) <= maxPorts {
		return
	}
	var oldest *port
	for _, p := range t.ports {
		if len(p.open) == 0 && p.opened != 0 && (oldest == nil || p.opened < oldest.opened) {
			oldest = p
		}
	}
	if oldest != nil {
		t.dropLocked(oldest)
	}
}

func (t *Device) dropLocked(p *port) {
	delete(t.ports, p.key)
	if t.named[p.name] == p {
		delete(t.named, p.name)
	}
}

// relative is the relative target port identifier of a portal group.
func (t *Target) relative(tag uint16) uint16 { return uint16(t.number)<<8 | tag }

// showsLocked tells whether initiators can reach a unit by way of this target.
func (t *Target) showsLocked(number uint16) bool {
	if t.shown == nil {
		return true
	}
	for _, n := range t.shown {
		if n == number {
			return true
		}
	}
	return false
}

// units are the logical units that the target shows.
func (t *Target) units() (all []*unit) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shown == nil {
		return slices.Collect(maps.Values(t.luns))
	}
	for _, number := range t.shown {
		if u := t.luns[number]; u != nil {
			all = append(all, u)
		}
	}
	return all
}
