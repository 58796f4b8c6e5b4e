package reserving

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/target/reservation"
)

// Cluster is what a Hub needs of its node's membership.
type Cluster interface {
	// Do has a command carried out by the cluster. When it returns, the Hub was told.
	Do(ctx context.Context, by string, body catalog.Body) (catalog.Result, error)
	// PeerApplied returns when a node has applied the log up to an index, and its Hub was
	// told.
	PeerApplied(ctx context.Context, node string, index uint64) error
	// Sync returns when the Hub was told all that was agreed on before the call.
	Sync(ctx context.Context) error
}

// Hub has the reservations of all LUNs of a node.
type Hub struct {
	// Fixed by New.
	self    catalog.NodeID
	cluster Cluster
	log     *slog.Logger
	cancel  context.CancelFunc
	tasks   sync.WaitGroup // learn

	mu sync.Mutex // never held across anything that blocks
	// Under mu.
	state  *catalog.State // nil: nothing was applied yet
	sure   bool           // that it is not older than the start of this node
	luns   map[catalog.UUID]*Reservations
	relied map[catalog.UUID]bool // see Rely
}

// New makes a Hub for the LUNs that a node serves.
func New(self catalog.NodeID, cluster Cluster, log *slog.Logger) *Hub {
	ctx, cancel := context.WithCancel(context.Background())
	h := &Hub{self: self, cluster: cluster, log: log, cancel: cancel, luns: map[catalog.UUID]*Reservations{}, relied: map[catalog.UUID]bool{}}
	h.tasks.Go(func() { h.learn(ctx) })
	return h
}

// Close ends the Hub's task. What it knows stays.
func (h *Hub) Close() {
	h.cancel()
	h.tasks.Wait()
}

// learnAgain is the pause before the cluster is asked again for its latest state.
const learnAgain = time.Second

// learn is the task that asks the cluster for its latest state, once. What a node finds in
// its own log when it starts may be older than what it has answered before.
func (h *Hub) learn(ctx context.Context) {
	for err := h.cluster.Sync(ctx); err != nil; err = h.cluster.Sync(ctx) {
		if ctx.Err() == nil {
			h.log.Warn("hosts wait until the reservations are known: is a majority of the nodes running?", "err", err)
		}
		select {
		case <-time.After(learnAgain):
		case <-ctx.Done():
			return
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sure = true // the state may still be nil: then the cluster has nothing yet
	for _, r := range h.luns {
		h.beginLocked(r)
	}
}

// Rely has the reservations of a LUN hold as this node knows them, although nobody can tell
// whether that is all: an operator has it serve the LUN without a majority.
func (h *Hub) Rely(id catalog.UUID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.relied[id] {
		return
	}
	h.relied[id] = true
	if r := h.luns[id]; r != nil && !h.sure {
		h.beginLocked(r)
	}
}

// LUN is a LUN's reservations.
func (h *Hub) LUN(id catalog.UUID) *Reservations {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.luns[id]
	if r == nil {
		r = &Reservations{hub: h, lun: id, watch: func([]reservation.Event) {}}
		h.luns[id] = r
		h.beginLocked(r)
	}
	return r
}

// beginLocked gives a LUN its first state, of which nobody has heard anything before.
func (h *Hub) beginLocked(r *Reservations) {
	if h.state == nil {
		return
	}
	r.changed = h.state.Index()
	h.followLocked(r)
	h.becomeLocked(r, nil)
}

// Apply takes a new state of the catalog, before anything else of this node learns of it.
// The result is that of the command that led there; a zero one: what lies between this
// state and the last one is not known. It waits for no command of a host.
func (h *Hub) Apply(s *catalog.State, r catalog.Result) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state = s
	if len(r.Changes) == 0 && r.Command.Body == nil {
		for id := range h.luns {
			h.jumpLocked(id)
		}
		return
	}
	for _, c := range r.Changes {
		h.changedLocked(c)
	}
}

func (h *Hub) changedLocked(c catalog.Change) {
	switch c := c.(type) {
	case catalog.ReservationChanged:
		if r := h.luns[c.LUN]; r != nil {
			r.changed = h.state.Index()
			h.becomeLocked(r, c.Events)
		}
	case catalog.ServingChanged:
		if r := h.luns[c.LUN]; r != nil {
			h.followLocked(r)
		}
	case catalog.LUNChanged:
		if h.luns[c.LUN] != nil && c.Removed {
			h.jumpLocked(c.LUN)
		}
	}
}

// jumpLocked compares what a LUN had with what it has now. One that is gone has nothing.
func (h *Hub) jumpLocked(id catalog.UUID) {
	r := h.luns[id]
	r.changed = h.state.Index()
	h.followLocked(r)
	h.becomeLocked(r, reservation.Between(r.state.Load(), h.state.Reservations(id)))
	if _, found := h.state.LUN(id); !found {
		delete(h.luns, id)
	}
}

// becomeLocked gives a LUN the state that was applied, if that is not an old one.
func (h *Hub) becomeLocked(r *Reservations, events []reservation.Event) {
	if h.sure || h.relied[r.lun] {
		r.becomeLocked(h.state.Reservations(r.lun), events)
	}
}

// followLocked lets a LUN know who serves it.
func (h *Hub) followLocked(r *Reservations) {
	l, _ := h.state.LUN(r.lun)
	other := catalog.NodeID("")
	for _, n := range l.Serving {
		if n != h.self {
			other = n
		}
	}
	r.servesLocked(l.Serves(h.self), other)
}
