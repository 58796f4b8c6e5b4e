package member

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twinlun/twinlun/cluster"
	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/identity"
)

// refusalTime is how long a command that seems impossible here waits for the latest
// state, before that is believed.
const refusalTime = 3 * time.Second

// Do has a command carried out by the cluster, and returns when this node's State has
// what it changed. A command that is refused changes nothing and is a *catalog.Error.
// With any other error it is not known whether it was, or will be, carried out. by is for
// the event log: "user eve".
//
// Taking a node's vote, and removing a node, are refused also if the other voters that
// can be reached are no majority.
func (m *Member) Do(ctx context.Context, by string, body catalog.Body) (catalog.Result, error) {
	switch b := body.(type) {
	case *catalog.RemoveNode:
		return m.removeNode(ctx, by, b)
	case *catalog.ChangeNode:
		if b.Voter != nil && !*b.Voter {
			return m.changeVoter(ctx, by, b)
		}
	}
	return m.do(ctx, by, body)
}

func (m *Member) do(ctx context.Context, by string, body catalog.Body) (catalog.Result, error) {
	if err := m.check(ctx, by, body); err != nil {
		return catalog.Result{}, err
	}
	return m.propose(ctx, by, body)
}

// check tells whether a command would be carried out. What is refused may only be
// refused because this node does not know the latest.
func (m *Member) check(ctx context.Context, by string, body catalog.Body) error {
	c := m.command(by, body)
	err := m.State().Check(c)
	if err == nil || m.State().Stopped() != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, refusalTime)
	defer cancel()
	if m.node.Sync(ctx) != nil {
		return err
	}
	return m.State().Check(c)
}

func (m *Member) command(by string, body catalog.Body) catalog.Command {
	return catalog.Command{ID: newUUID(), Time: catalog.StampOf(m.cfg.Now()), By: by, Body: body}
}

// propose has a command applied, and returns its result here.
func (m *Member) propose(ctx context.Context, by string, body catalog.Body) (catalog.Result, error) {
	c := m.command(by, body)
	raw, err := c.Encode()
	if err != nil {
		return catalog.Result{}, &catalog.Error{Code: catalog.Invalid, Message: err.Error()}
	}
	value, err := m.node.Propose(ctx, raw)
	result, _ := value.(catalog.Result)
	if errors.Is(err, cluster.ErrResultUnknown) {
		if outcome, known := m.State().Answer(c.ID); known {
			result, err = catalog.Result{Outcome: outcome, Command: c}, nil
		}
	}
	switch {
	case err != nil:
		return catalog.Result{}, fmt.Errorf("%s: %w", body.Kind(), err)
	case result.Error != nil:
		return result, result.Error
	}
	return result, nil
}

// self is who wants what a node does by itself, for the event log.
func (m *Member) self() string { return "node " + m.id.Name() }

func newUUID() (id catalog.UUID) {
	rand.Read(id[:]) // never fails
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id
}

// NewToken makes a join token, good for one node and for life. Its text is a secret that
// nobody keeps.
func (m *Member) NewToken(ctx context.Context, by string, life time.Duration) (text string, expires time.Time, err error) {
	ca := m.id.Authority()
	if ca == nil {
		return "", expires, errors.New("a witness issues no certificates: make the token at a node with replicas")
	}
	token, err := ca.NewToken(m.issuers(), m.cfg.Now(), life)
	if err != nil {
		return "", expires, &catalog.Error{Code: catalog.Invalid, Message: err.Error()}
	}
	_, err = m.do(ctx, by, &catalog.AddToken{
		Hash: catalog.Hash(token.Secret.Hash(token.Cluster)), Expires: catalog.StampOf(token.Expires),
	})
	if err != nil {
		return "", expires, err
	}
	return token.Text(), token.Expires, nil
}

// issuers are the addresses of nodes that issue certificates: this one's first, as it
// knows the token, and the first one of each other before anybody's second.
func (m *Member) issuers() (all []string) {
	state := m.State()
	self, _ := state.Node(m.Self())
	all = slices.Clone(self.Addresses)
	for i := range identity.MaxAddresses {
		for n := range state.Nodes() {
			if n.Name != self.Name && !n.Witness && !n.GivenUp && i < len(n.Addresses) {
				all = append(all, n.Addresses[i])
			}
		}
	}
	return all[:min(len(all), identity.MaxAddresses)]
}
