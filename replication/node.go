package replication

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/twinlun/twinlun/replication/wire"
)

// Node leads one link to the replicas of its LUNs: it is the link's handler.
type Node struct {
	log   *slog.Logger
	beats Beats // nil: the two nodes are no cluster

	mu       sync.Mutex
	replicas map[uint32]*Replica // by LUN
	conn     LinkConn            // nil: down
}

var _ LinkHandler = (*Node)(nil)

// Beats takes the heartbeats of two nodes that are a cluster: the messages that belong to
// no LUN. Its methods do not block.
type Beats interface {
	// Up: there is a connection. It comes before the replicas hear of it.
	Up(c LinkConn)
	// Beat is a wire.LeaseRequest or wire.LeaseGrant that came over it.
	Beat(c LinkConn, m wire.Message)
	// Down: it is gone. It comes after the replicas have heard of it.
	Down(c LinkConn)
}

// NewNode makes a node without replicas.
func NewNode(log *slog.Logger) *Node {
	return &Node{log: log, replicas: map[uint32]*Replica{}}
}

// NewClusterNode makes one that leads heartbeats, too.
func NewClusterNode(log *slog.Logger, beats Beats) *Node {
	n := NewNode(log)
	n.beats = beats
	return n
}

var errReplicasChanged = errors.New("the LUNs of the node have changed: it joins anew")

// Add gives the node a replica. If the link is up it is closed, so that the next
// connection joins this replica too: both nodes must see a LUN's first message.
func (n *Node) Add(r *Replica) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.replicas[r.Number()] != nil {
		return fmt.Errorf("LUN %d: there is one with this number already", r.Number())
	}
	n.replicas[r.Number()] = r
	if n.conn != nil {
		n.conn.Close(errReplicasChanged)
	}
	return nil
}

// Remove lets go of a replica. If the link is up it is closed, since the peer must
// stop serving the LUN.
func (n *Node) Remove(r *Replica) {
	n.mu.Lock()
	delete(n.replicas, r.Number())
	if n.conn != nil {
		n.conn.Close(errReplicasChanged)
	}
	n.mu.Unlock()
	r.down(errReplicasChanged)
}

// Replicas are the node's replicas, by their number.
func (n *Node) Replicas() []*Replica {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sortedLocked()
}

func (n *Node) sortedLocked() []*Replica {
	list := make([]*Replica, 0, len(n.replicas))
	for _, lun := range slices.Sorted(maps.Keys(n.replicas)) {
		list = append(list, n.replicas[lun])
	}
	return list
}

// Up implements LinkHandler.
func (n *Node) Up(c LinkConn) {
	n.mu.Lock()
	n.conn = c
	list := n.sortedLocked()
	n.mu.Unlock()
	n.log.Info("the link is up", "peer", c.Peer(), "bulk streams", c.Streams())
	if n.beats != nil {
		n.beats.Up(c)
	}
	for _, r := range list {
		r.up(c)
	}
}

// Control implements LinkHandler.
func (n *Node) Control(c LinkConn, lun uint32, m wire.Message) {
	switch m.(type) {
	case *wire.LeaseRequest, *wire.LeaseGrant:
		if n.beats != nil {
			n.beats.Beat(c, m)
		}
		return
	}
	if r := n.find(lun, m); r != nil {
		r.control(c, m)
	} else if _, greets := m.(*wire.JoinHello); greets {
		// It may go on alone, if it is to; when the LUN is added all join anew.
		c.SendControl(lun, &wire.JoinRefuse{Reason: wire.ReasonAbsent})
	}
}

// Bulk implements LinkHandler.
func (n *Node) Bulk(c LinkConn, stream int, lun uint32, m wire.Message) {
	if r := n.find(lun, m); r != nil {
		r.fromBulk(c, stream, m)
	}
}

// find is the LUN's replica. A LUN that only the peer has is not joined until it is added
// here; the other LUNs of the link must not suffer for it.
func (n *Node) find(lun uint32, m wire.Message) *Replica {
	n.mu.Lock()
	r := n.replicas[lun]
	n.mu.Unlock()
	if r == nil {
		n.log.Warn("the peer speaks of a LUN that is not configured here", "lun", lun, "message", m.Kind())
	}
	return r
}

// Down implements LinkHandler.
func (n *Node) Down(c LinkConn, err error) {
	n.mu.Lock()
	n.conn = nil
	list := n.sortedLocked()
	n.mu.Unlock()
	n.log.Warn("the link is down", "peer", c.Peer(), "err", err)
	for _, r := range list {
		r.down(err)
	}
	if n.beats != nil {
		n.beats.Down(c)
	}
}
