package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
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
	store     *store
	snapshots raft.SnapshotStore
	requests  *transport.Listener
	peers     *callers
	ctx       context.Context
	cancel    context.CancelCauseFunc
	running   sync.WaitGroup
	die       func(at string) error // a test's: the process dies there, if it is an error; nil: it does not

	engine   atomic.Pointer[engine] // nil: it was never started
	engaging sync.Mutex             // held while another engine takes its place, or none
	changing sync.Mutex             // one change of the members at a time

	mu struct {
		sync.Mutex
		leader string
		turned chan struct{} // closed when leader changes
		heard  map[string]time.Time
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
	n.mu.turned, n.mu.conns, n.mu.heard = make(chan struct{}), map[*transport.Conn]bool{}, map[string]time.Time{}
	n.peers = newCallers(cfg.Port)
	if err := n.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the cluster's node %s: %w", cfg.Identity.Name(), err), n.Close())
	}
	n.running.Go(n.serve)
	n.running.Go(n.note)
	return n, nil
}

func (n *Node) open() (err error) {
	if n.store, err = openStore(n.cfg.Dir); err != nil {
		return err
	}
	if n.snapshots, err = raft.NewFileSnapshotStoreWithLogger(n.cfg.Dir, keepSnapshots, newLogger(n.cfg.Log)); err != nil {
		return fmt.Errorf("open the snapshots: %w", err)
	}
	if err := n.resume(); err != nil {
		return fmt.Errorf("take up the state of the cluster in %s: %w; %s", n.cfg.Dir, err, damagedHint)
	}
	n.store.applied = n.machine.appliedIndex
	if n.requests, err = n.cfg.Port.Listen("", transport.Cluster); err != nil {
		return err
	}
	return n.engage()
}

// keepSnapshots: the last one, and one should that be damaged.
const keepSnapshots = 2

// resume brings the FSM to where this node knows that it was before: raft alone brings
// it to the last snapshot, and waits for a leader with the rest. Raft will come with
// all entries behind the snapshot, and the machine passes over those that it has.
func (n *Node) resume() error {
	list, err := n.snapshots.List()
	if err != nil {
		return err
	}
	at := uint64(0)
	if len(list) > 0 {
		_, state, err := n.snapshots.Open(list[0].ID)
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

func (n *Node) leads(e *engine) {
	_, id := e.LeaderWithID()
	leader := string(id)
	n.mu.Lock()
	if at := e.LastContact(); leader != "" && at.After(n.mu.heard[leader]) {
		n.mu.heard[leader] = at
	}
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
	_, id := n.raft().LeaderWithID()
	return string(id)
}

// Heard is when another node has last shown that it is there, as a leader or to this node
// as one; zero: not since this node was started.
func (n *Node) Heard(node string) time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.heard[node]
}

func (n *Node) hears(node string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.heard[node] = time.Now()
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
	e := n.raft()
	return Stats{
		State: e.State().String(), Leader: n.Leader(), Term: e.CurrentTerm(),
		LastIndex: e.LastIndex(), Committed: e.CommitIndex(), Applied: n.Applied(),
		LastContact: e.LastContact(),
	}
}

// HandOver has another node lead, before this one stops: so nobody has to notice that
// it is gone. It does nothing where nobody else can.
func (n *Node) HandOver() error {
	e := n.raft()
	if e.State() != raft.Leader {
		return nil
	}
	return e.await(e.LeadershipTransfer())
}

// HandOverTo has a certain voter lead, if this node does.
func (n *Node) HandOverTo(node string) error {
	e := n.raft()
	if e.State() != raft.Leader {
		return nil
	}
	return e.await(e.LeadershipTransferToServer(raft.ServerID(node), raft.ServerAddress(node)))
}

// Close ends the node's part: no goroutine of it is left, but its port.
func (n *Node) Close() error {
	n.cancel(ErrClosed)
	n.engaging.Lock()
	defer n.engaging.Unlock()
	var errs []error
	if e := n.raft(); e != nil {
		errs = append(errs, e.stop(ErrClosed))
	}
	if n.requests != nil {
		n.requests.Close()
	}
	n.hangUp()
	n.peers.close()
	n.running.Wait()
	if n.store != nil {
		if at := n.machine.appliedIndex(); n.raft() != nil && at > 0 {
			errs = append(errs, n.store.note(at))
		}
		errs = append(errs, n.store.Close())
	}
	return errors.Join(errs...)
}
