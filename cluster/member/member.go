package member

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/twinlun/twinlun/cluster"
	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/identity"
	"github.com/twinlun/twinlun/cluster/transport"
)

// Member is this node's membership. Its methods may be called from any goroutine.
type Member struct {
	// Fixed by start.
	cfg     Config
	id      *identity.Node
	fsm     *fsm
	port    *transport.Port
	node    *cluster.Node
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup // Serve for each listener, keep, the Renewer
	kick    chan struct{}  // wakes keep

	leadership leadership // keep's
	refused    time.Time  // keep's: when it has said last that this node is refused
}

// start runs a node, with what its folder has.
func start(cfg Config, id *identity.Node, found bool) (*Member, error) {
	m := &Member{cfg: cfg, id: id, kick: make(chan struct{}, 1)}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.fsm = newFSM(cfg.Applied, m.nodesChanged)
	issuer := &identity.Issuer{Node: id, Admission: admission{m}, Now: cfg.Now}
	m.port = transport.New(transport.Config{
		Node: id, Allowed: m.allowed, Addresses: m.addresses, Join: issuer.Join, Log: cfg.Log,
	})
	var err error
	m.node, err = cluster.Start(cluster.Config{
		Dir: cfg.raft(), Identity: id, Port: m.port, FSM: m.fsm, Witness: m.Witness(), Found: found,
		Voter: m.mayVote, Leader: func(string) { m.wake() }, Log: cfg.Log,
	})
	if err != nil {
		m.cancel()
		return nil, errors.Join(err, m.port.Close())
	}
	m.fsm.begin()
	m.run()
	return m, nil
}

// run starts the member's goroutines.
func (m *Member) run() {
	if err := m.id.Check(m.cfg.Now()); err != nil {
		m.cfg.Log.Error("other nodes will refuse this one", "error", err)
	}
	for _, ln := range m.cfg.Listen {
		m.running.Go(func() {
			if err := m.port.Serve(ln); !errors.Is(err, net.ErrClosed) {
				m.cfg.Log.Error("other nodes are not heard any longer", "address", ln.Addr(), "error", err)
			}
		})
	}
	m.running.Go(m.keep)
	renewer := &identity.Renewer{Node: m.id, Ask: m.node.AskCertificate, Log: m.cfg.Log}
	m.running.Go(func() { renewer.Run(m.ctx) })
}

// nodesChanged is called under the apply.
func (m *Member) nodesChanged() {
	m.port.Recheck()
	m.wake()
}

func (m *Member) wake() {
	select {
	case m.kick <- struct{}{}:
	default: // it has been woken, and not looked yet
	}
}

// Self is this node.
func (m *Member) Self() catalog.NodeID { return catalog.NodeID(m.id.Name()) }

// Witness tells whether this node has a vote and no replicas.
func (m *Member) Witness() bool { return m.id.Authority() == nil }

// State is the catalog as far as it is known here. Whoever must not act on what is old
// calls Sync before.
func (m *Member) State() *catalog.State { return m.fsm.state.Load() }

// Changed is closed when there is another State than when it was called. Whoever follows
// the catalog calls it first, and then State.
func (m *Member) Changed() <-chan struct{} { return m.fsm.next() }

// Sync returns when State has all that was agreed on before the call. It needs a
// majority.
func (m *Member) Sync(ctx context.Context) error { return m.node.Sync(ctx) }

// Leader is the node that leads the cluster, as far as this one knows; "": none.
func (m *Member) Leader() string { return m.node.Leader() }

// Members are the raft group's, as this node's log has them.
func (m *Member) Members() ([]cluster.Member, error) { return m.node.Members() }

// PeerApplied returns when a node has applied the log up to an index. It goes on asking
// until ctx ends.
func (m *Member) PeerApplied(ctx context.Context, node string, index uint64) error {
	return m.node.PeerApplied(ctx, node, index)
}

// Port is for links with other nodes.
func (m *Member) Port() *transport.Port { return m.port }

// Close has another node lead, if this one does, and ends the member: no goroutine of it
// is left, and no connection.
func (m *Member) Close() error {
	m.cancel()
	if err := m.node.HandOver(); err != nil {
		m.cfg.Log.Info("no other node can lead", "reason", err)
	}
	return m.end()
}

func (m *Member) end() error {
	m.cancel()
	err := errors.Join(m.node.Close(), m.port.Close())
	m.running.Wait()
	if err != nil {
		return fmt.Errorf("end the membership of node %s: %w", m.Self(), err)
	}
	return nil
}
