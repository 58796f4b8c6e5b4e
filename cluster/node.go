package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/twinlun/twinlun/cluster/transport"
)

// ErrClosed: the node has been closed, or was removed from the group.
var ErrClosed = errors.New("this node does not take part in the cluster any longer")

// Node is this node's part in the group.
type Node struct {
	// Fixed by Start.
	cfg       Config
	machine   *machine
	raft      *raft.Raft
	store     *store
	transport *patient
	requests  *transport.Listener
	peers     *callers
	ctx       context.Context
	cancel    context.CancelCauseFunc
	running   sync.WaitGroup

	changing sync.Mutex // one change of the members at a time

	mu struct {
		sync.Mutex
		leader string
		turned chan struct{} // closed when leader changes
		conns  map[*transport.Conn]bool
	}
}

// Start takes part in the group, or makes one.
func Start(cfg Config) (*Node, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, machine: newMachine(cfg.FSM, cfg.Log)}
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	n.mu.turned, n.mu.conns = make(chan struct{}), map[*transport.Conn]bool{}
	n.peers = newCallers(cfg.Port)
	if err := n.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the cluster's node %s: %w", cfg.Identity.Name(), err), n.Close())
	}
	n.running.Go(n.watch)
	n.running.Go(n.serve)
	n.running.Go(n.note)
	return n, nil
}

func (n *Node) open() (err error) {
	if n.store, err = openStore(n.cfg.Dir); err != nil {
		return err
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(n.cfg.Dir, keepSnapshots, newLogger(n.cfg.Log))
	if err != nil {
		return fmt.Errorf("open the snapshots: %w", err)
	}
	if err := n.resume(snapshots); err != nil {
		return fmt.Errorf("take up the state of the cluster in %s: %w; %s", n.cfg.Dir, err, damagedHint)
	}
	n.store.applied = n.machine.appliedIndex
	if err := n.listen(); err != nil {
		return err
	}
	if err := n.found(snapshots); err != nil {
		return err
	}
	n.raft, err = raft.NewRaft(n.cfg.raft(), n.machine, n.store, n.store, snapshots, n.transport)
	n.transport.raft.Store(n.raft)
	return err
}

const (
	// keepSnapshots: the last one, and one should that be damaged.
	keepSnapshots = 2
	// raftConns is how many idle connections are kept with each node.
	raftConns = 3
	// raftTime bounds what raft asks another node, in round trips of the longest line
	// a hundred.
	raftTime = 5 * time.Second
)

// resume brings the FSM to where this node knows that it was before: raft alone brings
// it to the last snapshot, and waits for a leader with the rest. Raft will come with
// all entries behind the snapshot, and the machine passes over those that it has.
func (n *Node) resume(snapshots raft.SnapshotStore) error {
	list, err := snapshots.List()
	if err != nil {
		return err
	}
	at := uint64(0)
	if len(list) > 0 {
		_, state, err := snapshots.Open(list[0].ID)
		if err == nil {
			err = n.machine.Restore(state)
		}
		if err != nil {
			return fmt.Errorf("snapshot %s: %w", list[0].ID, err)
		}
		at = list[0].Index
	}
	return n.replay(at)
}

// replay applies the entries behind a snapshot that are known to be committed.
func (n *Node) replay(at uint64) error {
	first, errFirst := n.store.FirstIndex()
	committed, errLast := n.store.committed()
	if err := errors.Join(errFirst, errLast); err != nil {
		return err
	}
	if first > at+1 {
		return fmt.Errorf("the log begins with entry %d, and the snapshot ends with %d", first, at)
	}
	for i := at + 1; i <= committed; i++ {
		entry := new(raft.Log)
		if err := n.store.GetLog(i, entry); err != nil {
			return fmt.Errorf("entry %d of the log: %w", i, err)
		}
		if entry.Type == raft.LogCommand {
			n.machine.Apply(entry)
		}
	}
	return nil
}

// listen takes the node's protocols of the port.
func (n *Node) listen() error {
	l, err := n.cfg.Port.Listen("", transport.Raft)
	if err != nil {
		return err
	}
	n.transport = &patient{node: n, NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:  &streams{l, n.cfg.Port, n.cfg.Identity.Name()},
		MaxPool: raftConns, Timeout: raftTime, Logger: newLogger(n.cfg.Log),
	})}
	n.requests, err = n.cfg.Port.Listen("", transport.Cluster)
	return err
}

