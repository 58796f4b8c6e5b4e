package api

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
)

// maxRounds bounds how often hosts are looked at again that could not be changed, as others
// had to be before: an initiator that goes from one host to the next, along a row of hosts.
const maxRounds = 8

// vault is what secrets are sealed with.
type vault interface {
	Seal(secret []byte) ([]byte, error)
	Unseal(sealed []byte) ([]byte, error)
}

// step is a command, and what people are told of it.
type step struct {
	Change
	body catalog.Body
}

// planner finds what has to be done so that a catalog has what a document says. It carries
// all of it out on a state of its own, so that a plan is known to be possible, in its order,
// before anything is done to the cluster.
//
// The order: what stands in the way is unmapped; settings, discovery, groups; LUNs, targets,
// hosts; last, LUNs are mapped. So nobody is shown a LUN before all that is said of it, and
// of who may use it, is in force.
type planner struct {
	vault
	state *catalog.State // after steps
	steps []step
}

// plan compares a document with a state.
func plan(s *catalog.State, v vault, d *Document) ([]step, error) {
	if err := d.twice(); err != nil {
		return nil, err
	}
	p := &planner{vault: v, state: s}
	wanted, err := p.mappings(d)
	if err != nil {
		return nil, err
	}
	for _, f := range []func() error{
		func() error { return p.unmap(wanted) },
		func() error { return p.settings(d.Settings) },
		func() error { return p.discovery(d.Discovery) },
		func() error { return each(d.Groups, p.group) },
		func() error { return each(d.LUNs, p.lun) },
		func() error { return each(d.Targets, p.target) },
		func() error { return p.hosts(d.Hosts) },
		func() error { return p.mapAll(wanted) },
	} {
		if err := f(); err != nil {
			return nil, err
		}
	}
	return p.steps, nil
}

func each[E any](all []E, f func(*E) error) error {
	for i := range all {
		if err := f(&all[i]); err != nil {
			return err
		}
	}
	return nil
}

// twice finds what stands in a document twice: which of the two would it be?
func (d *Document) twice() error {
	seen := map[string]bool{}
	once := func(what, name string) error {
		if seen[what+" "+name] {
			return invalid(what+"s", name+" stands there twice")
		}
		seen[what+" "+name] = true
		return nil
	}
	return errors.Join(
		each(d.Groups, func(e *GroupEntry) error { return once("group", e.Name) }),
		each(d.LUNs, func(e *LUNEntry) error { return once("lun", e.Name) }),
		each(d.Targets, func(e *TargetEntry) error { return once("target", e.Name) }),
		each(d.Hosts, func(e *HostEntry) error { return once("host", e.Name) }),
	)
}

// do adds a step, if it is possible.
func (p *planner) do(c Change, body catalog.Body) error {
	c.Kind = body.Kind()
	index := p.state.Index() + 1
	raw, err := catalog.Command{ID: newUUID(), Time: catalog.StampOf(time.Now()), By: local, Body: body}.Encode()
	if err != nil {
		return about(c.Subject, err)
	}
	next, r, err := p.state.Apply(index, raw)
	if err == nil && r.Error != nil {
		err = r.Error
	}
	if err != nil {
		return about(c.Subject, err)
	}
	p.state = next
	p.steps = append(p.steps, step{c, body})
	return nil
}

// about is an error that says what it is about.
func about(subject string, err error) error {
	if e := new(catalog.Error); errors.As(err, &e) {
		told := *e
		if told.Field != "" { // of a command, which the client does not know of
			told.Message, told.Field = told.Field+": "+told.Message, ""
		}
		told.Message = subject + ": " + told.Message
		return &told
	}
	return fmt.Errorf("%s: %w", subject, err)
}

// to notes that a field changes.
func (c *Change) to(name, from, to string) {
	if from != to {
		c.Fields = append(c.Fields, Field{name, from, to})
	}
}

// given is what a field is to be changed to; nil: nothing.
func given[V comparable](c *Change, name string, want *V, is V) *V {
	if want == nil || *want == is {
		return nil
	}
	c.to(name, fmt.Sprint(is), fmt.Sprint(*want))
	return want
}

// kept is what is wanted, or else what is.
func kept[V any](want *V, is V) V {
	if want != nil {
		return *want
	}
	return is
}

// revision is that which something must still have; 0: it must not exist.
func revision(n uint64) catalog.Expect { return catalog.Expect{IfRevision: &n} }

func (p *planner) settings(w *SettingsChange) error {
	if w == nil {
		return nil
	}
	is, c := p.state.Settings(), Change{Subject: "settings"}
	body := &catalog.ChangeSettings{
		Heartbeat: given(&c, "heartbeat", w.Heartbeat, is.Heartbeat), Lease: given(&c, "lease", w.Lease, is.Lease),
		PreferredDelay: given(&c, "preferred_delay", w.PreferredDelay, is.PreferredDelay), ColdAfter: given(&c, "cold_after", w.ColdAfter, is.ColdAfter),
		HoldWait: given(&c, "hold_wait", w.HoldWait, is.HoldWait), CopyRate: given(&c, "copy_rate", w.CopyRate, is.CopyRate), Compress: given(&c, "compress", w.Compress, is.Compress),
	}
	if len(c.Fields) == 0 {
		return nil
	}
	return p.do(c, body)
}

func (p *planner) group(e *GroupEntry) error {
	if _, found := p.state.Group(e.Name); found {
		return nil
	}
	return p.do(Change{Subject: "group " + e.Name}, &catalog.PutGroup{Expect: revision(0), Name: e.Name})
}

func (p *planner) target(e *TargetEntry) error {
	is, found := p.state.Target(e.Name)
	c := Change{Subject: "target " + e.Name}
	body := &catalog.PutTarget{Expect: revision(is.Revision), Name: e.Name, Alias: kept(e.Alias, is.Alias), Portals: is.Portals}
	c.to("alias", is.Alias, body.Alias)
	if e.Portals != nil && !sameSet(e.Portals, is.Portals) {
		body.Portals = e.Portals
		c.to("portals", portalsOf(is.Portals), portalsOf(e.Portals))
		c.Takes = lacks(e.Portals, is.Portals)
	}
	if found && len(c.Fields) == 0 {
		return nil
	}
	return p.do(c, body)
}

// lacks tells whether something of old is not in all.
func lacks[V comparable](all, old []V) bool {
	return slices.ContainsFunc(old, func(v V) bool { return !slices.Contains(all, v) })
}

func sameSet[V comparable](a, b []V) bool { return len(a) == len(b) && !lacks(a, b) && !lacks(b, a) }

func portalsOf(all []catalog.Portal) (text string) {
	for i, p := range all {
		if i > 0 {
			text += ", "
		}
		text += string(p.Node) + "=" + p.Address
	}
	return text
}
