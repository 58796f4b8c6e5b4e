package member

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twinlun/twinlun/cluster"
	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/transport"
)

// Recovery is what it would mean to make a new group at this node, without a majority.
type Recovery struct {
	GiveUp []Lost           // nodes that do not answer; by name
	Stay   []catalog.NodeID // nodes that do
	Heard  time.Time        // when one that took part was last heard of; zero: not since this node was started

	// The last command of which this node knows that it was agreed upon, and when that was, by
	// another's clock. What was agreed upon since is lost.
	Applied   uint64
	AppliedAt time.Time // zero: not known

	Refusal error // why it is not to be done, a *catalog.Error; nil: it can be
}

// Lost is a node that is to be given up.
type Lost struct {
	Name    catalog.NodeID
	Witness bool
	Heard   time.Time // by raft; zero: not since this node was started, or not directly
}

// Names are those of the nodes that are given up.
func (r *Recovery) Names() (all []catalog.NodeID) {
	for _, n := range r.GiveUp {
		all = append(all, n.Name)
	}
	return all
}

// majorityTime is how long a majority may take to agree on something before there is none:
// longer than it takes to agree on a leader.
const majorityTime = 5 * time.Second

// Recovery looks who is there, and tells what Recover would do.
func (m *Member) Recovery(ctx context.Context) (r Recovery) {
	p := m.probe(ctx)
	state := m.State()
	for n := range state.Nodes() {
		_, there := p.applied[n.Name]
		switch {
		case n.Name == m.Self() || n.GivenUp:
		case there:
			r.Stay = append(r.Stay, n.Name)
		default:
			r.GiveUp = append(r.GiveUp, Lost{n.Name, n.Witness, m.node.Heard(string(n.Name))})
		}
	}
	for n := range state.Nodes() {
		if at := m.node.Heard(string(n.Name)); at.After(r.Heard) {
			r.Heard = at
		}
	}
	r.Applied, r.AppliedAt = m.node.Applied(), m.node.AppliedTime()
	r.Refusal = m.mayRecover(p)
	return r
}

// probed is who has answered this node, and how.
type probed struct {
	mu       sync.Mutex
	majority bool                      // one has agreed on something just now
	applied  map[catalog.NodeID]uint64 // of each node that has answered
	refused  []string                  // nodes that refuse this one
}

// probe asks all other nodes, one by one and together. It takes its time: one that is just
// being started anew must not be given up.
func (m *Member) probe(ctx context.Context) *probed {
	ctx, cancel := context.WithTimeout(ctx, majorityTime)
	defer cancel()
	p := &probed{applied: map[catalog.NodeID]uint64{}}
	var all sync.WaitGroup
	all.Go(func() {
		err := m.Sync(ctx)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.majority = err == nil
	})
	for n := range m.State().Nodes() {
		if n.Name != m.Self() && !n.GivenUp {
			all.Go(func() { m.ask(ctx, n.Name, p) })
		}
	}
	all.Wait()
	slices.Sort(p.refused)
	return p
}

// probePause is between two questions to a node that does not answer.
const probePause = 200 * time.Millisecond

// ask asks one node until it answers, or ctx ends.
func (m *Member) ask(ctx context.Context, node catalog.NodeID, p *probed) {
	for ctx.Err() == nil {
		at, err := m.node.AppliedAt(ctx, string(node))
		if p.note(node, at, err) {
			return
		}
		select {
		case <-time.After(probePause):
		case <-ctx.Done():
		}
	}
}

// note takes in what has come of a question; false: nothing.
func (p *probed) note(node catalog.NodeID, at uint64, err error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	refused := errors.Is(err, transport.ErrRefused)
	switch {
	case err == nil:
		p.applied[node] = at
	case refused:
		p.refused = append(p.refused, string(node))
	}
	return err == nil || refused
}