// found makes a new group, if that is wanted and there is none.
func (n *Node) found(snapshots raft.SnapshotStore) error {
	some, err := raft.HasExistingState(n.store, n.store, snapshots)
	if err != nil || some || !n.cfg.Found {
		return err
	}
	self := raft.Server{ID: raft.ServerID(n.cfg.Identity.Name()), Address: raft.ServerAddress(n.cfg.Identity.Name())}
	return raft.BootstrapCluster(n.cfg.raft(), n.store, n.store, snapshots, n.transport,
		raft.Configuration{Servers: []raft.Server{self}})
}

// watch tells who leads. It runs as long as the node.
func (n *Node) watch() {
	seen := make(chan raft.Observation, 16)
	observer := raft.NewObserver(seen, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	n.raft.RegisterObserver(observer)
	defer n.raft.DeregisterObserver(observer)
	look := time.NewTicker(n.cfg.Heartbeat) // an observation is dropped when many come at once
	defer look.Stop()
	for {
		n.leads()
		select {
		case <-seen:
		case <-look.C:
		case <-n.ctx.Done():
			return
		}
	}
}

// noteEvery is how often it is looked whether what was applied last is to be noted. It bounds
// what a node does not know that is started alone after it was killed.
const noteEvery = time.Second

// note has the store note what was applied, when no entry comes behind it that would: a
// node may be the last one that there is. It runs as long as the node.
func (n *Node) note() {
	look := time.NewTicker(noteEvery)
	defer look.Stop()
	for seen, noted := uint64(0), uint64(0); ; {
		select {
		case <-look.C:
		case <-n.ctx.Done():
			return
		}
		at := n.machine.appliedIndex()
		if at == seen && at != noted {
			if err := n.store.note(at); err != nil {
				n.cfg.Log.Error("cannot note in the log how far it was applied", "entry", at, "err", err)
				continue
			}
			noted = at
		}
		seen = at
	}
}

func (n *Node) leads() {
	_, id := n.raft.LeaderWithID()
	leader := string(id)
	n.mu.Lock()
	changed := n.mu.leader != leader
	n.mu.leader = leader
	if changed {
		close(n.mu.turned)
		n.mu.turned = make(chan struct{})
	}
	n.mu.Unlock()
	if changed && n.cfg.Leader != nil {
		n.cfg.Leader(leader)
	}
}

// Leader is who leads the group, as far as this node knows; "": nobody.
func (n *Node) Leader() string {
	_, id := n.raft.LeaderWithID()
	return string(id)
}

// Applied is the last entry that was applied here.
func (n *Node) Applied() uint64 { return n.machine.appliedIndex() }

// WaitApplied returns when an entry was applied here.
func (n *Node) WaitApplied(ctx context.Context, index uint64) error {
	return n.machine.wait(ctx, index)
}

// Stats are for people and metrics.
type Stats struct {
	State       string // Follower, Candidate, Leader, Shutdown
	Leader      string // "": none known
	Term        uint64
	LastIndex   uint64    // of the log
	Committed   uint64    // as far as this node knows
	Applied     uint64    // here
	LastContact time.Time // with a leader, other than this node itself
}

// Stats may be called at any time.
func (n *Node) Stats() Stats {
	return Stats{
		State: n.raft.State().String(), Leader: n.Leader(), Term: n.raft.CurrentTerm(),
		LastIndex: n.raft.LastIndex(), Committed: n.raft.CommitIndex(), Applied: n.Applied(),
		LastContact: n.raft.LastContact(),
	}
}

// HandOver has another node lead, before this one stops: so nobody has to notice that
// it is gone. It does nothing where nobody else can.
func (n *Node) HandOver() error {
	if n.raft.State() != raft.Leader {
		return nil
	}
	return n.await(n.raft.LeadershipTransfer())
}

// HandOverTo has a certain voter lead, if this node does.
func (n *Node) HandOverTo(node string) error {
	if n.raft.State() != raft.Leader {
		return nil
	}
	return n.await(n.raft.LeadershipTransferToServer(raft.ServerID(node), raft.ServerAddress(node)))
}

// Close ends the node's part: no goroutine of it is left, but its port.
func (n *Node) Close() error {
	n.cancel(ErrClosed)
	var errs []error
	if n.raft != nil {
		errs = append(errs, n.raft.Shutdown().Error())
	}
	if n.transport != nil {
		errs = append(errs, n.transport.Close())
	}
	if n.requests != nil {
		n.requests.Close()
	}
	n.hangUp()
	n.peers.close()
	n.running.Wait()
	if n.store != nil {
		if at := n.machine.appliedIndex(); n.raft != nil && at > 0 {
			errs = append(errs, n.store.note(at))
		}
		errs = append(errs, n.store.Close())
	}
	return errors.Join(errs...)
}
