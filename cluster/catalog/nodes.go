package catalog

import (
	"fmt"
	"iter"
	"slices"
	"time"
)

// Node is a node of the cluster.
type Node struct {
	Name      NodeID   `json:"name"`
	Site      string   `json:"site"`
	Group     uint16   `json:"group"`              // portal group tag, and target port group: its alone, from 1; 0: a witness
	Addresses []string `json:"addresses"`          // where the others reach it, host:port
	Key       Hash     `json:"key"`                // fingerprint of its public key
	Witness   bool     `json:"witness"`            // it has a vote, and no replicas
	Voter     bool     `json:"voter"`              // it is to have a vote; each loses it before it is removed
	Version   int      `json:"version"`            // of commands that its program knows
	Drained   bool     `json:"drained,omitempty"`  // it is to serve nothing, for planned work
	GivenUp   bool     `json:"given_up,omitempty"` // it is refused, as a removed one is: see RecoverCluster
	Revision  uint64   `json:"revision"`
}

// RemovedNode was a node. Its name and its key stay refused.
type RemovedNode struct {
	Name NodeID `json:"name"`
	Key  Hash   `json:"key"`
	Time Stamp  `json:"time"`
}

// JoinToken lets one node into the cluster, once. The catalog knows only the hash of its
// secret.
type JoinToken struct {
	Hash    Hash   `json:"hash"`
	Expires Stamp  `json:"expires"`
	UsedBy  NodeID `json:"used_by,omitempty"` // "": not used yet
	UsedKey Hash   `json:"used_key"`
}

// tokenMemory is how long an expired token is remembered, so that who comes late with it
// is told so.
const tokenMemory = 7 * 24 * time.Hour

// Node is a node by name.
func (s *State) Node(name NodeID) (Node, bool) { return s.nodes.get(string(name)) }

// Nodes are all nodes, by name.
func (s *State) Nodes() iter.Seq[Node] { return s.nodes.values("") }

// RemovedNode is a node that was removed, by name.
func (s *State) RemovedNode(name NodeID) (RemovedNode, bool) { return s.removed.get(string(name)) }

// RemovedNodes are all nodes that were removed, by name.
func (s *State) RemovedNodes() iter.Seq[RemovedNode] { return s.removed.values("") }

// KeyRefused tells whether a key was that of a node that was removed.
func (s *State) KeyRefused(key Hash) bool {
	name, found := s.keys.get(key.key())
	return found && s.removed.has(string(name))
}

// Tokens are all join tokens.
func (s *State) Tokens() iter.Seq[JoinToken] { return s.tokens.values("") }

// Token is a join token by the hash of its secret.
func (s *State) Token(hash Hash) (JoinToken, bool) { return s.tokens.get(hash.key()) }

// hasSite tells whether a node stands at a site.
func (s *State) hasSite(site string) bool {
	for n := range s.Nodes() {
		if n.Site == site {
			return true
		}
	}
	return false
}

// NewNode is a node that is to be admitted.
type NewNode struct {
	Name      NodeID   `json:"name"`
	Site      string   `json:"site"`
	Addresses []string `json:"addresses"`
	Key       Hash     `json:"key"`
	Witness   bool     `json:"witness"`
	Voter     bool     `json:"voter"`
	Version   int      `json:"version"`
}

func (n *Node) check() error {
	if err := checkNode("name", n.Name); err != nil {
		return err
	}
	if err := checkName("site", n.Site); err != nil {
		return err
	}
	if len(n.Addresses) == 0 || len(n.Addresses) > maxAddresses {
		return invalid("addresses", "a node has 1 to %d addresses, not %d", maxAddresses, len(n.Addresses))
	}
	for _, a := range n.Addresses {
		if err := checkAddress("addresses", a, false); err != nil {
			return err
		}
	}
	switch {
	case n.Key == Hash{}:
		return invalid("key", "the fingerprint is all zeros")
	case n.Witness != (n.Group == 0):
		return invalid("group", "%d: a witness has none, and others have one", n.Group)
	}
	return nil
}

// admit adds a node.
func (c *change) admit(b *NewNode) error {
	n := Node{b.Name, b.Site, 0, slices.Clone(b.Addresses), b.Key, b.Witness, b.Voter, b.Version, false, false, c.index}
	if !n.Witness {
		n.Group = uint16(free(c.Nodes(), 1, func(n Node) int { return int(n.Group) }))
	}
	if err := n.check(); err != nil {
		return err
	}
	if n.Witness && !n.Voter {
		return invalid("voter", "a witness without a vote is of no use")
	}
	if n.Version < c.core.Version {
		return &Error{Code: Unsupported, Hint: "upgrade it",
			Message: fmt.Sprintf("node %s knows commands of version %d, and the cluster uses version %d", n.Name, n.Version, c.core.Version)}
	}
	if c.nodes.has(string(n.Name)) || c.removed.has(string(n.Name)) {
		return &Error{Code: NameTaken, Message: fmt.Sprintf("the cluster has, or had, another node of the name %s", n.Name), Hint: "choose another name"}
	}
	if other, found := c.keys.get(n.Key.key()); found {
		return &Error{Code: NameTaken, Message: fmt.Sprintf("the key is that of node %s", other), Hint: "let the new node make a key of its own, in an empty folder"}
	}
	if c.nodes.len() >= MaxNodes {
		return full("nodes", MaxNodes)
	}
	c.putNode(n)
	c.note(NodeChanged{Node: n.Name})
	c.log(Info, "node "+string(n.Name), "belongs to the cluster now, at site %s", n.Site)
	return nil
}

