package catalog

import (
	"iter"
	"slices"
	"strings"
)

// Host is a computer that uses LUNs.
type Host struct {
	Name string `json:"name"`
	// Initiators are its iSCSI names, or beginnings of names with an asterisk, as the
	// asterisk alone: everybody.
	Initiators []string `json:"initiators"`
	Site       string   `json:"site"`  // whose paths it should use; "": as the LUN says
	Group      string   `json:"group"` // whose LUNs it sees, too; "": none
	CHAP       CHAP     `json:"chap"`
	Revision   uint64   `json:"revision"`
}

// CHAP is how the two sides of a login prove themselves.
type CHAP struct {
	Initiator *Credential `json:"initiator,omitempty"` // nil: no proof is needed
	Target    *Credential `json:"target,omitempty"`    // nil: the target proves nothing
}

// Credential is a name and a secret, which is sealed: whoever reads a catalog or its
// snapshot learns nothing from it.
type Credential struct {
	User   string `json:"user"`
	Sealed []byte `json:"sealed"`
}

// Group is hosts that see the same LUNs under the same numbers.
type Group struct {
	Name     string `json:"name"`
	Revision uint64 `json:"revision"`
}

// Host is a host by name.
func (s *State) Host(name string) (Host, bool) { return s.hosts.get(name) }

// Hosts are all hosts, by name.
func (s *State) Hosts() iter.Seq[Host] { return s.hosts.values("") }

// HostOf is the host that an initiator belongs to: the one that lists its name, or else
// the longest beginning of it.
func (s *State) HostOf(initiator string) (Host, bool) {
	name, found := s.initiators.get(initiator)
	if !found {
		name, found = s.patterns.longest(initiator)
	}
	if !found {
		return Host{}, false
	}
	return s.Host(name)
}

// Group is a group by name.
func (s *State) Group(name string) (Group, bool) { return s.groups.get(name) }

// Groups are all groups, by name.
func (s *State) Groups() iter.Seq[Group] { return s.groups.values("") }

// Members are the names of the hosts of a group.
func (s *State) Members(group string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for key := range s.members.all(pair(group, "")) {
			if _, host, _ := strings.Cut(key, "\x00"); !yield(host) {
				return
			}
		}
	}
}

// Discovery is how initiators prove themselves that only want to look.
func (s *State) Discovery() CHAP { return s.core.Discovery }

func (a CHAP) check(field string) error {
	if a.Target != nil && a.Initiator == nil {
		return invalid(field+".target", "the target proves itself only to initiators that do so, too (RFC 7143 section 12.1.3)")
	}
	for _, side := range []*Credential{a.Initiator, a.Target} {
		if side == nil {
			continue
		}
		if side.User == "" || len(side.Sealed) == 0 || len(side.Sealed) > maxSealed {
			return invalid(field, "a name and a sealed secret of 1 to %d bytes are needed", maxSealed)
		}
		if err := checkText(field, side.User, maxUser); err != nil {
			return err
		}
	}
	return nil
}

// copied is a CHAP that shares nothing with a command.
func (a CHAP) copied() CHAP { return CHAP{a.Initiator.copied(), a.Target.copied()} }

func (k *Credential) copied() *Credential {
	if k == nil {
		return nil
	}
	return &Credential{k.User, slices.Clone(k.Sealed)}
}

// PutHost makes a host, or replaces what it was.
type PutHost struct {
	Expect
	Name       string   `json:"name"`
	Initiators []string `json:"initiators"`
	Site       string   `json:"site,omitempty"`
	Group      string   `json:"group,omitempty"`
	CHAP       CHAP     `json:"chap"`
}

// Kind is "put-host".
func (*PutHost) Kind() string { return "put-host" }

func (b *PutHost) apply(c *change) error {
	old, found := c.Host(b.Name)
	if err := b.check("host", b.Name, old.Revision, found); err != nil {
		return err
	}
	h := Host{b.Name, slices.Sorted(slices.Values(b.Initiators)), b.Site, b.Group, b.CHAP.copied(), c.index}
	if err := h.check(); err != nil {
		return err
	}
	if !found && c.hosts.len() >= MaxHosts {
		return full("hosts", MaxHosts)
	}
	if err := c.checkHost(&h, old.Group); err != nil {
		return err
	}
	c.putHost(h)
	c.note(HostChanged{Host: h.Name})
	c.log(Info, "host "+h.Name, "has %d initiators, site %q, group %q, CHAP %t", len(h.Initiators), h.Site, h.Group, h.CHAP.Initiator != nil)
	return nil
}

func (h *Host) check() error {
	if err := checkName("name", h.Name); err != nil {
		return err
	}
	if len(h.Initiators) == 0 || len(h.Initiators) > MaxNames {
		return invalid("initiators", "a host has 1 to %d, not %d", MaxNames, len(h.Initiators))
	}
	for i, name := range h.Initiators {
		if err := checkInitiator("initiators", name); err != nil {
			return err
		}
		if i > 0 && name == h.Initiators[i-1] {
			return invalid("initiators", "%s stands there twice", name)
		}
	}
	return h.CHAP.check("chap")
}

