package member

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twinlun/twinlun/cluster"
	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/identity"
)

// allowed is the table in the identity package's DESIGN.md.
func (m *Member) allowed(p identity.Peer) error {
	state, name, key := m.State(), catalog.NodeID(p.Node), catalog.Hash(p.Key)
	if _, removed := state.RemovedNode(name); removed || state.KeyRefused(key) {
		return errors.New("it was removed from the cluster")
	}
	switch n, known := state.Node(name); {
	case known && n.Key != key:
		return errors.New("it has another key than the cluster's node of this name")
	case known && n.GivenUp:
		return errors.New("it was given up when the cluster was recovered without it: stop it for good, or join it anew with an empty folder and another name")
	}
	return nil
}

func (m *Member) addresses(node string) []string {
	if r := m.cfg.Routes[node]; len(r) > 0 {
		return r
	}
	n, _ := m.State().Node(catalog.NodeID(node))
	return n.Addresses
}

// mayVote is the catalog's word on a node that is about to get a vote.
func (m *Member) mayVote(node string) bool {
	n, known := m.State().Node(catalog.NodeID(node))
	return known && n.Voter
}

// admission is the cluster's list of tokens and nodes, for the Issuer.
type admission struct{ *Member }

// maxVoters is how many nodes with replicas get a vote when they come: each further one
// makes every command wait for more of them. Witnesses always get one.
const maxVoters = 6

// Admit implements identity.Admission.
func (m admission) Admit(ctx context.Context, token identity.TokenHash, r *identity.JoinRequest) error {
	state, hash := m.State(), catalog.Hash(token)
	if _, known := state.Token(hash); !known {
		return identity.ErrTokenUnknown
	}
	_, err := m.do(ctx, m.self(), &catalog.AdmitNode{Token: hash, Node: catalog.NewNode{
		Name: catalog.NodeID(r.Node), Site: r.Site, Addresses: r.Addresses, Key: catalog.Hash(r.Key()),
		Witness: r.Witness, Voter: r.Witness || voters(state) < maxVoters, Version: r.Commands,
	}})
	if err == nil {
		m.cfg.Log.Info("a node was admitted to the cluster", "name", r.Node, "site", r.Site, "witness", r.Witness)
		return nil
	}
	if open := admissionErrors[catalog.CodeOf(err)]; open != nil {
		return fmt.Errorf("%w (%w)", open, err)
	}
	return err
}

var admissionErrors = map[catalog.Code]error{
	catalog.NoToken: identity.ErrTokenUnknown, catalog.TokenUsed: identity.ErrTokenUsed, catalog.TokenOld: identity.ErrTokenExpired,
	catalog.NameTaken: identity.ErrNodeTaken, catalog.Unsupported: identity.ErrNodeTooOld,
}

func voters(s *catalog.State) (n int) {
	for node := range s.Nodes() {
		if node.Voter && !node.Witness {
			n++
		}
	}
	return n
}

// RemoveNode removes a node for good: its connections end, and its certificate, name and
// key are refused from then on. If it is interrupted it can be done again.
func (m *Member) RemoveNode(ctx context.Context, by, name string) error {
	_, err := m.Do(ctx, by, &catalog.RemoveNode{Name: catalog.NodeID(name)})
	return err
}

// removeNode takes a node's vote, in the catalog and then in the raft group, before the
// catalog has it refused: see DESIGN.md. The raft group then follows.
func (m *Member) removeNode(ctx context.Context, by string, b *catalog.RemoveNode) (r catalog.Result, err error) {
	if b.Name == m.Self() {
		return r, &catalog.Error{Code: catalog.Conflict, Message: fmt.Sprintf("node %s cannot remove itself", b.Name), Hint: "have another node do it"}
	}
	if _, gone := m.State().RemovedNode(b.Name); gone {
		return r, nil // an attempt before was interrupted
	}
	if err := m.check(ctx, by, b); err != nil {
		return r, err
	}
	if err := m.majorityWithout(ctx, string(b.Name)); err != nil {
		return r, err
	}
	n, _ := m.State().Node(b.Name)
	if err := m.takeVote(ctx, by, n); err != nil {
		return r, err
	}
	r, err = m.propose(ctx, by, b)
	if r.Error != nil && n.Voter { // what it stands on has changed since check
		vote := true
		_, back := m.propose(ctx, m.self(), &catalog.ChangeNode{Name: b.Name, Voter: &vote})
		err = errors.Join(err, back)
	}
	return r, err
}

func (m *Member) takeVote(ctx context.Context, by string, n catalog.Node) error {
	if n.Voter {
		vote := false
		if _, err := m.propose(ctx, by, &catalog.ChangeNode{Name: n.Name, Voter: &vote}); err != nil {
			return err
		}
	}
	members, err := m.node.Members()
	if err != nil || !slices.ContainsFunc(members, func(o cluster.Member) bool { return o.Node == string(n.Name) }) {
		return err
	}
	return m.node.SetMember(ctx, cluster.Member{Node: string(n.Name)})
}

func (m *Member) changeVoter(ctx context.Context, by string, b *catalog.ChangeNode) (r catalog.Result, err error) {
	if err := m.check(ctx, by, b); err != nil {
		return r, err
	}
	if err := m.majorityWithout(ctx, string(b.Name)); err != nil {
		return r, err
	}
	return m.propose(ctx, by, b)
}

// reachTime is how long a voter may take to show that it is there.
const reachTime = 3 * time.Second

// majorityWithout checks that the raft group can go on without a node's vote: a majority
// of the other voters is there.
func (m *Member) majorityWithout(ctx context.Context, node string) error {
	members, err := m.node.Members()
	if err != nil {
		return err
	}
	members = slices.DeleteFunc(members, func(o cluster.Member) bool { return !o.Voter || o.Node == node })
	missing := m.missing(ctx, members, 0)
	there, needed := len(members)-len(missing), len(members)/2+1
	if there >= needed {
		return nil
	}
	e := &catalog.Error{Code: catalog.Conflict, Hint: "bring these back first: " + strings.Join(missing, ", "),
		Message: fmt.Sprintf("without the vote of node %s the cluster could decide nothing: %d of the %d other voters are reached, and %d are needed", node, there, len(members), needed)}
	if len(missing) == 0 {
		e.Hint = "let another node vote first"
	}
	return e
}

// missing are the members that are not reached, or have not applied the log up to an index.
func (m *Member) missing(ctx context.Context, members []cluster.Member, index uint64) (names []string) {
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	var all sync.WaitGroup
	away := make([]bool, len(members))
	for i, o := range members {
		all.Go(func() { away[i] = m.node.PeerApplied(ctx, o.Node, index) != nil })
	}
	all.Wait()
	for i, o := range members {
		if away[i] {
			names = append(names, o.Node)
		}
	}
	return names
}