// mayRecover is why no new group is to be made at this node; nil: it may be.
func (m *Member) mayRecover(p *probed) error {
	self, known := m.State().Node(m.Self())
	switch {
	case m.Witness():
		return conflict("recover it at a node with replicas; if none is left, make a new cluster", "node %s is a witness: it has no key of the cluster's authority, so no node could ever join what it begins", m.Self())
	case m.State().Stopped() != nil:
		return conflict("start a newer program at this node first", "node %s does not know what its log says: %v", m.Self(), m.State().Stopped())
	case p.majority:
		return conflict("", "a majority of the nodes is there, and can agree on everything")
	case len(p.refused) > 0:
		return conflict("their logs say why", "this node is refused by %s: it may have been removed, or given up by a recovery there", strings.Join(p.refused, ", "))
	case !known || self.GivenUp:
		return conflict("", "node %s does not belong to the cluster", m.Self())
	}
	if err := m.noMajority(p); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(p.applied)) {
		if at := p.applied[name]; at > m.node.Applied() {
			return conflict("recover it at that node; or stop that node first, which gives it up", "node %s has more than this one: entry %d of the log, and here is %d", name, at, m.node.Applied())
		}
	}
	return nil
}

// noMajority checks that those who answer are too few.
func (m *Member) noMajority(p *probed) error {
	members, err := m.node.Members()
	if err != nil {
		return err
	}
	voters, there := 0, 0
	for _, o := range members {
		if !o.Voter {
			continue
		}
		voters++
		if _, answers := p.applied[catalog.NodeID(o.Node)]; answers || o.Node == string(m.Self()) {
			there++
		}
	}
	if there > voters/2 {
		return conflict("they agree on a leader within seconds; if they do not, their logs say why", "%d of %d nodes with a vote are there, and need no recovery", there, voters)
	}
	return nil
}

func conflict(hint, format string, args ...any) error {
	return &catalog.Error{Code: catalog.Conflict, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// Recover makes a new group at this node, without a majority: for an operator who has made
// sure that the nodes which do not answer are off for good. giveUp are those that he has been
// told of: with others nothing is done. They are refused from then on.
func (m *Member) Recover(ctx context.Context, by string, giveUp []catalog.NodeID) error {
	r := m.Recovery(ctx)
	if r.Refusal != nil {
		return r.Refusal
	}
	if now := r.Names(); !slices.Equal(now, slices.Sorted(slices.Values(giveUp))) {
		return &catalog.Error{Code: catalog.Changed, Hint: "look at it again", Message: fmt.Sprintf("the nodes that do not answer are %v now, and not %v", now, giveUp)}
	}
	m.cfg.Log.Warn("an operator has this node make a new group without a majority", "by", by, "gives up", r.Names(), "stay", r.Stay, "entry", r.Applied)
	result, err := m.node.Recover(cluster.Recovery{Stay: namesOf(r.Stay), Command: func(pending iter.Seq2[uint64, []byte]) ([]byte, error) {
		return m.recoverCommand(by, r.Names(), pending)
	}})
	if err != nil {
		return fmt.Errorf("recover the cluster: %w", err)
	}
	if r, is := result.(catalog.Result); is && r.Error != nil {
		return r.Error
	}
	return m.recovered(ctx, r.Stay)
}

// recoverCommand is checked against the state in which it will be applied.
func (m *Member) recoverCommand(by string, giveUp []catalog.NodeID, pending iter.Seq2[uint64, []byte]) ([]byte, error) {
	state := m.State()
	for index, raw := range pending {
		var err error
		if state, _, err = state.Apply(index, raw); err != nil {
			return nil, err
		}
	}
	c := m.command(by, &catalog.RecoverCluster{Node: m.Self(), GiveUp: giveUp})
	if err := state.Check(c); err != nil {
		return nil, err
	}
	return c.Encode()
}

// recovered returns when this node leads the new group, and those that stay know of it, or
// it is told that they do not.
func (m *Member) recovered(ctx context.Context, stay []catalog.NodeID) error {
	if err := m.Sync(ctx); err != nil {
		return err
	}
	m.cfg.Log.Warn("this node leads a new group; the nodes that were given up are refused", "recovery", m.State().Recoveries())
	if late := m.missing(ctx, membersOf(stay), m.node.Applied()); len(late) > 0 {
		m.cfg.Log.Warn("these nodes do not know of the new group yet; they hear of it as soon as they are reached", "names", late)
	}
	return nil
}

func membersOf(nodes []catalog.NodeID) (all []cluster.Member) {
	for _, n := range nodes {
		all = append(all, cluster.Member{Node: string(n)})
	}
	return all
}

func namesOf(nodes []catalog.NodeID) (all []string) {
	for _, n := range nodes {
		all = append(all, string(n))
	}
	return all
}