func (c *change) putNode(n Node) {
	c.nodes.set(string(n.Name), n)
	c.keys.set(n.Key.key(), n.Name)
}

func (c *change) putRemoved(r RemovedNode) {
	c.removed.set(string(r.Name), r)
	c.keys.set(r.Key.key(), r.Name)
}

// AddToken makes a join token known.
type AddToken struct {
	Hash    Hash  `json:"hash"`
	Expires Stamp `json:"expires"`
}

// Kind is "add-token".
func (*AddToken) Kind() string { return "add-token" }

func (b *AddToken) apply(c *change) error {
	c.forgetTokens()
	switch {
	case b.Hash == Hash{}:
		return invalid("hash", "is all zeros")
	case b.Expires <= c.command.Time:
		return invalid("expires", "lies in the past")
	case c.tokens.has(b.Hash.key()):
		return conflict("make another one", "the token is known already")
	case c.tokens.len() >= MaxTokens:
		return full("join tokens", MaxTokens)
	}
	c.tokens.set(b.Hash.key(), JoinToken{Hash: b.Hash, Expires: b.Expires})
	c.note(TokensChanged{})
	c.log(Info, "cluster", "a join token was made")
	return nil
}

// forgetTokens removes those that nobody will ask for any more.
func (c *change) forgetTokens() {
	for key, t := range c.tokens.all("") {
		if t.Expires.Time().Add(tokenMemory).Before(c.command.Time.Time()) {
			c.tokens.drop(key)
		}
	}
}

// RemoveToken makes a join token worthless.
type RemoveToken struct {
	Hash Hash `json:"hash"`
}

// Kind is "remove-token".
func (*RemoveToken) Kind() string { return "remove-token" }

func (b *RemoveToken) apply(c *change) error {
	if !c.tokens.has(b.Hash.key()) {
		return notFound("join token", b.Hash.String())
	}
	c.tokens.drop(b.Hash.key())
	c.note(TokensChanged{})
	return nil
}

// AdmitNode uses up a join token and adds the node that came with it. For the node that
// has used the token it is done already: it may not have got its answer.
type AdmitNode struct {
	Token Hash    `json:"token"`
	Node  NewNode `json:"node"`
}

// Kind is "admit-node".
func (*AdmitNode) Kind() string { return "admit-node" }

func (b *AdmitNode) apply(c *change) error {
	const again = "make a new one with twinlun token create"
	t, found := c.tokens.get(b.Token.key())
	switch {
	case !found:
		return &Error{Code: NoToken, Message: "the cluster does not know this join token", Hint: again}
	case t.UsedBy == b.Node.Name && t.UsedKey == b.Node.Key && t.UsedBy != "" && c.nodes.has(string(t.UsedBy)):
		return nil
	case t.UsedBy != "":
		return &Error{Code: TokenUsed, Message: "this join token was used already", Hint: again}
	case t.Expires <= c.command.Time:
		return &Error{Code: TokenOld, Message: "this join token has expired", Hint: again}
	}
	if err := c.admit(&b.Node); err != nil {
		return err
	}
	t.UsedBy, t.UsedKey = b.Node.Name, b.Node.Key
	c.tokens.set(b.Token.key(), t)
	c.note(TokensChanged{})
	return nil
}

