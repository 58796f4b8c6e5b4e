package api

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/twinlun/twinlun/cluster/catalog"
)

// proof is a CHAP that has what a document says, and notes what changes.
func (p *planner) proof(c *Change, w *ProofEntry, is catalog.CHAP) (catalog.CHAP, error) {
	user, target := users(is)
	next, err := chap(p, is, kept(w.User, user), w.Secret, kept(w.TargetUser, target), w.TargetSecret)
	if err != nil {
		return next, about(c.Subject, err)
	}
	credential(c, "user", "secret", is.Initiator, next.Initiator)
	credential(c, "target_user", "target_secret", is.Target, next.Target)
	return next, nil
}

// credential notes what becomes of a user and his secret.
func credential(c *Change, user, secret string, is, next *catalog.Credential) {
	var old, will catalog.Credential
	if is != nil {
		old = *is
	}
	if next != nil {
		will = *next
	}
	c.to(user, old.User, will.User)
	if next != nil && !bytes.Equal(old.Sealed, will.Sealed) {
		c.Fields = append(c.Fields, Field{Name: secret})
	}
}

func (p *planner) discovery(w *ProofEntry) error {
	if w == nil {
		return nil
	}
	c := Change{Subject: "discovery"}
	next, err := p.proof(&c, w, p.state.Discovery())
	if err != nil || len(c.Fields) == 0 {
		return err
	}
	return p.do(c, &catalog.SetDiscovery{CHAP: next})
}

// hosts changes hosts, those first that do not need others to be changed before.
func (p *planner) hosts(all []HostEntry) (err error) {
	for range maxRounds {
		var later []HostEntry
		for i := range all {
			switch e := p.host(&all[i]); {
			case catalog.CodeOf(e) == catalog.Conflict:
				later, err = append(later, all[i]), e
			case e != nil:
				return e
			}
		}
		switch {
		case len(later) == 0:
			return nil
		case len(later) == len(all):
			return err
		}
		all = later
	}
	return err
}

func (p *planner) host(e *HostEntry) error {
	is, found := p.state.Host(e.Name)
	c := Change{Subject: "host " + e.Name}
	body := &catalog.PutHost{Expect: revision(is.Revision), Name: e.Name, Initiators: is.Initiators, Site: kept(e.Site, is.Site), Group: kept(e.Group, is.Group)}
	if e.Initiators != nil && !sameSet(e.Initiators, is.Initiators) {
		body.Initiators = e.Initiators
		c.to("initiators", strings.Join(is.Initiators, ", "), strings.Join(e.Initiators, ", "))
	}
	c.to("group", is.Group, body.Group)
	var err error
	if body.CHAP, err = p.proof(&c, &e.ProofEntry, is.CHAP); err != nil {
		return err
	}
	// A proof that was not needed before locks out a host that does not know of it.
	proves := slices.ContainsFunc(c.Fields, func(f Field) bool { return f.Name != "initiators" && f.Name != "group" })
	c.Takes = found && (lacks(body.Initiators, is.Initiators) || is.Group != "" && body.Group != is.Group || proves)
	c.to("site", is.Site, body.Site)
	if found && len(c.Fields) == 0 {
		return nil
	}
	return p.do(c, body)
}

// view is what a subject is to see of a target.
type view struct {
	target string
	catalog.Subject
}

func (v view) at(number uint16) string {
	return fmt.Sprintf("LUN %d of %s at %s", number, v.Subject, v.target)
}

// wanted is a mapping of a document.
type wanted struct {
	number uint16
	lun    string // name or id
	there  bool   // it is so already
}

// views are the mappings of a document, those of a subject together.
type views struct {
	order []view // in which they stand there
	of    map[view][]*wanted
}

func (p *planner) mappings(d *Document) (v views, err error) {
	v.of = map[view][]*wanted{}
	only := p.onlyTarget(d)
	for _, e := range d.Mappings {
		at := view{e.Target, catalog.Subject{Host: e.Host, Group: e.Group}}
		if at.target == "" {
			at.target = only
		}
		switch {
		case at.target == "":
			return v, invalid("mappings", "target is missing, and there is not exactly one")
		case (e.Host == "") == (e.Group == ""):
			return v, invalid("mappings", "either a host or a group is needed for LUN "+e.LUN)
		}
		if v.of[at] == nil {
			v.order = append(v.order, at)
		}
		v.of[at] = append(v.of[at], &wanted{number: e.Number, lun: e.LUN})
	}
	return v, v.twice()
}

func (v views) twice() error {
	for _, at := range v.order {
		numbers := map[uint16]bool{}
		for _, w := range v.of[at] {
			if numbers[w.number] {
				return invalid("mappings", at.at(w.number)+" stands there twice")
			}
			numbers[w.number] = true
		}
	}
	return nil
}

// onlyTarget is the target that there will be; "": none, or several.
func (p *planner) onlyTarget(d *Document) string {
	names := map[string]bool{}
	for t := range p.state.Targets() {
		names[t.Name] = true
	}
	for _, t := range d.Targets {
		names[t.Name] = true
	}
	if len(names) != 1 {
		return ""
	}
	for name := range names {
		return name
	}
	return ""
}

// unmap takes back what stands in the way: another LUN under a number that is wanted, and a
// LUN that is wanted under another number.
func (p *planner) unmap(all views) error {
	before := p.state
	for _, at := range all.order {
		numbers, luns := map[uint16]*wanted{}, map[catalog.UUID]bool{}
		for _, w := range all.of[at] {
			numbers[w.number] = w
			if l, found := lunOf(before, w.lun); found {
				luns[l.ID] = true
			}
		}
		for m := range before.MappingsOf(at.target, at.Subject) {
			w := numbers[m.Number]
			l, _ := before.LUN(m.LUN)
			if w != nil && (w.lun == l.Name || w.lun == l.ID.String()) {
				w.there = true
				continue
			}
			if w == nil && !luns[m.LUN] {
				continue
			}
			c := Change{Subject: at.at(m.Number), Takes: true}
			c.to("lun", l.Name, "")
			if err := p.do(c, &catalog.Unmap{Target: m.Target, Subject: m.Subject, Number: m.Number}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *planner) mapAll(all views) error {
	for _, at := range all.order {
		for _, w := range all.of[at] {
			if w.there {
				continue
			}
			l, found := lunOf(p.state, w.lun)
			if !found {
				return about(at.at(w.number), notFound("LUN", w.lun))
			}
			c := Change{Subject: at.at(w.number)}
			c.to("lun", "", l.Name)
			m := catalog.Mapping{Target: at.target, Subject: at.Subject, Number: w.number, LUN: l.ID}
			if err := p.do(c, &catalog.Map{Mapping: m}); err != nil {
				return err
			}
		}
	}
	return nil
}
