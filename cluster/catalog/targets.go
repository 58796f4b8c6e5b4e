package catalog

import (
	"encoding/binary"
	"iter"
	"slices"
)

// maxNumber is the last LUN of the flat space addressing method (SAM-5 4.7.7.3).
const maxNumber = 1<<14 - 1

// Target is an iSCSI target. It exists at all nodes that have portals of it.
type Target struct {
	Name     string   `json:"name"`   // iSCSI name
	Number   uint8    `json:"number"` // its alone, from 0; target ports have identifiers by it
	Alias    string   `json:"alias"`
	Portals  []Portal `json:"portals"`
	Revision uint64   `json:"revision"`
}

// Portal is an address at which a node serves a target, in the node's portal group.
type Portal struct {
	Node    NodeID `json:"node"`
	Address string `json:"address"` // host:port; without host: all of the node's addresses
}

// Subject is who is given LUNs: a host, or the hosts of a group.
type Subject struct {
	Host  string `json:"host,omitempty"`
	Group string `json:"group,omitempty"`
}

func (s Subject) key() string {
	if s.Host != "" {
		return "h" + s.Host
	}
	return "g" + s.Group
}

// String is "host web7" or "group db".
func (s Subject) String() string {
	if s.Host != "" {
		return "host " + s.Host
	}
	return "group " + s.Group
}

// Mapping shows a LUN to a host, or the hosts of a group, at a target, under a number.
type Mapping struct {
	Target string `json:"target"`
	Subject
	Number uint16 `json:"number"`
	LUN    UUID   `json:"lun"`
}

// place is where mappings of a subject at a target begin in the table.
func place(target string, s Subject) string { return target + "\x00" + s.key() + "\x00" }

func (m *Mapping) key() string {
	return place(m.Target, m.Subject) + string(binary.BigEndian.AppendUint16(nil, m.Number))
}

func (m *Mapping) useKey() string { return m.LUN.key() + m.key() }

// Target is a target by name.
func (s *State) Target(name string) (Target, bool) { return s.targets.get(name) }

// Targets are all targets, by name.
func (s *State) Targets() iter.Seq[Target] { return s.targets.values("") }

// Mappings are all mappings, by target.
func (s *State) Mappings() iter.Seq[Mapping] { return s.mappings.values("") }

// MappingsOf are those of a subject at a target, by number.
func (s *State) MappingsOf(target string, who Subject) iter.Seq[Mapping] {
	return s.mappings.values(place(target, who))
}

// View is what a host sees of a target: what it is given itself, then what its group is.
// No number and no LUN is in there twice.
func (s *State) View(target string, h *Host) iter.Seq[Mapping] {
	return func(yield func(Mapping) bool) {
		for m := range s.MappingsOf(target, Subject{Host: h.Name}) {
			if !yield(m) {
				return
			}
		}
		if h.Group == "" {
			return
		}
		for m := range s.MappingsOf(target, Subject{Group: h.Group}) {
			if !yield(m) {
				return
			}
		}
	}
}

// PutTarget makes a target, or replaces what it was.
type PutTarget struct {
	Expect
	Name    string   `json:"name"`
	Alias   string   `json:"alias,omitempty"`
	Portals []Portal `json:"portals"`
}

// Kind is "put-target".
func (*PutTarget) Kind() string { return "put-target" }

func (b *PutTarget) apply(c *change) error {
	old, found := c.Target(b.Name)
	if err := b.check("target", b.Name, old.Revision, found); err != nil {
		return err
	}
	t := Target{b.Name, old.Number, b.Alias, slices.Clone(b.Portals), c.index}
	if err := t.check(); err != nil {
		return err
	}
	if !found && c.targets.len() >= MaxTargets {
		return full("targets", MaxTargets)
	}
	if !found {
		t.Number = uint8(free(c.Targets(), 0, func(t Target) int { return int(t.Number) }))
	}
	for _, p := range t.Portals {
		if n, found := c.Node(p.Node); !found || n.Witness {
			return conflict("portals are at nodes that have replicas", "node %.70q is none of those", p.Node)
		}
	}
	c.targets.set(t.Name, t)
	c.note(TargetChanged{Target: t.Name})
	c.log(Info, "target "+t.Name, "has %d portals", len(t.Portals))
	return nil
}

func (t *Target) check() error {
	if err := checkISCSIName("name", t.Name); err != nil {
		return err
	}
	if err := checkText("alias", t.Alias, maxAlias); err != nil {
		return err
	}
	if len(t.Portals) > MaxPortals {
		return invalid("portals", "a target has at most %d, not %d", MaxPortals, len(t.Portals))
	}
	for i, p := range t.Portals {
		if err := checkAddress("portals", p.Address, true); err != nil {
			return err
		}
		same := func(q Portal) bool { return q.Node == p.Node && q.Address == p.Address }
		if slices.ContainsFunc(t.Portals[:i], same) {
			return invalid("portals", "%s at node %s stands there twice", p.Address, p.Node)
		}
	}
	return nil
}

