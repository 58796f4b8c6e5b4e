package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/twinlun/twinlun/cluster/transport"
)

const (
	// raftConns is how many idle connections are kept with each node.
	raftConns = 3
	// raftTime bounds what raft asks another node, in round trips of the longest line
	// a hundred.
	raftTime = 5 * time.Second
)

// engine is the raft library at work, with its connections. A node has one as long as it
// runs, but for Recover, which replaces it.
type engine struct {
	*raft.Raft
	transport *patient
	ctx       context.Context // ends with it
	cancel    context.CancelCauseFunc
}

func (n *Node) raft() *engine { return n.engine.Load() }

// engage sets the library to work, with what the folder has.
func (n *Node) engage() error {
	l, err := n.cfg.Port.Listen("", transport.Raft)
	if err != nil {
		return err
	}
	e := &engine{}
	e.ctx, e.cancel = context.WithCancelCause(n.ctx)
	e.transport = &patient{node: n, ctx: e.ctx, NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:  &streams{l, n.cfg.Port, n.cfg.Identity.Name()},
		MaxPool: raftConns, Timeout: raftTime, Logger: newLogger(n.cfg.Log),
	})}
	if err = n.found(e.transport); err == nil {
		e.Raft, err = raft.NewRaft(n.cfg.raft(), n.machine, n.store, n.store, n.snapshots, e.transport)
	}
	if err != nil {
		e.cancel(err)
		e.transport.Close()
		return fmt.Errorf("start raft: %w", err)
	}
	e.transport.raft.Store(e.Raft)
	n.engine.Store(e)
	n.running.Go(func() { n.watch(e) })
	return nil
}

// stop ends the library. What waits for it gets the reason.
func (e *engine) stop(reason error) error {
	e.cancel(reason)
	err := e.Shutdown().Error()
	if errClose := e.transport.Close(); err == nil {
		err = errClose
	}
	return err
}

// await waits for what the raft library does, or for its end: what was committed and not
// yet applied when the library is shut down it never answers. The goroutine that waits for
// such an answer stays, with nothing but that.
func (e *engine) await(f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-e.ctx.Done():
		return context.Cause(e.ctx)
	}
}

// found makes a new group, if that is wanted and there is none.
func (n *Node) found(t raft.Transport) error {
	some, err := raft.HasExistingState(n.store, n.store, n.snapshots)
	if err != nil || some || !n.cfg.Found {
		return err
	}
	return raft.BootstrapCluster(n.cfg.raft(), n.store, n.store, n.snapshots, t, raft.Configuration{Servers: []raft.Server{n.server(n.cfg.Identity.Name(), raft.Voter)}})
}

// server is a node as the library knows it: by its name alone.
func (n *Node) server(node string, s raft.ServerSuffrage) raft.Server {
	return raft.Server{ID: raft.ServerID(node), Address: raft.ServerAddress(node), Suffrage: s}
}

// watch tells who leads. It runs as long as the engine.
func (n *Node) watch(e *engine) {
	seen := make(chan raft.Observation, 16)
	observer := raft.NewObserver(seen, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	e.RegisterObserver(observer)
	defer e.DeregisterObserver(observer)
	look := time.NewTicker(n.cfg.Heartbeat) // an observation is dropped when many come at once
	defer look.Stop()
	for {
		n.leads(e)
		select {
		case <-seen:
		case <-look.C:
		case <-e.ctx.Done():
			return
		}
	}
}
