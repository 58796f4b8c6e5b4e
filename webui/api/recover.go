package api

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/member"
)

// Recovery is what it would mean to make a new group of the cluster at a node, without a
// majority, as far as that node can know.
type Recovery struct {
	Cluster   string           `json:"cluster"`
	Node      catalog.NodeID   `json:"node" doc:"the one that answers, and would go on"`
	GiveUp    []LostNode       `json:"give_up" doc:"the nodes that do not answer: they are refused for good"`
	Stay      []catalog.NodeID `json:"stay" doc:"the nodes that do"`
	Entry     uint64           `json:"entry" doc:"the last one that was agreed upon, as this node knows"`
	EntryTime *time.Time       `json:"entry_time,omitempty" doc:"of that; left out: it is not known any more"`
	Heard     *time.Time       `json:"heard,omitempty" doc:"when this node last heard of another one that took part: what was agreed upon since is lost; left out: not since this node was started"`
	LUNs      []LUNLeft        `json:"luns" doc:"with replicas at nodes that are given up"`
	Refusal   string           `json:"refusal,omitempty" doc:"why it cannot be done; left out: it can"`
}

// LostNode is a node that is to be given up.
type LostNode struct {
	Name    catalog.NodeID `json:"name"`
	Witness bool           `json:"witness"`
	Heard   *time.Time     `json:"heard,omitempty" doc:"when it last said something to this node; left out: not since this node was started"`
}

// LUNLeft is what is left of a LUN.
type LUNLeft struct {
	LUN     string           `json:"lun"`
	Left    []catalog.NodeID `json:"left" doc:"nodes with a replica that stay"`
	Lost    []catalog.NodeID `json:"lost" doc:"nodes with a replica that are given up"`
	Serving []catalog.NodeID `json:"serving" doc:"who serves it, as this node last heard"`
}

// Recover has a node make a new group.
type Recover struct {
	Confirm string           `json:"confirm" doc:"the cluster's name: the nodes that are given up are off for good"`
	GiveUp  []catalog.NodeID `json:"give_up" doc:"as the Recovery has it: if it is not so any more nothing is done"`
}

func (a *api) recover(h huma.API) {
	get(h, "/cluster/recover", "get-recovery", "What it would mean to make a new group at this node", func(ctx context.Context, _ *none) (Recovery, error) {
		c, s, err := a.state()
		if err != nil {
			return Recovery{}, err
		}
		return recoveryOf(c.Self(), s, a.Recovery(ctx)), nil
	})
	change(h, http.MethodPost, "/cluster/recover", "recover-cluster", "Make a new group at this node, when the majority is gone for good",
		func(ctx context.Context, in *struct{ Body Recover }) (ClusterInfo, error) {
			_, s, err := a.state()
			if err != nil {
				return ClusterInfo{}, err
			}
			if in.Body.Confirm != s.Cluster().Name {
				return ClusterInfo{}, &catalog.Error{Code: catalog.Invalid, Field: "confirm", Message: "is not the name of the cluster"}
			}
			if err := a.Recover(ctx, local, in.Body.GiveUp); err != nil {
				return ClusterInfo{}, err
			}
			return a.info()
		})
}

func recoveryOf(self catalog.NodeID, s *catalog.State, r member.Recovery) Recovery {
	out := Recovery{
		Cluster: s.Cluster().Name, Node: self, GiveUp: []LostNode{}, Stay: append([]catalog.NodeID{}, r.Stay...),
		Entry: r.Applied, EntryTime: known(r.AppliedAt), Heard: known(r.Heard), LUNs: []LUNLeft{},
	}
	for _, n := range r.GiveUp {
		out.GiveUp = append(out.GiveUp, LostNode{n.Name, n.Witness, known(n.Heard)})
	}
	lost := r.Names()
	for l := range s.LUNs() {
		if left := leftOf(s, &l, lost); len(left.Lost) > 0 {
			out.LUNs = append(out.LUNs, left)
		}
	}
	slices.SortFunc(out.LUNs, func(a, b LUNLeft) int { return strings.Compare(a.LUN, b.LUN) })
	if r.Refusal != nil {
		out.Refusal = r.Refusal.Error()
	}
	return out
}

// leftOf is what is left of a LUN without nodes, and without those that were given up before.
func leftOf(s *catalog.State, l *catalog.LUN, lost []catalog.NodeID) LUNLeft {
	out := LUNLeft{LUN: l.Name, Left: []catalog.NodeID{}, Lost: []catalog.NodeID{}, Serving: l.Serving}
	for _, replica := range l.Replicas {
		if n, _ := s.Node(replica.Node); n.GivenUp || slices.Contains(lost, replica.Node) {
			out.Lost = append(out.Lost, replica.Node)
		} else {
			out.Left = append(out.Left, replica.Node)
		}
	}
	return out
}

// known is a time for an answer, if there is one.
func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