// RemoveTarget removes a target through which nobody is given anything.
type RemoveTarget struct {
	Name string `json:"name"`
}

// Kind is "remove-target".
func (*RemoveTarget) Kind() string { return "remove-target" }

func (b *RemoveTarget) apply(c *change) error {
	if !c.targets.has(b.Name) {
		return notFound("target", b.Name)
	}
	if n := count(c.mappings.values(b.Name + "\x00")); n > 0 {
		return conflict("unmap what is mapped there first", "target %s has %d mappings", b.Name, n)
	}
	c.targets.drop(b.Name)
	c.note(TargetChanged{Target: b.Name, Removed: true})
	c.log(Info, "target "+b.Name, "was removed")
	return nil
}

// Map shows a LUN to a host or the hosts of a group.
type Map struct{ Mapping }

// Kind is "map".
func (*Map) Kind() string { return "map" }

func (b *Map) apply(c *change) error {
	m := b.Mapping
	if err := c.checkMapping(&m); err != nil {
		return err
	}
	if c.mappings.len() >= MaxMappings {
		return full("mappings", MaxMappings)
	}
	if err := c.vacant(m, m.Subject); err != nil {
		return err
	}
	if err := c.vacantBeside(m); err != nil {
		return err
	}
	c.putMapping(m)
	c.note(ViewChanged{m.Target, m.Subject})
	return nil
}

// checkMapping checks what a mapping refers to.
func (s *State) checkMapping(m *Mapping) error {
	switch {
	case (m.Host == "") == (m.Group == ""):
		return invalid("host", "either a host or a group is needed")
	case m.Number > maxNumber:
		return invalid("number", "%d is more than %d", m.Number, maxNumber)
	case !s.targets.has(m.Target):
		return notFound("target", m.Target)
	case m.Host != "" && !s.hosts.has(m.Host):
		return notFound("host", m.Host)
	case m.Group != "" && !s.groups.has(m.Group):
		return notFound("group", m.Group)
	case !s.luns.has(m.LUN.key()):
		return notFound("LUN", m.LUN.String())
	}
	return nil
}

// vacant checks that a subject has neither the number nor the LUN of a mapping at its target.
func (s *State) vacant(m Mapping, who Subject) error {
	at := Mapping{Target: m.Target, Subject: who, Number: m.Number}
	if other, found := s.mappings.get(at.key()); found {
		return conflict("choose another number", "LUN %d of %s at target %s is LUN %v", m.Number, who, m.Target, other.LUN)
	}
	for range s.uses.all(m.LUN.key() + place(m.Target, who)) {
		return conflict("one number is enough", "%s has LUN %v at target %s already", who, m.LUN, m.Target)
	}
	return nil
}

// vacantBeside checks the same for those who see a mapping together with others: the group
// of a host, or the hosts of a group.
func (c *change) vacantBeside(m Mapping) error {
	if m.Host != "" {
		if h, _ := c.Host(m.Host); h.Group != "" {
			return c.vacant(m, Subject{Group: h.Group})
		}
		return nil
	}
	for host := range c.Members(m.Group) {
		if err := c.vacant(m, Subject{Host: host}); err != nil {
			return err
		}
	}
	return nil
}

func (c *change) putMapping(m Mapping) {
	c.mappings.set(m.key(), m)
	c.uses.set(m.useKey(), struct{}{})
}

func (c *change) dropMapping(m *Mapping) {
	c.mappings.drop(m.key())
	c.uses.drop(m.useKey())
}

// unmapAll takes all mappings from a subject.
func (c *change) unmapAll(who Subject) {
	before := c.State // what is looked through does not change
	for t := range before.Targets() {
		for m := range before.MappingsOf(t.Name, who) {
			c.dropMapping(&m)
			c.note(ViewChanged{m.Target, who})
		}
	}
}

// Unmap takes back what Map has shown.
type Unmap struct {
	Target string `json:"target"`
	Subject
	Number uint16 `json:"number"`
}

// Kind is "unmap".
func (*Unmap) Kind() string { return "unmap" }

func (b *Unmap) apply(c *change) error {
	at := Mapping{Target: b.Target, Subject: b.Subject, Number: b.Number}
	m, found := c.mappings.get(at.key())
	if !found || (b.Host == "") == (b.Group == "") {
		return &Error{Code: NotFound, Message: "there is no such mapping"}
	}
	c.dropMapping(&m)
	c.note(ViewChanged{m.Target, m.Subject})
	return nil
}