// ChangeNode changes what is given of a node.
type ChangeNode struct {
	Expect
	Name      NodeID   `json:"name"`
	Site      *string  `json:"site,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
	Voter     *bool    `json:"voter,omitempty"`
	Version   *int     `json:"version,omitempty"`
	Drained   *bool    `json:"drained,omitempty"`
}

// Kind is "change-node".
func (*ChangeNode) Kind() string { return "change-node" }

func (b *ChangeNode) apply(c *change) error {
	n, found := c.Node(b.Name)
	if err := b.check("node", string(b.Name), n.Revision, found); err != nil {
		return err
	}
	if !found {
		return notFound("node", string(b.Name))
	}
	before := n
	replace(&n.Site, b.Site)
	replace(&n.Voter, b.Voter)
	replace(&n.Version, b.Version)
	replace(&n.Drained, b.Drained)
	if len(b.Addresses) > 0 {
		n.Addresses = slices.Clone(b.Addresses)
	}
	n.Revision = c.index
	if err := n.check(); err != nil {
		return err
	}
	if err := c.mayChange(before, n); err != nil {
		return err
	}
	c.putNode(n)
	c.note(NodeChanged{Node: n.Name})
	if n.Drained != before.Drained {
		c.log(Warning, "node "+string(n.Name), "%s", map[bool]string{true: "is drained: it is to serve nothing", false: "is to serve again"}[n.Drained])
	}
	if n.Site != before.Site || n.Voter != before.Voter || !slices.Equal(n.Addresses, before.Addresses) {
		c.log(Info, "node "+string(n.Name), "changed: site %s, voter %t, addresses %q", n.Site, n.Voter, n.Addresses)
	}
	return nil
}

func (c *change) mayChange(before, n Node) error {
	if n.GivenUp && (n.Voter || n.Version != before.Version) {
		return conflict("remove it, and join another node", "node %s was given up", n.Name)
	}
	if n.Version < c.core.Version && !n.GivenUp {
		return conflict("", "version %d: the cluster uses commands of version %d", n.Version, c.core.Version)
	}
	if before.Voter && !n.Voter && c.onlyVoter(n.Name) {
		return conflict("let another node vote first", "node %s is the only one that has a vote", n.Name)
	}
	if n.Site == before.Site {
		return nil
	}
	if err := c.mayLeaveSite(before); err != nil {
		return err
	}
	if c.replicasAt(n.Name) > 0 {
		return conflict("move its replicas first", "node %s has replicas, whose LUNs rely on its site", n.Name)
	}
	return nil
}

func (c *change) onlyVoter(name NodeID) bool {
	for n := range c.Nodes() {
		if n.Voter && n.Name != name {
			return false
		}
	}
	return true
}

// mayLeaveSite checks that hosts do not prefer a site where no node is left.
func (c *change) mayLeaveSite(n Node) error {
	for other := range c.Nodes() {
		if other.Site == n.Site && other.Name != n.Name {
			return nil
		}
	}
	for h := range c.Hosts() {
		if h.Site == n.Site {
			return conflict("give the hosts of this site another one", "host %s prefers site %s, and node %s is the last one there", h.Name, n.Site, n.Name)
		}
	}
	return nil
}

// replicasAt counts the replicas at a node.
func (c *change) replicasAt(name NodeID) int { return count(c.files.values(string(name) + "\x00")) }

// RemoveNode removes a node for good: its name and its key stay refused.
type RemoveNode struct {
	Name NodeID `json:"name"`
}

// Kind is "remove-node".
func (*RemoveNode) Kind() string { return "remove-node" }

func (b *RemoveNode) apply(c *change) error {
	n, found := c.Node(b.Name)
	if !found {
		return notFound("node", string(b.Name))
	}
	if err := c.mayRemove(n); err != nil {
		return err
	}
	c.nodes.drop(string(n.Name))
	c.putRemoved(RemovedNode{n.Name, n.Key, c.command.Time})
	c.note(NodeChanged{Node: n.Name, Removed: true})
	c.log(Warning, "node "+string(n.Name), "was removed from the cluster, and its key is refused")
	return nil
}

func (c *change) mayRemove(n Node) error {
	replicas := c.replicasAt(n.Name)
	switch {
	case replicas > 0:
		return conflict("remove these replicas or LUNs first", "node %s has %d replicas", n.Name, replicas)
	case n.Voter && c.onlyVoter(n.Name):
		return conflict("let another node vote first", "node %s is the only one that has a vote", n.Name)
	case c.removed.len() >= MaxRemoved:
		return full("removed nodes", MaxRemoved)
	}
	for t := range c.Targets() {
		if slices.ContainsFunc(t.Portals, func(p Portal) bool { return p.Node == n.Name }) {
			return conflict("take its portals out of the target", "target %s has portals at node %s", t.Name, n.Name)
		}
	}
	return c.mayLeaveSite(n)
}

// Expect guards against changing what somebody else has changed meanwhile.
type Expect struct {
	// IfRevision is the revision that the entry must have; 0: it must not exist; nil:
	// whatever there is.
	IfRevision *uint64 `json:"if_revision,omitempty"`
}

func (e Expect) check(what, name string, revision uint64, found bool) error {
	switch {
	case e.IfRevision == nil:
		return nil
	case *e.IfRevision == 0 && found:
		return conflict("choose another name", "there is a %s %s already", what, name)
	case *e.IfRevision != 0 && !found:
		return notFound(what, name)
	case *e.IfRevision != revision && found:
		return &Error{Code: Changed, Message: fmt.Sprintf("%s %s has been changed meanwhile", what, name), Hint: "look at it again"}
	}
	return nil
}
