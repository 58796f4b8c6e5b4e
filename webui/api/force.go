package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/twinlun/twinlun/cluster/catalog"
)

// Outlook is what may be lost if a node is forced to serve a LUN alone, as far as that node
// can know.
type Outlook struct {
	LUN     string           `json:"lun"`
	Node    catalog.NodeID   `json:"node" doc:"the one that answers, and would serve"`
	Peer    catalog.NodeID   `json:"peer" doc:"the node with the other replica; it must be off for good, or fenced"`
	Serving []catalog.NodeID `json:"serving" doc:"who serves the LUN, as this node last heard"`
	Term    uint64           `json:"term" doc:"since when, in changes of who serves"`
	Stale   uint64           `json:"stale_extents" doc:"whose newest data is, or may be, at the peer only"`
	Bytes   int64            `json:"stale_bytes" doc:"of those extents, at most"`
	Unknown bool             `json:"unknown" doc:"the peer served alone: what it wrote then is missing here, and cannot be counted"`
	Loss    string           `json:"loss" doc:"what becomes of stale extents: hold, or serve-stale" enum:"hold,serve-stale"`
	Linked  bool             `json:"linked" doc:"the link with the peer is up"`
	Heard   *time.Time       `json:"heard,omitempty" doc:"when the peer last said something; left out: not since this node was started"`
	Refusal string           `json:"refusal,omitempty" doc:"why this node cannot be forced; left out: it can"`
}

// Force has a node serve a LUN alone.
type Force struct {
	Node    catalog.NodeID      `json:"node" doc:"the one that is to serve, and that is asked"`
	Confirm string              `json:"confirm" doc:"the LUN's name: its peer is off for good, or fenced, and what Outlook tells may be lost"`
	Loss    *catalog.LossPolicy `json:"loss,omitempty" doc:"what becomes of stale extents, until the cluster has agreed to this: hold, or serve-stale; left out: as the LUN's policy says"`
}

// ForcePath names a LUN, and the node that is asked.
type ForcePath struct {
	LUNPath
	Node catalog.NodeID `query:"node" required:"true" doc:"the one that is to serve, and that is asked"`
}

func (a *api) force(h huma.API) {
	get(h, "/luns/{name}/force", "get-outlook", "What may be lost if this node is forced to serve a LUN alone",
		func(ctx context.Context, in *ForcePath) (Outlook, error) {
			l, err := a.forced(in.Name, in.Node)
			if err != nil {
				return Outlook{}, err
			}
			return a.Outlook(ctx, l)
		})
	change(h, http.MethodPost, "/luns/{name}/force", "force-alone", "Force this node to serve a LUN alone, when the cluster has no majority any more",
		func(ctx context.Context, in *struct {
			LUNPath
			Body Force
		}) (Outlook, error) {
			b := in.Body
			l, err := a.forced(in.Name, b.Node)
			if err != nil {
				return Outlook{}, err
			}
			if b.Confirm != l.Name {
				return Outlook{}, &catalog.Error{Code: catalog.Invalid, Field: "confirm", Message: "is not the name of the LUN"}
			}
			if b.Loss != nil && *b.Loss != catalog.Hold && *b.Loss != catalog.ServeStale {
				return Outlook{}, &catalog.Error{Code: catalog.Invalid, Field: "loss", Message: "is none of hold, serve-stale"}
			}
			if err := a.Force(ctx, l, b.Loss); err != nil {
				return Outlook{}, err
			}
			return a.Outlook(ctx, l)
		})
}

// forced is the LUN that a node is to be forced to serve: this one, since nobody else can be
// asked on that day.
func (a *api) forced(lun string, node catalog.NodeID) (catalog.LUN, error) {
	l, err := a.lun(lun)
	if err != nil {
		return l, err
	}
	switch self := a.Cluster().Self(); {
	case node != self:
		return l, problem(http.StatusConflict, CodeNotFeasible, "this is node "+string(self)+", and only node "+string(node)+" can do that",
			"run it on the machine of node "+string(node))
	case !l.Has(self):
		return l, problem(http.StatusConflict, CodeNotFeasible, "node "+string(self)+" has no replica of LUN "+l.Name, "")
	}
	return l, nil
}
