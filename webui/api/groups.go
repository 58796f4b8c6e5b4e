package api

import (
	"context"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/twinlun/twinlun/cluster/catalog"
)

// Group is hosts that see the same LUNs under the same numbers.
type Group struct {
	catalog.Group
	Hosts []string `json:"hosts" doc:"which say themselves that they belong to it"`
}

// GroupPath names a group in a path.
type GroupPath struct {
	Name string `path:"name" doc:"of the group"`
}

func asGroup(s *catalog.State, g catalog.Group) Group {
	return Group{g, slices.AppendSeq([]string{}, s.Members(g.Name))}
}

func (a *api) groups(h huma.API) {
	get(h, "/groups", "list-groups", "The groups of hosts", func(context.Context, *none) ([]Group, error) {
		_, s, err := a.state()
		if err != nil {
			return nil, err
		}
		all := []Group{}
		for g := range s.Groups() {
			all = append(all, asGroup(s, g))
		}
		return all, nil
	})
	change(h, http.MethodPut, "/groups/{name}", "put-group", "Make a group",
		func(ctx context.Context, in *GroupPath) (Group, error) {
			if err := a.do(ctx, &catalog.PutGroup{Name: in.Name}); err != nil {
				return Group{}, err
			}
			s := a.Cluster().State()
			g, _ := s.Group(in.Name)
			return asGroup(s, g), nil
		})
	remove(h, "/groups/{name}", "remove-group", "Remove a group that has no hosts, with its mappings",
		func(ctx context.Context, in *GroupPath) error { return a.do(ctx, &catalog.RemoveGroup{Name: in.Name}) })
}
