package api

import (
	"context"
	"time"

	"github.com/twinlun/twinlun/cluster"
	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/identity"
	"github.com/twinlun/twinlun/cluster/member"
)

// Backend is the node that the API is about.
type Backend interface {
	// Cluster is the node's membership; nil: it is in no cluster.
	Cluster() Cluster
	// Found makes a cluster with this node as its first one.
	Found(ctx context.Context, o member.FoundOptions) error
	// Join has the token's cluster take this node in.
	Join(ctx context.Context, token string, n identity.Newcomer) error
	// Node is the node as it is now.
	Node() NodeStatus
	Verifier
	// Outlook tells what may be lost if this node is forced to serve a LUN alone, of which
	// it has a replica.
	Outlook(ctx context.Context, l catalog.LUN) (Outlook, error)
	// Force has it do so, and returns when it serves. loss is the policy until the cluster
	// has agreed to that; nil: the LUN's.
	Force(ctx context.Context, l catalog.LUN, loss *catalog.LossPolicy) error
	// Recovery tells what it would mean to make a new group at this node, which is in a
	// cluster, without a majority.
	Recovery(ctx context.Context) member.Recovery
	// Recover has it do so, giving up the nodes that Recovery has named.
	Recover(ctx context.Context, by string, giveUp []catalog.NodeID) error
}

// Cluster is a membership, as package member has it. Errors that are a *catalog.Error are
// shown with their code.
type Cluster interface {
	Self() catalog.NodeID
	State() *catalog.State
	Changed() <-chan struct{} // closed when State is another one
	Leader() string
	Members() ([]cluster.Member, error)
	Do(ctx context.Context, by string, body catalog.Body) (catalog.Result, error)
	NewToken(ctx context.Context, by string, life time.Duration) (text string, expires time.Time, err error)
	Seal(secret []byte) ([]byte, error)
	Unseal(sealed []byte) ([]byte, error)
}
