// Package solo is what the API is tried with: a node whose cluster is the real catalog in
// one process, without others that have to agree, and without LUNs that are served.
package solo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cluster"
	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/identity"
	"github.com/twinlun/twinlun/cluster/member"
	"github.com/twinlun/twinlun/webui/api"
	"github.com/twinlun/twinlun/webui/client"
)

// Secret is the text of each join token, whose hash is TokenHash.
const Secret = "the secret"

// TokenHash is that of each join token.
var TokenHash = catalog.Hash{1}

// Group is the cluster.
type Group struct {
	now func() time.Time

	mu      sync.Mutex
	self    catalog.NodeID
	state   *catalog.State
	changed chan struct{}
}

// Self implements api.Cluster.
func (g *Group) Self() catalog.NodeID { return g.self }

// Leader implements api.Cluster.
func (g *Group) Leader() string { return string(g.self) }

// Members implements api.Cluster.
func (g *Group) Members() ([]cluster.Member, error) {
	return []cluster.Member{{Node: string(g.self), Voter: true}}, nil
}

// Seal implements api.Cluster. As with a real one the same secret looks different each time.
func (g *Group) Seal(secret []byte) ([]byte, error) {
	return append([]byte(rand.Text()[:8]), secret...), nil
}

// Unseal implements api.Cluster.
func (g *Group) Unseal(sealed []byte) ([]byte, error) {
	if len(sealed) < 8 {
		return nil, errors.New("it was sealed elsewhere")
	}
	return sealed[8:], nil
}

// State implements api.Cluster.
func (g *Group) State() *catalog.State {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state
}

// Changed implements api.Cluster.
func (g *Group) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

// Do implements api.Cluster.
func (g *Group) Do(_ context.Context, by string, b catalog.Body) (catalog.Result, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	index := g.state.Index() + 1
	id := catalog.UUID{0: 1, 14: byte(index >> 8), 15: byte(index)}
	raw, err := catalog.Command{ID: id, Time: catalog.StampOf(g.now()), By: by, Body: b}.Encode()
	if err != nil {
		return catalog.Result{}, err
	}
	next, r, err := g.state.Apply(index, raw)
	if err == nil && r.Error != nil {
		err = r.Error
	}
	g.state = next
	close(g.changed)
	g.changed = make(chan struct{})
	return r, err
}

// NewToken implements api.Cluster.
func (g *Group) NewToken(ctx context.Context, by string, life time.Duration) (string, time.Time, error) {
	expires := g.now().Add(life)
	_, err := g.Do(ctx, by, &catalog.AddToken{Hash: TokenHash, Expires: catalog.StampOf(expires)})
	return Secret, expires, err
}

// Node is an api.Backend. It is in no cluster before Found.
type Node struct {
	Now     func() time.Time // that commands have; to be set before there is a cluster
	Refusal string           // of being forced to serve alone
	Forced  []string         // LUNs that it was forced to serve alone, and loss policies
	Left    member.Recovery  // what it says of a new group

	mu    sync.Mutex
	group *Group

	verification api.Verification
}

// Group is its cluster; nil: none.
func (n *Node) Group() *Group {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.group
}

// Cluster implements api.Backend.
func (n *Node) Cluster() api.Cluster {
	if g := n.Group(); g != nil {
		return g
	}
	return nil
}

// Found implements api.Backend.
func (n *Node) Found(ctx context.Context, o member.FoundOptions) error {
	g := &Group{now: n.Now, self: catalog.NodeID(o.Node), state: catalog.New(), changed: make(chan struct{})}
	_, err := g.Do(ctx, "test", &catalog.InitCluster{Cluster: catalog.Cluster{ID: catalog.UUID{1}, Name: o.Cluster},
		Node: catalog.NewNode{Name: g.self, Site: o.Site, Addresses: o.Addresses, Key: catalog.Hash{9}, Voter: true, Version: 1}})
	if err == nil {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.group = g
	}
	return err
}

// Join implements api.Backend. Nobody takes it in.
func (n *Node) Join(context.Context, string, identity.Newcomer) error { return identity.ErrTokenUsed }

// Node implements api.Backend.
func (n *Node) Node() api.NodeStatus { return api.NodeStatus{PID: 7, LUNs: []api.ReplicaStatus{}} }

// StartVerify implements api.Backend. It is through at once, and finds what SetVerification
// has left to be found.
func (n *Node) StartVerify(_ catalog.UUID, v api.NewVerification) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.verification.NewVerification = v
	return nil
}

// StopVerify implements api.Backend.
func (n *Node) StopVerify(catalog.UUID) error { return nil }

// Verification implements api.Backend.
func (n *Node) Verification(catalog.UUID) (api.Verification, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	v := n.verification
	v.Differences = append([]api.Difference{}, v.Differences...)
	return v, nil
}

// SetVerification says what comparing the replicas of a LUN shows.
func (n *Node) SetVerification(v api.Verification) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.verification = v
}

// Outlook implements api.Backend: of a node that cannot know much.
func (n *Node) Outlook(_ context.Context, l catalog.LUN) (api.Outlook, error) {
	heard := n.Now()
	return api.Outlook{LUN: l.Name, Node: n.Group().Self(), Peer: l.Other(n.Group().Self()), Serving: l.Serving, Term: l.Term,
		Stale: 3, Bytes: 3 * l.ExtentSize, Loss: string(l.Loss), Heard: &heard, Refusal: n.Refusal}, nil
}

// Force implements api.Backend.
func (n *Node) Force(_ context.Context, l catalog.LUN, loss *catalog.LossPolicy) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.Forced = append(n.Forced, l.Name)
	if loss != nil {
		n.Forced = append(n.Forced, string(*loss))
	}
	return nil
}

// Recovery implements api.Backend.
func (n *Node) Recovery(context.Context) member.Recovery { return n.Left }

// Recover implements api.Backend.
func (n *Node) Recover(ctx context.Context, by string, giveUp []catalog.NodeID) error {
	_, err := n.Group().Do(ctx, by, &catalog.RecoverCluster{Node: n.Group().Self(), GiveUp: giveUp})
	return err
}

// Two makes a cluster of the nodes a, in paris, and b, in rome.
func (n *Node) Two(ctx context.Context) error {
	if err := n.Found(ctx, member.FoundOptions{Cluster: "test", Node: "a", Site: "paris", Addresses: []string{"a:7480"}}); err != nil {
		return err
	}
	g := n.Group()
	if _, _, err := g.NewToken(ctx, "test", time.Hour); err != nil {
		return err
	}
	_, err := g.Do(ctx, "test", &catalog.AdmitNode{Token: TokenHash, Node: catalog.NewNode{
		Name: "b", Site: "rome", Addresses: []string{"b:7480"}, Key: catalog.Hash{8}, Voter: true, Version: 1}})
	if err != nil {
		return fmt.Errorf("admit node b: %w", err)
	}
	return nil
}

// Serve serves the API of a node on a socket until the test ends.
func Serve(t testing.TB) (c *client.Client, n *Node, socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "api.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	n = &Node{Now: time.Now}
	s := api.NewServer(api.Handler(n, "test", slog.New(slog.DiscardHandler)))
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }() // until Close
	t.Cleanup(func() {
		s.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return client.Local(socket), n, socket
}
