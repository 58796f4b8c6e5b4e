package catalog

// RecoverCluster makes known that an operator has made a new group of what is left of a
// cluster whose majority is gone for good. It is not proposed to anybody: it stands in the
// new group's log from its beginning, beside the list of its members (package cluster).
//
// The nodes that are given up have no vote, and are refused everywhere like removed ones.
// They stay nodes as long as LUNs have replicas there and targets portals: these are moved
// or removed one by one, and then the node.
type RecoverCluster struct {
	Node   NodeID   `json:"node"`    // where it is done; it has the only vote at first
	GiveUp []NodeID `json:"give_up"` // at least one
}

// Kind is "recover-cluster".
func (*RecoverCluster) Kind() string { return "recover-cluster" }

func (b *RecoverCluster) apply(c *change) error {
	n, found := c.Node(b.Node)
	switch {
	case !found:
		return notFound("node", string(b.Node))
	case n.Witness:
		return conflict("do it at a node with replicas", "node %s is a witness, and lets no node in", n.Name)
	case n.GivenUp:
		return conflict("", "node %s was given up itself", n.Name)
	case len(b.GiveUp) == 0:
		return invalid("give_up", "nobody is given up")
	}
	for _, name := range b.GiveUp {
		if err := c.giveUp(b.Node, name); err != nil {
			return err
		}
	}
	if !n.Voter {
		n.Voter, n.Revision = true, c.index
		c.putNode(n)
		c.note(NodeChanged{Node: n.Name})
	}
	c.core.Recoveries++
	c.note(ClusterChanged{})
	c.log(Alert, "cluster", "recovery %d: an operator has made a new group at node %s without a majority; given up, and refused from now on: %s", c.core.Recoveries, n.Name, namesOf(b.GiveUp))
	return nil
}

// giveUp takes a node's vote and has it refused.
func (c *change) giveUp(self, name NodeID) error {
	n, found := c.Node(name)
	switch {
	case !found:
		return notFound("node", string(name))
	case n.GivenUp:
		return conflict("", "node %s was given up before", name)
	case name == self:
		return invalid("give_up", "node %s cannot give itself up", name)
	}
	n.GivenUp, n.Voter, n.Revision = true, false, c.index
	c.putNode(n)
	c.note(NodeChanged{Node: name})
	return nil
}

// namesOf lists some nodes for people.
func namesOf(nodes []NodeID) string {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = string(n)
	}
	return some(names)
}

// notGivenUp checks that nothing new is put where nobody is.
func (c *change) notGivenUp(replicas ...Replica) error {
	for _, r := range replicas {
		if n, _ := c.Node(r.Node); n.GivenUp {
			return conflict("choose another node", "node %s was given up", r.Node)
		}
	}
	return nil
}

// Recoveries is how often the cluster has got a new group without a majority.
func (s *State) Recoveries() uint64 { return s.core.Recoveries }
