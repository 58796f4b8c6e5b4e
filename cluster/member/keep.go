package member

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twinlun/twinlun/cluster"
	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/transport"
)

const (
	// keepLook is how often keep looks by itself: for what has failed before.
	keepLook = 5 * time.Second
	// keepTime bounds one step of it: what a node may take for another one.
	keepTime = 10 * time.Second
	// catchUpTime is how long a node may take to show that it has the log, before it gets
	// a vote; the next look asks again.
	catchUpTime = 3 * time.Second
)

// keep is the one goroutine that brings into line, whenever something has changed, what
// must agree by and by: the raft group's members with the catalog's nodes, and the
// catalog with what nodes know. It runs as long as the member.
func (m *Member) keep() {
	look := time.NewTicker(keepLook)
	defer look.Stop()
	for {
		if err := m.look(); err != nil && m.ctx.Err() == nil {
			m.cfg.Log.Warn("the members of the cluster are not as they should be; it is tried again", "error", err)
		}
		select {
		case <-m.kick:
		case <-look.C:
		case <-m.ctx.Done():
			return
		}
	}
}

func (m *Member) look() error {
	leader := m.node.Leader()
	m.leadership.note(leader == m.id.Name(), time.Now())
	switch leader {
	case "":
		m.noticeRefusal()
		return nil
	case m.id.Name():
		err := errors.Join(m.lead(), m.announce())
		if err == nil {
			m.letWitnessLead()
		}
		return err
	}
	return m.announce()
}

// announce tells the cluster which commands this node's program knows.
func (m *Member) announce() error {
	n, found := m.State().Node(m.Self())
	version := catalog.Version
	if !found || n.Version == version || m.State().Version() > version {
		return nil
	}
	ctx, cancel := context.WithTimeout(m.ctx, keepTime)
	defer cancel()
	_, err := m.do(ctx, m.self(), &catalog.ChangeNode{Name: m.Self(), Version: &version})
	return err
}

// lead has the raft group follow the catalog. If there is something to do, what is
// committed is applied before: a leader that has just been elected may have members of
// which its catalog knows nothing yet. If there is nothing, the cluster is left in peace.
func (m *Member) lead() error {
	if todo, err := m.todo(); len(todo) == 0 {
		return errors.Join(err, m.raise())
	}
	ctx, cancel := context.WithTimeout(m.ctx, keepTime)
	defer cancel()
	if err := m.node.Sync(ctx); err != nil {
		return err
	}
	todo, err := m.todo()
	errs := []error{err}
	for _, s := range todo {
		errs = append(errs, m.take(s))
	}
	return errors.Join(append(errs, m.raise())...)
}

func (m *Member) todo() ([]step, error) {
	members, err := m.node.Members()
	if err != nil {
		return nil, err
	}
	return steps(m.State(), members), nil
}

// step is a change of the raft group.
type step struct {
	member cluster.Member
	remove bool
	first  bool // it is new in the group
}

// steps are what is to be done so that the raft group is as the catalog has it. A node
// comes without a vote: one that is not there yet would be missing in a majority. Only
// nodes that were removed from the catalog, or given up, are taken out; of others, before the
// first command, it knows nothing.
func steps(s *catalog.State, members []cluster.Member) (all []step) {
	has := map[string]cluster.Member{}
	for _, member := range members {
		has[member.Node] = member
	}
	for n := range s.Nodes() {
		member, found := has[string(n.Name)]
		if n.GivenUp {
			if found {
				all = append(all, step{member: member, remove: true})
			}
			continue
		}
		if !found {
			all = append(all, step{member: cluster.Member{Node: string(n.Name)}, first: true})
		}
		if member.Voter != n.Voter {
			all = append(all, step{member: cluster.Member{Node: string(n.Name), Voter: n.Voter}})
		}
	}
	for n := range s.RemovedNodes() {
		if member, found := has[string(n.Name)]; found {
			all = append(all, step{member: member, remove: true})
		}
	}
	return all
}

func (m *Member) take(s step) error {
	ctx, cancel := context.WithTimeout(m.ctx, keepTime)
	defer cancel()
	switch {
	case s.remove:
		return m.node.RemoveMember(ctx, s.member.Node)
	case s.member.Voter && !m.caughtUp(ctx, s.member.Node):
		return fmt.Errorf("node %s gets no vote yet: it has not caught up", s.member.Node)
	}
	err := m.node.SetMember(ctx, s.member)
	if err == nil && !s.first {
		m.cfg.Log.Info("a node's vote was changed", "name", s.member.Node, "votes", s.member.Voter)
	}
	return err
}

// caughtUp tells whether a node has what was applied here when it was asked.
func (m *Member) caughtUp(ctx context.Context, node string) bool {
	ctx, cancel := context.WithTimeout(ctx, catchUpTime)
	defer cancel()
	return m.node.PeerApplied(ctx, node, m.node.Applied()) == nil
}

// raise lets newer commands be used when all nodes know them.
func (m *Member) raise() error {
	version := commonVersion(m.State())
	if version <= m.State().Version() {
		return nil
	}
	ctx, cancel := context.WithTimeout(m.ctx, keepTime)
	defer cancel()
	_, err := m.do(ctx, m.self(), &catalog.RaiseVersion{Version: version})
	return err
}

// commonVersion is that of the commands that all nodes know.
func commonVersion(s *catalog.State) (version int) {
	for n := range s.Nodes() {
		if !n.GivenUp && (version == 0 || n.Version < version) {
			version = n.Version
		}
	}
	return version
}

// refusedEvery is how often a node that nobody talks to any more says so.
const refusedEvery = 10 * time.Minute

// noticeRefusal looks, while nobody leads, whether that is because the others refuse
// this node: one that was removed hears no more, not even of that.
func (m *Member) noticeRefusal() {
	if time.Since(m.refused) < refusedEvery && !m.refused.IsZero() {
		return
	}
	if err := m.refusal(); err != nil {
		m.refused = time.Now()
		m.cfg.Log.Error("the cluster does not talk to this node any longer: if it was removed, or given up by a recovery, stop it, and join it anew with an empty folder and another name", "error", err)
	}
}

// refusal is why this node is out; nil: it is not, or nobody is there to say so.
func (m *Member) refusal() error {
	state := m.State()
	if _, removed := state.RemovedNode(m.Self()); removed {
		return errors.New("it was removed from the cluster")
	}
	for n := range state.Nodes() {
		if n.Name == m.Self() {
			continue
		}
		ctx, cancel := context.WithTimeout(m.ctx, catchUpTime)
		c, err := m.port.Dial(ctx, string(n.Name), transport.Cluster)
		cancel()
		if err == nil {
			c.Close()
			return nil
		}
		if errors.Is(err, transport.ErrRefused) {
			return err
		}
	}
	return nil
}
