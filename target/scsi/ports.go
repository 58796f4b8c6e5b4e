package scsi

import (
	"slices"
	"strings"
)

// sharedPorts are the relative identifiers of all target ports, if all of them share
// this target's reservations; else nil: what is reserved here is not reserved there.
func (t *Target) sharedPorts(p *port) (all []uint16) {
	if len(t.groups) == 0 {
		return []uint16{p.key.group}
	}
	for _, g := range t.groups {
		if g.Remote {
			return nil
		}
		all = append(all, g.Ports...)
	}
	return all
}

// hasPort tells whether a target port is one of this target's.
func (t *Target) hasPort(p *port, relative uint16) bool {
	if relative == p.key.group {
		return true
	}
	return slices.ContainsFunc(t.groups, func(g PortGroup) bool {
		return !g.Remote && slices.Contains(g.Ports, relative)
	})
}

// isDevice tells whether a name in a TransportID is that of a device.
func isDevice(name string) bool { return !strings.Contains(name, transportDivider) }

// portsOf gives the names of a device's initiator ports that are known, ascending;
// of an initiator port, itself.
func (t *Target) portsOf(name string) (all []string) {
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
