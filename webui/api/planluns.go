package api

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/twinlun/twinlun/cluster/catalog"
)

// Defaults of a LUN that is made, as in NewLUN.
const (
	defaultBlock  = 512
	defaultExtent = 65536
)

func (p *planner) lun(e *LUNEntry) error {
	l, found := p.state.LUNNamed(e.Name)
	if !found {
		return p.newLUN(e)
	}
	if err := e.checkFixed(&l); err != nil {
		return err
	}
	if err := p.replicas(e, &l); err != nil {
		return err
	}
	c := Change{Subject: "LUN " + l.Name}
	body := &catalog.ChangeLUN{
		ID: l.ID, Size: given(&c, "size", e.Size, l.Size), Preferred: given(&c, "preferred", e.Preferred, l.Preferred), Loss: given(&c, "loss", e.Loss, l.Loss),
		ReadOnly: given(&c, "read_only", e.ReadOnly, l.ReadOnly), Removable: given(&c, "removable", e.Removable, l.Removable),
	}
	if len(c.Fields) == 0 {
		return nil
	}
	c.Takes = body.ReadOnly != nil && *body.ReadOnly
	if now, _ := p.state.LUN(l.ID); now.Revision == l.Revision { // a new replica changes it, to what only the cluster will know
		body.Expect = revision(l.Revision)
	}
	return p.do(c, body)
}

func (p *planner) newLUN(e *LUNEntry) error {
	n := NewLUN{
		Name: e.Name, ID: e.ID, NAA: e.NAA, Size: kept(e.Size, 0), BlockSize: kept(e.BlockSize, defaultBlock), Extent: kept(e.Extent, defaultExtent),
		Preferred: kept(e.Preferred, ""), Loss: kept(e.Loss, catalog.Hold), ReadOnly: kept(e.ReadOnly, false), Removable: kept(e.Removable, false),
	}
	for _, r := range e.Replicas {
		n.Replicas = append(n.Replicas, r.new())
	}
	body := n.command()
	c := Change{Subject: "LUN " + e.Name}
	c.to("size", "", strconv.FormatInt(body.Size, 10))
	c.to("replicas", "", replicasOf(body.Replicas))
	return p.do(c, body)
}

// checkFixed finds what is said otherwise than it is, and cannot be changed.
func (e *LUNEntry) checkFixed(l *catalog.LUN) error {
	for _, err := range []error{
		fixed(l, "id", e.ID, l.ID), fixed(l, "naa", e.NAA, l.NAA), fixed(l, "block_size", e.BlockSize, l.BlockSize), fixed(l, "extent_size", e.Extent, l.ExtentSize),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

func fixed[V comparable](l *catalog.LUN, field string, want *V, is V) error {
	if want == nil || *want == is {
		return nil
	}
	return &catalog.Error{Code: catalog.Conflict, Field: field, Message: fmt.Sprintf("LUN %s has %v, and the document %v", l.Name, is, *want),
		Hint: "it is for good: make another LUN, or leave it out"}
}

// replicas adds those that a LUN does not have. None is removed: whether its data is needed
// no document knows.
func (p *planner) replicas(e *LUNEntry, l *catalog.LUN) error {
	if e.Replicas == nil {
		return nil
	}
	for _, r := range l.Replicas {
		if err := e.replicaKept(l, r); err != nil {
			return err
		}
	}
	for _, r := range e.Replicas {
		if l.Has(r.Node) {
			continue
		}
		c := Change{Subject: "LUN " + l.Name}
		add := r.new().of(l.Name)
		c.to("replicas", replicasOf(l.Replicas), replicasOf(append(l.Replicas[:len(l.Replicas):len(l.Replicas)], add)))
		if err := p.do(c, &catalog.AddReplica{LUN: l.ID, Replica: add}); err != nil {
			return err
		}
	}
	return nil
}

// replicaKept checks that a replica stands in the document as it is.
func (e *LUNEntry) replicaKept(l *catalog.LUN, is catalog.Replica) error {
	refused := &catalog.Error{Code: catalog.Conflict, Field: "replicas",
		Message: fmt.Sprintf("LUN %s has a replica at node %s, %s %s, which the document does not have", l.Name, is.Node, is.Kind, is.Path),
		Hint:    fmt.Sprintf("no replica is removed or moved by a document: see twinlun lun replica remove %s %s", l.Name, is.Node)}
	for _, r := range e.Replicas {
		if r.Node != is.Node {
			continue
		}
		if r.Path == "" {
			r.Path = is.Path
		}
		if n := r.new().of(l.Name); n.Path == is.Path && (r.Kind == "" || n.Kind == is.Kind) {
			return nil
		}
	}
	return refused
}

func replicasOf(all []catalog.Replica) string {
	var text []string
	for _, r := range all {
		text = append(text, string(r.Node)+"="+r.Path)
	}
	return strings.Join(text, ", ")
}
