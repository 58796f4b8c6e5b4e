package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/twinlun/twinlun/cluster/identity"
)

// Member is a node of the group.
type Member struct {
	Node  string
	Voter bool // else it hears everything, and has no vote
}

// Members are those of the last configuration in this node's log.
func (n *Node) Members() ([]Member, error) {
	f := n.raft().GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, fmt.Errorf("members of the cluster: %w", err)
	}
	var all []Member
	for _, s := range f.Configuration().Servers {
		all = append(all, Member{string(s.ID), s.Suffrage == raft.Voter})
	}
	return all, nil
}

// What is done to a member.
const (
	memberVoter    = 1 // add it, or give it a vote
	memberNonvoter = 2 // add it without a vote, or take its vote
	memberRemove   = 3
)

// SetMember adds a node, or changes whether it has a vote. It returns when a majority,
// the new one, has agreed. It may be done again.
func (n *Node) SetMember(ctx context.Context, m Member) error {
	op := byte(memberNonvoter)
	if m.Voter {
		op = memberVoter
	}
	return n.askMember(ctx, op, m.Node)
}

// RemoveMember takes a node out of the group. It may be done again.
func (n *Node) RemoveMember(ctx context.Context, node string) error {
	return n.askMember(ctx, memberRemove, node)
}

func (n *Node) askMember(ctx context.Context, op byte, node string) error {
	if err := identity.CheckNode(node); err != nil {
		return fmt.Errorf("members of the cluster: %w", err)
	}
	body := append([]byte{op}, node...)
	_, err := n.atLeader(ctx, askMember, body, func() (uint64, error) { return 0, n.changeMember(body) }, nil)
	if err != nil {
		return fmt.Errorf("members of the cluster: %w", err)
	}
	return nil
}

// changeMember changes one member, if this node leads, and no other at the same time:
// each change starts from the configuration that the one before has left. A body is
// what is done, u8, and the node's name.
func (n *Node) changeMember(body []byte) error {
	if len(body) < 2 {
		return errors.New("a change of the members without a node")
	}
	op, node := body[0], string(body[1:])
	if err := identity.CheckNode(node); err != nil {
		return err
	}
	n.changing.Lock()
	defer n.changing.Unlock()
	if err := n.mayChange(op, node); err != nil {
		return err
	}
	e := n.raft()
	f := e.GetConfiguration()
	if err := f.Error(); err != nil {
		return leading(err)
	}
	return leading(e.change(op, node, f.Configuration(), f.Index()))
}

// mayChange asks whether a node may have a vote, now and not when somebody has thought
// so; and has another node lead before this one loses its own.
func (n *Node) mayChange(op byte, node string) error {
	switch {
	case op == memberVoter && n.cfg.Voter != nil:
		if _, err := n.leaderApplied(); err != nil {
			return err
		}
		if !n.cfg.Voter(node) {
			return fmt.Errorf("node %s is not to have a vote", node)
		}
	case op != memberVoter && node == n.cfg.Identity.Name():
		if n.raft().State() == raft.Leader && n.HandOver() == nil {
			return errNotHere
		}
	}
	return nil
}

func (e *engine) change(op byte, node string, now raft.Configuration, at uint64) error {
	id, address := raft.ServerID(node), raft.ServerAddress(node)
	i := slices.IndexFunc(now.Servers, func(s raft.Server) bool { return s.ID == id })
	switch {
	case op == memberVoter:
		return e.await(e.AddVoter(id, address, at, requestTime))
	case op == memberNonvoter && i >= 0 && now.Servers[i].Suffrage == raft.Voter:
		return e.await(e.DemoteVoter(id, at, requestTime))
	case op == memberNonvoter:
		return e.await(e.AddNonvoter(id, address, at, requestTime))
	case op == memberRemove && i < 0:
		return nil
	case op == memberRemove:
		return e.await(e.RemoveServer(id, at, requestTime))
	}
	return fmt.Errorf("a change of the members of kind %d", op)
}
