package member

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/identity"
	"github.com/twinlun/twinlun/cluster/transport"
	"github.com/twinlun/twinlun/target/keep"
)

// foundTime is how long the first command of a cluster may take: an election of one
// node, and some flushes of a slow disk.
const foundTime = 30 * time.Second

// Open takes up the membership that the folder has. ErrNone: it has none. What is in
// State then may be old, see package cluster; other nodes need not be there.
func Open(cfg Config) (*Member, error) {
	cfg.complete()
	id, err := known(&cfg)
	if err == nil && id == nil {
		err = ErrNone
	}
	return started(cfg, id, err)
}

func started(cfg Config, id *identity.Node, err error) (*Member, error) {
	var m *Member
	if err == nil {
		m, err = start(cfg, id, false)
	}
	if err != nil {
		cfg.closeListeners()
		return nil, err
	}
	return m, nil
}

// known is the folder's identity; nil: it has none, or one that was never finished.
func known(cfg *Config) (*identity.Node, error) {
	if err := forgetUnfinished(cfg); err != nil {
		return nil, err
	}
	id, err := identity.Open(cfg.identity(), cfg.Now())
	if !errors.Is(err, fs.ErrNotExist) {
		return id, err
	}
	if _, err := os.Lstat(cfg.raft()); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is the raft log %s, and no identity that it belongs to: bring %s back from a copy, or move both away and join the node anew, with another name", cfg.raft(), cfg.identity())
	}
	return nil, nil
}

// forgetUnfinished clears away what is left of a cluster whose making was interrupted:
// nobody has been told that there is one.
func forgetUnfinished(cfg *Config) error {
	if _, err := os.Lstat(cfg.founding()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := errors.Join(os.RemoveAll(cfg.identity()), os.RemoveAll(cfg.raft())); err != nil {
		return fmt.Errorf("clear away a cluster that was not finished: %w", err)
	}
	return keep.Remove(cfg.founding())
}

// Found makes a new cluster with this node as its first one. If it fails or is
// interrupted there is no cluster, and it can be done again.
func Found(cfg Config, o FoundOptions) (*Member, error) {
	cfg.complete()
	m, err := found(cfg, o)
	if err != nil {
		cfg.closeListeners()
		return nil, fmt.Errorf("make the cluster %s: %w", o.Cluster, err)
	}
	return m, nil
}

func found(cfg Config, o FoundOptions) (*Member, error) {
	first := catalog.NewNode{Name: catalog.NodeID(o.Node), Site: o.Site, Addresses: o.Addresses, Voter: true, Version: catalog.Version}
	if err := tryOut(o.Cluster, first); err != nil {
		return nil, err
	}
	if err := vacant(&cfg); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := keep.Replace(cfg.founding(), nil); err != nil {
		return nil, err
	}
	id, err := identity.Found(cfg.identity(), o.Node, cfg.Now())
	if err != nil {
		return nil, err
	}
	m, err := start(cfg, id, true)
	if err != nil {
		return nil, err
	}
	first.Key = catalog.Hash(id.Self().Key)
	if err := m.init(o.Cluster, first); err != nil {
		return nil, errors.Join(err, m.end())
	}
	return m, nil
}

func vacant(cfg *Config) error {
	id, err := known(cfg)
	if err == nil && id != nil {
		err = fmt.Errorf("%w, of node %s in the cluster %v", identity.ErrExists, id.Name(), id.Cluster())
	}
	return err
}

// tryOut finds what the catalog would refuse, before anything is done.
func tryOut(cluster string, first catalog.NewNode) error {
	first.Key, first.Witness, first.Voter = catalog.Hash{1}, false, true
	return catalog.New().Check(catalog.Command{
		ID: newUUID(), Body: &catalog.InitCluster{Cluster: catalog.Cluster{ID: newUUID(), Name: cluster}, Node: first},
	})
}

// init makes the catalog's first entry; with that the cluster is made.
func (m *Member) init(name string, first catalog.NewNode) error {
	ctx, cancel := context.WithTimeout(m.ctx, foundTime)
	defer cancel()
	_, err := m.propose(ctx, m.self(), &catalog.InitCluster{
		Cluster: catalog.Cluster{ID: catalog.UUID(m.id.Cluster()), Name: name}, Node: first,
	})
	if err != nil {
		return err
	}
	return keep.Remove(m.cfg.founding())
}

// Join has a cluster take this node in, and returns when the catalog with this node in
// it has arrived here. If it fails or is interrupted, at whatever moment, it can be done
// again with the same token and name.
func Join(ctx context.Context, cfg Config, token string, n identity.Newcomer) (*Member, error) {
	cfg.complete()
	id, err := admitted(ctx, &cfg, token, n)
	m, err := started(cfg, id, err)
	if err == nil {
		if err = m.arrive(ctx); err != nil {
			err = errors.Join(err, m.Close())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("join a cluster as node %s: %w", n.Node, err)
	}
	return m, nil
}

// admitted is who this node is in the token's cluster, which takes it in if need be.
func admitted(ctx context.Context, cfg *Config, text string, n identity.Newcomer) (*identity.Node, error) {
	token, err := identity.ParseToken(text)
	if err != nil {
		return nil, err
	}
	id, err := known(cfg)
	if err != nil {
		return nil, err
	}
	if id != nil {
		if id.Cluster() != token.Cluster || id.Name() != n.Node || (id.Authority() == nil) != n.Witness {
			return nil, fmt.Errorf("%w, of node %s in the cluster %v: move %s away, if this one is to join another cluster", identity.ErrExists, id.Name(), id.Cluster(), cfg.Dir)
		}
		return id, nil // by an attempt before
	}
	n.Commands = catalog.Version
	if err := tryOut("any", catalog.NewNode{Name: catalog.NodeID(n.Node), Site: n.Site, Addresses: n.Addresses, Version: n.Commands}); err != nil {
		return nil, err
	}
	applicant, err := identity.Apply(cfg.identity(), n, token)
	if err != nil {
		return nil, err
	}
	return transport.JoinCluster(ctx, token, applicant)
}

// arrive waits until this node finds itself in its own catalog.
func (m *Member) arrive(ctx context.Context) error {
	for {
		at := m.node.Applied()
		if n, found := m.State().Node(m.Self()); found {
			m.cfg.Log.Info("this node belongs to the cluster", "cluster", m.State().Cluster().Name, "site", n.Site)
			return nil
		}
		if err := m.node.WaitApplied(ctx, at+1); err != nil {
			return fmt.Errorf("the cluster has admitted this node, and has not brought it up to date: do the other nodes reach it at the addresses it gave? It goes on when this is done again: %w", err)
		}
	}
}
