package catalog

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/twinlun/twinlun/dirtymap"
)

// LossPolicy says what happens, while a LUN is served alone, to extents whose newest data
// is at the node that is gone.
type LossPolicy string

// The policies.
const (
	Hold       LossPolicy = "hold"        // commands on them end with an error until somebody decides
	ServeStale LossPolicy = "serve-stale" // what is there is served
	Rollback   LossPolicy = "rollback"    // everything goes back to a consistency point; not possible yet
)

// BackingKind says what a replica's bytes are in.
type BackingKind string

// The kinds.
const (
	File  BackingKind = "file"
	Block BackingKind = "block" // a device
)

// Replica is where a node keeps a LUN's bytes.
type Replica struct {
	Node NodeID      `json:"node"`
	Kind BackingKind `json:"kind"`
	Path string      `json:"path"` // absolute, at that node
	// Since is the index of the command that added it. A replica that was removed and is
	// added again is a new one: nothing that its node knows of the old one counts.
	Since uint64 `json:"since,omitempty"`
	// Drained: it is to serve no host, so that it can be removed.
	Drained bool `json:"drained,omitempty"`
}

// Epoch is a time during which the same nodes served a LUN. Its id is random: two nodes
// that begin the same term without knowing of each other make two histories.
type Epoch struct {
	Term uint64 `json:"term"`
	ID   UUID   `json:"id"`
}

// LUN is a logical unit.
type LUN struct {
	ID         UUID       `json:"id"`
	Name       string     `json:"name"`
	Number     uint16     `json:"number"`      // its alone, from 0: how nodes and their devices call it; hosts see that of their mappings
	Size       int64      `json:"size"`        // bytes
	BlockSize  int        `json:"block_size"`  // that hosts see, 512 or 4096 bytes
	ExtentSize int64      `json:"extent_size"` // bytes
	NAA        NAA        `json:"naa"`
	Replicas   []Replica  `json:"replicas"` // two, or one when there is no mirror; by node
	Preferred  NodeID     `json:"preferred"`
	Loss       LossPolicy `json:"loss"`
	ReadOnly   bool       `json:"read_only"`
	Removable  bool       `json:"removable"`
	Revision   uint64     `json:"revision"` // of everything above

	Term    uint64   `json:"term"`    // from 1, higher with each change of Serving
	Serving []NodeID `json:"serving"` // never empty, by name
	Decided uint64   `json:"decided"` // index of the command that made this term
	Join    uint64   `json:"join"`    // number of the replicas' join before both served; 0: none
	Chain   []Epoch  `json:"chain"`   // of terms, the present one last; the newest MaxChain
	Forks   []Epoch  `json:"forks"`   // forced take-overs that came too late; the newest MaxForks
}

// Has tells whether a node has a replica.
func (l *LUN) Has(node NodeID) bool {
	return slices.ContainsFunc(l.Replicas, func(r Replica) bool { return r.Node == node })
}

// Serves tells whether a node is in the serving set.
func (l *LUN) Serves(node NodeID) bool { return slices.Contains(l.Serving, node) }

// Drained tells whether a node is to serve nothing of a LUN, for planned work at the node
// or at this replica.
func (s *State) Drained(l *LUN, node NodeID) bool {
	n, _ := s.Node(node)
	return n.Drained || slices.ContainsFunc(l.Replicas, func(r Replica) bool { return r.Node == node && r.Drained })
}

// Alone tells whether a node serves alone.
func (l *LUN) Alone(node NodeID) bool { return len(l.Serving) == 1 && l.Serving[0] == node }

// Other is the node with the other replica; "": there is none.
func (l *LUN) Other(node NodeID) NodeID {
	for _, r := range l.Replicas {
		if r.Node != node {
			return r.Node
		}
	}
	return ""
}

// Descends tells whether a replica whose last term is this one is one of this LUN's:
// forked if it is from a forced take-over that came too late, so that its data is not
// what is served. false, false: it is foreign, or has been away for more than MaxChain
// terms.
func (l *LUN) Descends(e Epoch) (known, forked bool) {
	if slices.Contains(l.Forks, e) {
		return true, true
	}
	return slices.Contains(l.Chain, e), false
}

// LUN is a LUN by id.
func (s *State) LUN(id UUID) (LUN, bool) { return s.luns.get(id.key()) }

// LUNNamed is a LUN by name.
func (s *State) LUNNamed(name string) (LUN, bool) {
	id, found := s.lunNames.get(name)
	if !found {
		return LUN{}, false
	}
	return s.LUN(id)
}

// LUNs are all LUNs, by id.
func (s *State) LUNs() iter.Seq[LUN] { return s.luns.values("") }

