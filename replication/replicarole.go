package replication

import (
	"bufio"
	"errors"
	"fmt"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/coherence"
	"github.com/twinlun/twinlun/replication/salvage"
	"github.com/twinlun/twinlun/replication/wire"
)

// ErrOldTerm refuses a role of a term that is over.
var ErrOldTerm = errors.New("the replica knows of a newer term")

// SetRole tells the replica the cluster's word on who serves hosts. It says whether the
// two replicas are joined now: before it is proposed that both serve, a role that is
// Tied must have found them so. It does not wait until anything has come of it.
func (r *Replica) SetRole(role coherence.Role) (joined bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.engine.Role()
	switch {
	case r.closing:
		return false, ErrReplicaClosed
	case role.Loss == coherence.LossRollback:
		return false, errors.New("loss policy rollback is not available yet: choose hold or serve-stale")
	case role.Follows(now):
	case role.Term < now.Term, role.Term == now.Term && role.ID != now.ID:
		return false, fmt.Errorf("term %d (%x): %w: %d (%x)", role.Term, role.ID, ErrOldTerm, now.Term, now.ID)
	}
	r.stepLocked(role)
	if now.Forced && !role.Forced && r.conn != nil {
		r.conn.Close(errDecided)
	}
	return r.engine.Joined(), nil
}

// errDecided closes a link on which this replica was not to join.
var errDecided = errors.New("the cluster has decided about a LUN that this node was forced to serve: it joins anew")

// Break takes the replica out of service for good: it is not what it was taken for.
func (r *Replica) Break(err error) { r.step(coherence.Broken{Err: err}) }

// Standing is how a replica stands to the history of its LUN.
type Standing struct {
	Term    uint64   // of the last role that it has followed; 0: it knows of none
	ID      [16]byte // and its name
	Join    uint64   // number of the last join in effect; 0: there was none
	HasData bool     // it was joined, or has begun the LUN's history
}

// Standing is that of the replica now.
func (r *Replica) Standing() Standing {
	r.mu.Lock()
	defer r.mu.Unlock()
	role := r.engine.Role()
	return Standing{role.Term, role.ID, r.engine.LastJoin(), r.engine.HasData()}
}

// Missing counts the extents whose newest data may be at the other replica only. It looks
// at all of them.
func (r *Replica) Missing() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.engine.Missing()
}

// Prefer says whether this replica has its way with its peer where the two are equal, when it
// gets another one. It is on no link then.
func (r *Replica) Prefer(yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.engine.Prefer(yes)
}

// Joined tells whether the two replicas are joined, durably at both, and the number of the
// join.
func (r *Replica) Joined() (join uint64, yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.engine.LastJoin(), r.engine.Joined() && !r.closing
}

// Era goes up whenever the other node may have served the LUN alone. A host command
// that began in another era must not be answered: what it has read may be out of date,
// what it has written may have been given up.
func (r *Replica) Era() uint64 { return r.era.Load() }

// Closed tells whether the replica is closed, and hears of no new era.
func (r *Replica) Closed() bool { return r.ctx.Err() != nil }

// salvageBuffer is what is written to a salvage file at once, in bytes.
const salvageBuffer = 1 << 20

// salvage keeps what this replica is about to lose.
func (r *Replica) salvage(a coherence.Salvage) {
	err := r.salvageTo(a)
	if err != nil {
		r.log.Error("what this replica would lose for good cannot be kept", "err", err)
	}
	r.step(coherence.Done{Token: a.Token, Err: err})
}

func (r *Replica) salvageTo(a coherence.Salvage) error {
	if r.cfg.Salvage == nil {
		return errors.New("there is no place for salvage files")
	}
	f, err := r.cfg.Salvage(a.Join)
	if err != nil {
		return err
	}
	extents, err := r.writeSalvage(f, a)
	if err != nil {
		return errors.Join(err, f.Discard())
	}
	if err := f.Commit(); err != nil {
		return err
	}
	r.log.Warn("the other site served alone without these writes; they are given up and kept in a salvage file", "join", a.Join, "extents", extents)
	return nil
}

func (r *Replica) writeSalvage(f salvage.File, a coherence.Salvage) (extents uint64, err error) {
	buf := bufio.NewWriterSize(f, salvageBuffer)
	w, err := salvage.NewWriter(buf, salvage.Header{
		LUN: r.cfg.UUID, Geometry: r.cfg.Geometry, Join: a.Join, Time: r.run.Now(), Place: r.cfg.Place,
	})
	if err != nil {
		return 0, err
	}
	add := func(ext uint64, present dirtymap.Mask) error {
		extents++
		b := wire.Blocks{Extent: ext, Present: present}
		return errors.Join(r.readBlocks(&b, r.Read), w.Add(b))
	}
	for _, run := range a.Whole {
		for ext := run.First; ext < run.End(); ext++ {
			if err := add(ext, r.cfg.Geometry.Full(ext)); err != nil {
				return extents, err
			}
		}
	}
	for _, run := range a.Dirty {
		for ext := run.First; ext < run.End(); ext++ {
			if err := add(ext, r.m.Dirty(ext)); err != nil {
				return extents, err
			}
		}
	}
	return extents, errors.Join(w.End(), buf.Flush())
}
