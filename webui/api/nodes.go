package api

import (
	"context"
	"iter"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/twinlun/twinlun/cluster"
	"github.com/twinlun/twinlun/cluster/catalog"
)

// list is a sequence as an answer: never null.
func list[V any](all iter.Seq[V]) []V { return slices.AppendSeq([]V{}, all) }

// Node is a node of the cluster.
type Node struct {
	catalog.Node
	Leads bool `json:"leads"`
	Votes bool `json:"votes" doc:"it has the vote that the catalog gives it"`
}

// NodeChange is what is to change of a node.
type NodeChange struct {
	Revision  *uint64  `json:"revision,omitempty" doc:"that the node must have"`
	Site      *string  `json:"site,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
	Voter     *bool    `json:"voter,omitempty"`
	Drained   *bool    `json:"drained,omitempty" doc:"it is to serve nothing, for planned work"`
}

// NodePath names a node in a path.
type NodePath struct {
	Name catalog.NodeID `path:"name" doc:"of the node"`
}

func (a *api) nodes(h huma.API) {
	get(h, "/nodes", "list-nodes", "The nodes of the cluster", func(context.Context, *none) ([]Node, error) {
		c, s, err := a.state()
		if err != nil {
			return nil, err
		}
		all := []Node{}
		for n := range s.Nodes() {
			all = append(all, asNode(c, n))
		}
		return all, nil
	})
	get(h, "/nodes/{name}", "get-node", "A node", func(_ context.Context, in *NodePath) (Node, error) { return a.node(in.Name) })
	change(h, http.MethodPatch, "/nodes/{name}", "change-node", "Change what is given of a node",
		func(ctx context.Context, in *struct {
			NodePath
			Body NodeChange
		}) (Node, error) {
			b := in.Body
			err := a.do(ctx, &catalog.ChangeNode{Expect: catalog.Expect{IfRevision: b.Revision}, Name: in.Name, Site: b.Site, Addresses: b.Addresses, Voter: b.Voter, Drained: b.Drained})
			if err != nil {
				return Node{}, err
			}
			return a.node(in.Name)
		})
	remove(h, "/nodes/{name}", "remove-node", "Remove a node for good: its name and its key stay refused",
		func(ctx context.Context, in *NodePath) error { return a.do(ctx, &catalog.RemoveNode{Name: in.Name}) })
}

func (a *api) node(name catalog.NodeID) (Node, error) {
	c, s, err := a.state()
	if err != nil {
		return Node{}, err
	}
	n, found := s.Node(name)
	if !found {
		return Node{}, notFound("node", string(name))
	}
	return asNode(c, n), nil
}

func asNode(c Cluster, n catalog.Node) Node {
	members, _ := c.Members() // as far as they are known
	return Node{n, c.Leader() == string(n.Name), slices.Contains(members, cluster.Member{Node: string(n.Name), Voter: true})}
}

func notFound(what, name string) error {
	return &catalog.Error{Code: catalog.NotFound, Message: "there is no " + what + " " + name}
}