func (l *LUN) check() error {
	if err := checkName("name", l.Name); err != nil {
		return err
	}
	geometry := dirtymap.Geometry{Size: l.Size, ExtentSize: l.ExtentSize}
	if err := geometry.Check(); err != nil {
		return invalid("size", "%v", err)
	}
	switch {
	case l.ID.zero():
		return invalid("id", "is all zeros")
	case l.BlockSize != 512 && l.BlockSize != 4096:
		return invalid("block_size", "%d: it is 512 or 4096", l.BlockSize)
	case !l.Has(l.Preferred):
		return invalid("preferred", "node %.70q has no replica of it", l.Preferred)
	}
	if err := l.Loss.check(); err != nil {
		return err
	}
	return l.NAA.check()
}

func (p LossPolicy) check() error {
	switch p {
	case Hold, ServeStale:
		return nil
	case Rollback:
		return &Error{Code: Unsupported, Field: "loss", Message: "rollback is not possible yet", Hint: "use hold or serve-stale"}
	}
	return invalid("loss", "%.20q is none of hold, serve-stale", p)
}

// check takes the forms of SPC-4 7.8.6.6: type 6 has 16 bytes, 3 and 5 have 8.
func (n NAA) check() error {
	kind := n[0] >> 4
	short := kind == 3 || kind == 5
	if kind != 6 && !short || short && [8]byte(n[8:]) != [8]byte{} {
		return invalid("naa", "%v: it begins with 6, or with 3 or 5 and has eight zero bytes at its end", n)
	}
	return nil
}

func (s *State) checkReplicas(replicas []Replica) error {
	if len(replicas) == 0 || len(replicas) > 2 {
		return invalid("replicas", "a LUN has one or two, not %d", len(replicas))
	}
	sites := map[string]bool{}
	for _, r := range replicas {
		if err := r.check(); err != nil {
			return err
		}
		n, found := s.Node(r.Node)
		switch {
		case !found:
			return notFound("node", string(r.Node))
		case n.Witness:
			return conflict("choose a node with disks", "node %s is a witness", r.Node)
		case sites[n.Site]:
			return conflict("choose a node at another site", "both replicas would be at site %s", n.Site)
		}
		sites[n.Site] = true
	}
	return nil
}

func (r *Replica) check() error {
	switch {
	case r.Kind != File && r.Kind != Block:
		return invalid("replicas", "kind %.20q is neither file nor block", r.Kind)
	case !strings.HasPrefix(r.Path, "/") || strings.HasSuffix(r.Path, "/"):
		return invalid("replicas", "path %.80q is not the absolute path of a file or device", r.Path)
	}
	return checkText("replicas", r.Path, maxPath)
}

// fileKey is where a replica stands in the table of files.
func (r *Replica) fileKey() string { return pair(string(r.Node), r.Path) }

// taken checks that what only one LUN may have is not that of another.
func (c *change) taken(l *LUN) error {
	if id, found := c.lunNames.get(l.Name); found && id != l.ID {
		return conflict("choose another name", "there is a LUN %s already", l.Name)
	}
	if id, found := c.naas.get(string(l.NAA[:])); found && id != l.ID {
		return conflict("hosts would take them for one", "LUN %v has the NAA identifier %v", id, l.NAA)
	}
	for _, r := range l.Replicas {
		if id, found := c.files.get(r.fileKey()); found && id != l.ID {
			return conflict("each replica has a file or device of its own", "%s at node %s is that of LUN %v", r.Path, r.Node, id)
		}
	}
	return nil
}

// putLUN stores a LUN in place of what it was.
func (c *change) putLUN(l LUN) {
	if old, found := c.LUN(l.ID); found {
		c.dropLUN(&old)
	}
	c.luns.set(l.ID.key(), l)
	c.lunNames.set(l.Name, l.ID)
	c.naas.set(string(l.NAA[:]), l.ID)
	for _, r := range l.Replicas {
		c.files.set(r.fileKey(), l.ID)
	}
}

func (c *change) dropLUN(l *LUN) {
	c.luns.drop(l.ID.key())
	c.lunNames.drop(l.Name)
	c.naas.drop(string(l.NAA[:]))
	for _, r := range l.Replicas {
		c.files.drop(r.fileKey())
	}
}

func byNode(a, b Replica) int { return strings.Compare(string(a.Node), string(b.Node)) }

// AddLUN makes a LUN. Its replicas serve from the first term on, as soon as they are
// joined.
type AddLUN struct {
	ID         UUID       `json:"id"`
	Name       string     `json:"name"`
	Size       int64      `json:"size"`
	BlockSize  int        `json:"block_size"`
	ExtentSize int64      `json:"extent_size"`
	NAA        NAA        `json:"naa"`
	Replicas   []Replica  `json:"replicas"`
	Preferred  NodeID     `json:"preferred"`
	Loss       LossPolicy `json:"loss"`
	ReadOnly   bool       `json:"read_only"`
	Removable  bool       `json:"removable"`
	Epoch      UUID       `json:"epoch"` // random
}

