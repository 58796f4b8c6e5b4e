package scsi

import (
	"slices"
	"strings"
)

// portsIn are the relative identifiers of the target ports in a group by which initiators
// reach a unit: of the targets that show it, in their order.
func (u *unit) portsIn(g PortGroup) (all []uint16) {
	t := u.target
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.targets {
		if !n.showsLocked(u.number) {
			continue
		}
		for _, tag := range g.Ports {
			all = append(all, n.relative(tag))
		}
	}
	return all[:min(len(all), 0xff)]
}

// shares tells whether a group's ports share the reservations that are made here.
func (u *unit) shares(g PortGroup) bool {
	_, shared := u.reservations.(Shared)
	return shared || !g.Remote
}

// sharedPorts are the relative identifiers of all target ports by which initiators reach
// a unit, if all of them share its reservations; else nil: what is reserved here is not
// reserved there.
func (u *unit) sharedPorts(p *port) (all []uint16) {
	for _, g := range u.target.groupsOf(u, p) {
		if !u.shares(g) {
			return nil
		}
		all = append(all, u.portsIn(g)...)
	}
	return all
}

// hasPort tells whether a target port is one of those by which initiators reach a unit
// and that share its reservations.
func (u *unit) hasPort(p *port, relative uint16) bool {
	return slices.ContainsFunc(u.target.groupsOf(u, p), func(g PortGroup) bool {
		return u.shares(g) && slices.Contains(u.portsIn(g), relative)
	})
}

// isDevice tells whether a name in a TransportID is that of a device.
func isDevice(name string) bool { return !strings.Contains(name, transportDivider) }

// portsOf gives the names of a device's initiator ports that are known, ascending;
// of an initiator port, itself.
func (t *Device) portsOf(name string) (all []string) {
	if !isDevice(name) {
		return []string{name}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.ports {
		if p.key.from.Name == name {
			all = append(all, p.name.Initiator)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