// checkHost checks what a host has to do with others. It was in another group before.
func (c *change) checkHost(h *Host, before string) error {
	for _, name := range h.Initiators {
		if other, found := c.initiator(name); found && other != h.Name {
			return conflict("a host of several adapters has several initiators", "initiator %s is that of host %s", name, other)
		}
	}
	if h.Site != "" && !c.hasSite(h.Site) {
		return conflict("use the site of a node, or none", "no node is at site %.70q", h.Site)
	}
	if h.Group == "" || h.Group == before {
		return nil
	}
	switch {
	case !c.groups.has(h.Group):
		return notFound("group", h.Group)
	case count(c.Members(h.Group)) >= MaxMembers:
		return full("hosts in group "+h.Group, MaxMembers)
	}
	return c.agree(h.Name, h.Group)
}

// agree checks that what a host sees by itself and by its group goes together.
func (c *change) agree(host, group string) error {
	for t := range c.Targets() {
		for m := range c.MappingsOf(t.Name, Subject{Host: host}) {
			if err := c.vacant(m, Subject{Group: group}); err != nil {
				return err
			}
		}
	}
	return nil
}

// initiator is the host that lists this name, or this beginning of names.
func (s *State) initiator(name string) (host string, found bool) {
	if prefix, wild := strings.CutSuffix(name, "*"); wild {
		return s.patterns.get(prefix)
	}
	return s.initiators.get(name)
}

func (c *change) putHost(h Host) {
	if old, found := c.Host(h.Name); found {
		c.dropHost(&old)
	}
	c.hosts.set(h.Name, h)
	for _, name := range h.Initiators {
		if prefix, wild := strings.CutSuffix(name, "*"); wild {
			c.patterns.set(prefix, h.Name)
		} else {
			c.initiators.set(name, h.Name)
		}
	}
	if h.Group != "" {
		c.members.set(pair(h.Group, h.Name), struct{}{})
	}
}

func (c *change) dropHost(h *Host) {
	c.hosts.drop(h.Name)
	for _, name := range h.Initiators {
		if prefix, wild := strings.CutSuffix(name, "*"); wild {
			c.patterns.drop(prefix)
		} else {
			c.initiators.drop(name)
		}
	}
	c.members.drop(pair(h.Group, h.Name))
}

// RemoveHost removes a host, with the mappings that it has by itself.
type RemoveHost struct {
	Name string `json:"name"`
}

// Kind is "remove-host".
func (*RemoveHost) Kind() string { return "remove-host" }

func (b *RemoveHost) apply(c *change) error {
	h, found := c.Host(b.Name)
	if !found {
		return notFound("host", b.Name)
	}
	c.unmapAll(Subject{Host: h.Name})
	c.dropHost(&h)
	c.note(HostChanged{Host: h.Name, Removed: true})
	c.log(Info, "host "+h.Name, "was removed")
	return nil
}

// PutGroup makes a group. Hosts say themselves which group they belong to.
type PutGroup struct {
	Expect
	Name string `json:"name"`
}

// Kind is "put-group".
func (*PutGroup) Kind() string { return "put-group" }

func (b *PutGroup) apply(c *change) error {
	old, found := c.Group(b.Name)
	if err := b.check("group", b.Name, old.Revision, found); err != nil {
		return err
	}
	if err := checkName("name", b.Name); err != nil {
		return err
	}
	if !found && c.groups.len() >= MaxGroups {
		return full("groups", MaxGroups)
	}
	c.groups.set(b.Name, Group{b.Name, c.index})
	c.note(GroupChanged{Group: b.Name})
	return nil
}

// RemoveGroup removes a group that has no hosts, with its mappings.
type RemoveGroup struct {
	Name string `json:"name"`
}

// Kind is "remove-group".
func (*RemoveGroup) Kind() string { return "remove-group" }

func (b *RemoveGroup) apply(c *change) error {
	if !c.groups.has(b.Name) {
		return notFound("group", b.Name)
	}
	if n := count(c.Members(b.Name)); n > 0 {
		return conflict("take them out first", "group %s has %d hosts", b.Name, n)
	}
	c.unmapAll(Subject{Group: b.Name})
	c.groups.drop(b.Name)
	c.note(GroupChanged{Group: b.Name, Removed: true})
	return nil
}

// SetDiscovery says how initiators prove themselves that only want to look.
type SetDiscovery struct {
	CHAP CHAP `json:"chap"`
}

// Kind is "set-discovery".
func (*SetDiscovery) Kind() string { return "set-discovery" }

func (b *SetDiscovery) apply(c *change) error {
	if err := b.CHAP.check("chap"); err != nil {
		return err
	}
	c.core.Discovery = b.CHAP.copied()
	c.note(ClusterChanged{})
	c.log(Info, "cluster", "discovery by CHAP: %t", b.CHAP.Initiator != nil)
	return nil
}