// Kind is "add-lun".
func (*AddLUN) Kind() string { return "add-lun" }

func (b *AddLUN) apply(c *change) error {
	l := LUN{
		ID: b.ID, Name: b.Name, Size: b.Size, BlockSize: b.BlockSize, ExtentSize: b.ExtentSize, NAA: b.NAA,
		Replicas: slices.SortedFunc(slices.Values(b.Replicas), byNode), Preferred: b.Preferred, Loss: b.Loss,
		ReadOnly: b.ReadOnly, Removable: b.Removable, Revision: c.index,
		Term: 1, Decided: c.index, Chain: []Epoch{{1, b.Epoch}},
	}
	l.Number = uint16(free(c.LUNs(), 0, func(l LUN) int { return int(l.Number) }))
	for i := range l.Replicas {
		r := &l.Replicas[i]
		r.Since, r.Drained = c.index, false
		l.Serving = append(l.Serving, r.Node)
	}
	if err := c.checkReplicas(l.Replicas); err != nil {
		return err
	}
	if err := c.notGivenUp(l.Replicas...); err != nil {
		return err
	}
	if err := l.check(); err != nil {
		return err
	}
	switch {
	case b.Epoch.zero():
		return invalid("epoch", "is all zeros")
	case c.luns.has(l.ID.key()):
		return conflict("", "there is a LUN %v already", l.ID)
	case c.luns.len() >= MaxLUNs:
		return full("LUNs", MaxLUNs)
	}
	if err := c.taken(&l); err != nil {
		return err
	}
	c.core.Decided = c.index
	c.putLUN(l)
	c.note(LUNChanged{LUN: l.ID})
	c.note(ServingChanged{l.ID})
	c.log(Info, "LUN "+l.Name, "was made, of %d bytes, with replicas at %s", l.Size, nodesOf(l.Replicas))
	return nil
}

func nodesOf(replicas []Replica) string {
	var names []string
	for _, r := range replicas {
		names = append(names, string(r.Node))
	}
	return strings.Join(names, " and ")
}

// ChangeLUN changes what is given of a LUN.
type ChangeLUN struct {
	Expect
	ID        UUID        `json:"id"`
	Name      *string     `json:"name,omitempty"`
	Size      *int64      `json:"size,omitempty"` // it can grow
	Preferred *NodeID     `json:"preferred,omitempty"`
	Loss      *LossPolicy `json:"loss,omitempty"`
	ReadOnly  *bool       `json:"read_only,omitempty"`
	Removable *bool       `json:"removable,omitempty"`
}

// Kind is "change-lun".
func (*ChangeLUN) Kind() string { return "change-lun" }

func (b *ChangeLUN) apply(c *change) error {
	l, found := c.LUN(b.ID)
	if err := b.check("LUN", b.ID.String(), l.Revision, found); err != nil {
		return err
	}
	if !found {
		return notFound("LUN", b.ID.String())
	}
	if b.Size != nil && *b.Size < l.Size {
		return conflict("make a smaller one and copy what is needed", "LUN %s has %d bytes, and cannot shrink to %d", l.Name, l.Size, *b.Size)
	}
	replace(&l.Name, b.Name)
	replace(&l.Size, b.Size)
	replace(&l.Preferred, b.Preferred)
	replace(&l.Loss, b.Loss)
	replace(&l.ReadOnly, b.ReadOnly)
	replace(&l.Removable, b.Removable)
	l.Revision = c.index
	if err := l.check(); err != nil {
		return err
	}
	if err := c.taken(&l); err != nil {
		return err
	}
	c.putLUN(l)
	c.note(LUNChanged{LUN: l.ID})
	c.log(Info, "LUN "+l.Name, "changed: %d bytes, preferred node %s, loss policy %s, read only %t, removable %t",
		l.Size, l.Preferred, l.Loss, l.ReadOnly, l.Removable)
	return nil
}

// RemoveLUN removes a LUN that no host is given. Its replicas stay on the nodes' disks.
type RemoveLUN struct {
	ID UUID `json:"id"`
}

// Kind is "remove-lun".
func (*RemoveLUN) Kind() string { return "remove-lun" }

