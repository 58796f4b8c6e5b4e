package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/viper"

	"github.com/twinlun/twinlun/target/iscsi"
)

const (
	// MaxNumber is the highest number of a target, as the device server has it.
	MaxNumber = 127
	// maxTag is the highest portal group tag if there are several targets: together with
	// their numbers they have to go into 16 bits.
	maxTag = 0xff
)

// addTargets reads the list targets, behind the lists of what targets have in common.
// Without it there is one target, which iscsi.iqn names.
func (c *Config) addTargets(v *viper.Viper) error {
	all, err := entries(v.Get("targets"), "targets", targetKeys, MaxNumber+1)
	switch {
	case err != nil:
		return err
	case all == nil:
		c.Targets = []Target{c.common}
		return nil
	case len(all) == 0:
		return errors.New("targets: is empty; list one at least, or leave it out, and name the only one with iscsi.iqn")
	case c.common.IQN != "" || c.common.Alias != "":
		return errors.New("targets: iscsi.iqn and iscsi.alias have no place beside this list; let that target stand in it, too, with number: 0")
	}
	used := false
	for i, e := range all {
		t, err := c.target(e)
		if err != nil {
			return fmt.Errorf("targets, entry %d: %w", i+1, err)
		}
		_, own := e["hosts"]
		used = used || !own
		c.Targets = append(c.Targets, t)
	}
	if !used && len(c.common.Hosts) > 0 {
		c.Warnings = append(c.Warnings, "hosts: nobody is let in by this list, as each target has hosts of its own")
	}
	return nil
}

// target reads an entry of targets. What it does not say is as the targets have it in
// common.
func (c *Config) target(e map[string]any) (t Target, err error) {
	rawHosts, ownHosts := e["hosts"]
	rawPortals, ownPortals := e["portals"]
	values, err := texts(e, "hosts", "portals")
	if err != nil {
		return t, err
	}
	number, err := strconv.ParseUint(values["number"], 10, 8)
	if err != nil || number > MaxNumber {
		return t, fmt.Errorf("number: %q is not a number from 0 to %d; each target has one of its own, the same at both nodes", values["number"], MaxNumber)
	}
	t = Target{Number: uint8(number), IQN: values["iqn"], Alias: values["alias"], Listen: c.common.Listen,
		Portals: c.common.Portals, Hosts: c.common.Hosts, Views: c.common.Views}
	if err := checkIQN(t.IQN); err != nil {
		return t, fmt.Errorf("iqn: %w", err)
	}
	if text := values["luns"]; text != "" {
		if t.LUNs, err = parseLUNs(text); err != nil {
			return t, fmt.Errorf("luns: %w", err)
		}
	}
	if text := values["listen"]; text != "" {
		if t.Listen, err = parseListen(text); err != nil {
			return t, fmt.Errorf("listen: %w", err)
		}
		t.Portals = nil // those would lead elsewhere
	}
	if ownPortals {
		if t.Portals, err = portals(rawPortals, "portals"); err != nil {
			return t, err
		}
	}
	if ownHosts {
		t.Hosts, t.Views, err = c.hosts(rawHosts)
	}
	return t, err
}

// portals reads a list of portals.
func portals(raw any, path string) (all []Portal, err error) {
	list, err := elements(raw, path, portalKeys, maxPortals)
	if err != nil {
		return nil, err
	}
	for i, e := range list {
		p, err := e.portal()
		if err != nil {
			return nil, fmt.Errorf("%s, entry %d: %w", path, i+1, err)
		}
		all = append(all, p)
	}
	return all, nil
}

// hosts reads a list of hosts: who may log in, and what they see.
func (c *Config) hosts(raw any) (all []iscsi.Access, views []View, err error) {
	list, err := elements(raw, "hosts", hostKeys, maxHosts)
	if err != nil {
		return nil, nil, err
	}
	for i, e := range list {
		h, err := e.host(c)
		if err == nil {
			all = append(all, h)
			views, err = e.addView(views)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("hosts, entry %d: %w", i+1, err)
		}
	}
	return all, views, nil
}

// checkTargets looks at all targets, each by itself and together, and at discovery.
func (c *Config) checkTargets() (err error) {
	if c.Discovery, err = c.discovery.auth(c); err != nil {
		return fmt.Errorf("discovery: %w", err)
	}
	taken := map[string]string{} // what only one target may have, and which has it
	auths := []iscsi.Auth{c.Discovery}
	for i := range c.Targets {
		t := &c.Targets[i]
		if err := c.checkTarget(t); err != nil {
			return c.inTarget(t, err)
		}
		for _, key := range []string{"name " + t.IQN, fmt.Sprintf("number %d", t.Number)} {
			if other, ok := taken[key]; ok {
				return c.inTarget(t, fmt.Errorf("the %s is that of %s, too", key, other))
			}
			taken[key] = t.IQN
		}
		for _, h := range t.Hosts {
			auths = append(auths, h.Auth)
		}
	}
	if err := iscsi.CheckSecrets(auths); err != nil {
		return fmt.Errorf("hosts and discovery: %w", err)
	}
	return nil
}

// inTarget says which target an error is about, if there may be several.
func (c *Config) inTarget(t *Target, err error) error {
	if c.common.IQN != "" {
		return err
	}
	return fmt.Errorf("target %s: %w", t.IQN, err)
}

func (c *Config) checkTarget(t *Target) error {
	if err := c.checkPortals(t); err != nil {
		return err
	}
	if len(t.Hosts) == 0 {
		return errors.New(`hosts: is missing, nobody could log in; list the initiators that may, or - initiator: "*" for everybody`)
	}
	if err := c.checkViews(t); err != nil {
		return fmt.Errorf("hosts: %w", err)
	}
	if err := iscsi.CheckAccess(t.Hosts); err != nil {
		return fmt.Errorf("hosts: %w", err)
	}
	for _, n := range t.LUNs {
		if !c.hasLUN(n) {
			return fmt.Errorf("luns: there is no LUN with the number %d", n)
		}
	}
	return nil
}

// checkPortals sees to it that initiators are told where to connect: to the portals
// of this node's group that are configured, or else to where we listen. What listens
// on all addresses is told as the one that an initiator has reached.
func (c *Config) checkPortals(t *Target) error {
	if len(t.Listen) == 0 {
		return errors.New("listen: is empty; where shall initiators be served?")
	}
	ours := func(p Portal) bool { return p.Group == c.PortalGroup }
	if !slices.ContainsFunc(t.Portals, ours) {
		t.Portals = slices.Clone(t.Portals)
		for k, address := range t.Listen {
			t.Portals = slices.Insert(t.Portals, k, Portal{address, c.PortalGroup})
		}
	}
	high := func(p Portal) bool { return p.Group > maxTag }
	if t.Number > 0 && slices.ContainsFunc(t.Portals, high) {
		return fmt.Errorf("portals: a group over %d allows one target only, with number: 0", maxTag)
	}
	return nil
}

func (c *Config) hasLUN(number uint16) bool {
	return slices.ContainsFunc(c.LUNs, func(l LUN) bool { return l.Number == number })
}
