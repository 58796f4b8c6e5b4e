package replication

import (
	"time"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/coherence"
)

// ReplicaStatus is what an operator sees of a replica.
type ReplicaStatus struct {
	Number    uint32
	Serving   bool
	Why       string    // why it does not serve; empty if it does
	Since     time.Time // when Serving changed last
	LinkUp    bool
	RTT       time.Duration // of the link; 0: down, or not measured yet
	Dirty     int64         // bytes written here that the peer does not have yet
	InFlight  int64         // bytes of them on their way
	LastAlarm string
	Alarms    uint64
	coherence.Stats
}

// Status is the replica's status now.
func (r *Replica) Status() ReplicaStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := ReplicaStatus{
		Number: r.cfg.Number, Since: r.health.since, LinkUp: r.conn != nil,
		LastAlarm: r.health.alarm, Alarms: r.health.alarms,
		Stats: r.engine.Stats(),
	}
	s.Serving = s.Stats.Serving && !r.closing && r.health.fault == nil
	s.InFlight = s.CopyingBlocks * dirtymap.BlockSize
	s.Dirty = r.m.DirtyBlocks()*dirtymap.BlockSize + s.InFlight
	if r.conn != nil {
		s.RTT = r.conn.RTT()
	}
	if !s.Serving {
		s.Why = r.whyLocked()
	}
	return s
}

// Fault is why the replica cannot go on; nil: it can.
func (r *Replica) Fault() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.health.fault
}

// Owned counts the extents of which only this node may have the newest data, up to most:
// what the other site would miss if this one were lost now.
func (r *Replica) Owned(most int) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for ext, ok := r.m.NextOwned(0); ok && n < most; ext, ok = r.m.NextOwned(ext + 1) {
		n++
	}
	return n
}

// GiveBack gives the ownership of some extents back, up to most that the peer has
// everything of, and tells whether there are others that are owned. Nobody should be using
// them: their next write would have to ask for it.
func (r *Replica) GiveBack(most int) (left bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		return true // nobody knows
	}
	n := 0
	for ext, ok := r.m.NextOwned(0); ok && n < most; ext, ok = r.m.NextOwned(ext + 1) {
		r.stepLocked(coherence.GiveBack{Extents: dirtymap.Range{First: ext, Count: 1}})
		n++
	}
	_, left = r.m.NextOwned(0)
	return left
}

func (r *Replica) whyLocked() string {
	switch {
	case r.closing:
		return "it is being stopped"
	case r.health.fault != nil:
		return r.health.fault.Error()
	case r.conn != nil:
		return "it is joining with the peer"
	case r.health.down != nil:
		return "the link to the peer is down: " + r.health.down.Error()
	}
	return "the peer has not been reached yet"
}
