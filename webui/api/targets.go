package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/twinlun/twinlun/cluster/catalog"
)

// TargetBody is what is given of a target.
type TargetBody struct {
	Revision *uint64          `json:"revision,omitempty" doc:"that the target must have; 0: it must not exist"`
	Alias    string           `json:"alias,omitempty"`
	Portals  []catalog.Portal `json:"portals"`
}

// TargetPath names a target in a path.
type TargetPath struct {
	Name string `path:"name" doc:"iSCSI name"`
}

// Mapping shows a LUN to a host, or the hosts of a group.
type Mapping struct {
	Target string `json:"target"`
	Host   string `json:"host,omitempty"`
	Group  string `json:"group,omitempty"`
	Number uint16 `json:"number" doc:"under which the host sees it" maximum:"16383"`
	LUN    string `json:"lun" doc:"its name, or its id"`
}

func (a *api) targets(h huma.API) {
	get(h, "/targets", "list-targets", "The targets", func(context.Context, *none) ([]catalog.Target, error) {
		_, s, err := a.state()
		if err != nil {
			return nil, err
		}
		return list(s.Targets()), nil
	})
	change(h, http.MethodPut, "/targets/{name}", "put-target", "Make a target, or replace what it was",
		func(ctx context.Context, in *struct {
			TargetPath
			Body TargetBody
		}) (catalog.Target, error) {
			b := in.Body
			put := &catalog.PutTarget{Expect: catalog.Expect{IfRevision: b.Revision}, Name: in.Name, Alias: b.Alias, Portals: b.Portals}
			if err := a.do(ctx, put); err != nil {
				return catalog.Target{}, err
			}
			t, _ := a.Cluster().State().Target(in.Name)
			return t, nil
		})
	remove(h, "/targets/{name}", "remove-target", "Remove a target",
		func(ctx context.Context, in *TargetPath) error {
			return a.do(ctx, &catalog.RemoveTarget{Name: in.Name})
		})
	get(h, "/mappings", "list-mappings", "Who sees which LUNs", func(context.Context, *none) ([]Mapping, error) {
		_, s, err := a.state()
		if err != nil {
			return nil, err
		}
		all := []Mapping{}
		for m := range s.Mappings() {
			l, _ := s.LUN(m.LUN)
			all = append(all, Mapping{m.Target, m.Host, m.Group, m.Number, l.Name})
		}
		return all, nil
	})
	change(h, http.MethodPost, "/mappings", "map", "Show a LUN to a host, or the hosts of a group",
		func(ctx context.Context, in *struct{ Body Mapping }) (Mapping, error) {
			b := in.Body
			l, err := a.lun(b.LUN)
			if err == nil {
				err = a.do(ctx, &catalog.Map{Mapping: catalog.Mapping{
					Target: b.Target, Subject: catalog.Subject{Host: b.Host, Group: b.Group}, Number: b.Number, LUN: l.ID}})
			}
			return b, err
		})
	remove(h, "/mappings", "unmap", "Take back what a mapping has shown",
		func(ctx context.Context, in *struct {
			Target string `query:"target" required:"true"`
			Host   string `query:"host"`
			Group  string `query:"group"`
			Number uint16 `query:"number" required:"true"`
		}) error {
			return a.do(ctx, &catalog.Unmap{Target: in.Target, Subject: catalog.Subject{Host: in.Host, Group: in.Group}, Number: in.Number})
		})
}