func (b *RemoveLUN) apply(c *change) error {
	l, found := c.LUN(b.ID)
	if !found {
		return notFound("LUN", b.ID.String())
	}
	if n := count(c.uses.values(b.ID.key())); n > 0 {
		return conflict("unmap it first", "LUN %s is mapped %d times", l.Name, n)
	}
	c.dropLUN(&l)
	c.reservations.drop(l.ID.key())
	c.note(LUNChanged{LUN: l.ID, Removed: true})
	c.log(Warning, "LUN "+l.Name, "was removed; its replicas are still on the disks of %s", nodesOf(l.Replicas))
	return nil
}

// AddReplica makes a LUN with one replica a mirror. The new one does not serve before it
// is joined.
type AddReplica struct {
	LUN     UUID    `json:"lun"`
	Replica Replica `json:"replica"`
}

// Kind is "add-replica".
func (*AddReplica) Kind() string { return "add-replica" }

func (b *AddReplica) apply(c *change) error {
	l, found := c.LUN(b.LUN)
	switch {
	case !found:
		return notFound("LUN", b.LUN.String())
	case len(l.Replicas) != 1:
		return conflict("remove one first", "LUN %s has two replicas", l.Name)
	}
	add := b.Replica
	add.Since, add.Drained = c.index, false
	l.Replicas = append(slices.Clone(l.Replicas), add)
	slices.SortFunc(l.Replicas, byNode)
	l.Revision = c.index
	if err := c.checkReplicas(l.Replicas); err != nil {
		return err
	}
	if err := c.notGivenUp(add); err != nil {
		return err
	}
	if err := c.taken(&l); err != nil {
		return err
	}
	c.putLUN(l)
	c.note(LUNChanged{LUN: l.ID})
	c.log(Info, "LUN "+l.Name, "gets a replica at node %s", b.Replica.Node)
	return nil
}

// DrainReplica has a node leave a LUN to the node with the other replica, or takes that
// back.
type DrainReplica struct {
	LUN     UUID   `json:"lun"`
	Node    NodeID `json:"node"`
	Drained bool   `json:"drained"`
}

// Kind is "drain-replica".
func (*DrainReplica) Kind() string { return "drain-replica" }

func (b *DrainReplica) apply(c *change) error {
	l, found := c.LUN(b.LUN)
	i := slices.IndexFunc(l.Replicas, func(r Replica) bool { return r.Node == b.Node })
	switch {
	case !found:
		return notFound("LUN", b.LUN.String())
	case i < 0:
		return notFound(fmt.Sprintf("replica of LUN %s at node", l.Name), string(b.Node))
	case l.Replicas[i].Drained == b.Drained:
		return nil
	case b.Drained && len(l.Replicas) == 1:
		return conflict("mirror the LUN first", "it is the only replica of LUN %s", l.Name)
	case b.Drained && c.Drained(&l, l.Other(b.Node)):
		return conflict("have the other one serve again first", "the other replica of LUN %s, at node %s, is drained", l.Name, l.Other(b.Node))
	}
	l.Replicas, l.Revision = slices.Clone(l.Replicas), c.index
	l.Replicas[i].Drained = b.Drained
	c.putLUN(l)
	c.note(LUNChanged{LUN: l.ID})
	c.log(Warning, "LUN "+l.Name, "its replica at node %s %s", b.Node, map[bool]string{true: "is drained: it is to serve no host", false: "is to serve again"}[b.Drained])
	return nil
}

// RemoveReplica makes a mirrored LUN one with a single replica. The replica that goes
// must not be serving.
type RemoveReplica struct {
	LUN  UUID   `json:"lun"`
	Node NodeID `json:"node"`
}

// Kind is "remove-replica".
func (*RemoveReplica) Kind() string { return "remove-replica" }

func (b *RemoveReplica) apply(c *change) error {
	l, found := c.LUN(b.LUN)
	switch {
	case !found:
		return notFound("LUN", b.LUN.String())
	case !l.Has(b.Node):
		return notFound(fmt.Sprintf("replica of LUN %s at node", l.Name), string(b.Node))
	case len(l.Replicas) == 1:
		return conflict("remove the LUN, if that is what you want", "it is the only replica of LUN %s", l.Name)
	case l.Serves(b.Node):
		return conflict("take it out of service first: drain it (twinlun lun replica drain), or if it is lost let the other node take over", "node %s serves LUN %s", b.Node, l.Name)
	}
	other := l.Other(b.Node)
	l.Replicas = slices.DeleteFunc(slices.Clone(l.Replicas), func(r Replica) bool { return r.Node == b.Node })
	l.Replicas[0].Drained = false // nobody else is left
	l.Preferred, l.Revision = other, c.index
	c.putLUN(l)
	c.note(LUNChanged{LUN: l.ID})
	c.log(Warning, "LUN "+l.Name, "is not mirrored any more: its replica at node %s was removed", b.Node)
	return nil
}
