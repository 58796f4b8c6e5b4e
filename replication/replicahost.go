package replication

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/coherence"
	"github.com/twinlun/twinlun/task"
)

// ErrLetGo tells a command that holds extents, and waits for another, to leave them:
// the replica stopped serving, and cannot join its peer again before it has.
var ErrLetGo = errors.New("the replica stopped serving")

// Request is a host command that waits for extents which Map.Enter refused, or
// for a Sync. It belongs to one goroutine.
type Request struct {
	r    *Replica
	wake task.Signal

	// Under r.mu.
	ops     []uint64 // in r.requests, or ended
	admits  []coherence.Admit
	store   *coherence.Store // to be done by Next: it waits for this anyway
	holding bool             // extents that were admitted before
	err     error
}

// wait is one thing that a Request waits for.
type wait struct {
	q    *Request
	left uint64 // Admits to come
}

// NewRequest makes a Request that waits for nothing yet.
func (r *Replica) NewRequest() *Request { return &Request{r: r, wake: r.run.NewSignal()} }

// Want asks for a run of extents. The command holds none, and is not between
// Map.Begin and Map.End.
func (q *Request) Want(run dirtymap.Range, write bool) {
	q.ask(run.Count, func(op uint64) coherence.Event {
		return coherence.Want{Op: op, Extents: run, Write: write}
	})
}

// Sync asks for everything written here before to be durable.
func (q *Request) Sync() {
	q.ask(1, func(op uint64) coherence.Event { return coherence.Sync{Op: op} })
}

func (q *Request) ask(admits uint64, event func(op uint64) coherence.Event) {
	r := q.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		q.err = ErrReplicaClosed
		return
	}
	r.ops++
	q.ops = append(q.ops, r.ops)
	r.requests[r.ops] = &wait{q: q, left: admits}
	r.stepLocked(event(r.ops))
}

// Next waits for answers: at least one, in no order. What an Admit means is said
// there; in short, without Err the command does its work in the extent, then calls
// Leave. An error means that nothing more will come: call Cancel.
func (q *Request) Next(ctx context.Context) ([]coherence.Admit, error) {
	for {
		q.storeLent()
		admits, err := q.take()
		if len(admits) > 0 || err != nil {
			return admits, err
		}
		if err := q.wake.Wait(ctx); err != nil {
			return nil, err
		}
	}
}

func (q *Request) take() ([]coherence.Admit, error) {
	q.r.mu.Lock()
	defer q.r.mu.Unlock()
	admits := q.admits
	q.admits = nil
	switch {
	case len(admits) > 0: // the error is for the next call: these are to be used, or left
		return admits, nil
	case q.err != nil:
		return nil, q.err
	case q.holding && !q.r.m.Serving():
		return nil, ErrLetGo
	}
	return nil, nil
}

// Hold says that the command will keep what it was admitted to while it waits for
// more. Next then returns ErrLetGo as soon as the replica does not serve.
func (q *Request) Hold() {
	q.r.mu.Lock()
	defer q.r.mu.Unlock()
	q.holding = true
}

// letGoLocked wakes those that hold extents.
func (r *Replica) letGoLocked() {
	for _, op := range slices.Sorted(maps.Keys(r.requests)) {
		if q := r.requests[op].q; q.holding {
			q.wake.Set()
		}
	}
}

// storeLocked has fetched blocks stored: by a command that waits for them, since to
// wake it is to be done anyway, or by the pool. A command takes one Store at a time, so
// that the rest of a large one is stored in parallel.
func (r *Replica) storeLocked(a coherence.Store) {
	w := r.requests[a.For]
	if w == nil || w.q.store != nil {
		r.io.put(func() { r.store(a) })
		return
	}
	w.q.store = &a
	w.q.wake.Set()
}

// storeLent does the Store that the Request was lent, as one of the pool's crew.
func (q *Request) storeLent() {
	r := q.r
	r.mu.Lock()
	a := q.store
	if q.store = nil; a != nil {
		r.io.crew.enter()
	}
	r.mu.Unlock()
	if a != nil {
		r.store(*a)
		r.io.crew.leave()
	}
}

// returnLocked gives a Store that was lent to the pool.
func (q *Request) returnLocked() {
	if a := q.store; a != nil {
		q.store = nil
		q.r.io.put(func() { q.r.store(*a) })
	}
}

// Cancel gives up what is still waited for, and undoes what was admitted and not
// taken. The Request is of no more use.
func (q *Request) Cancel() {
	r := q.r
	r.mu.Lock()
	defer r.mu.Unlock()
	q.returnLocked()
	for _, op := range q.ops {
		if r.requests[op] != nil {
			delete(r.requests, op)
			r.stepLocked(coherence.Cancel{Op: op})
		}
	}
	for _, a := range q.admits {
		r.leaveLocked(a)
	}
	q.ops, q.admits = nil, nil
}

// admitLocked hands an Admit to its Request. Only a Sync can have been cancelled
// and still be answered: nothing is to be undone then.
func (r *Replica) admitLocked(a coherence.Admit) {
	w := r.requests[a.Op]
	if w == nil {
		return
	}
	if w.left--; w.left == 0 {
		delete(r.requests, a.Op)
	}
	w.q.admits = append(w.q.admits, a)
	w.q.wake.Set()
}

// Leave ends the use of an extent that was admitted.
func (r *Replica) Leave(a coherence.Admit) {
	if a.Err != nil || a.Sync {
		return
	}
	if a.Kept == nil && r.m.Exit(a.Extent) {
		r.Drained(a.Extent)
	}
	if r.m.End() {
		r.Quiet()
	}
}

// leaveLocked is Leave under the lock.
func (r *Replica) leaveLocked(a coherence.Admit) {
	if a.Err != nil || a.Sync {
		return
	}
	if a.Kept == nil && r.m.Exit(a.Extent) {
		r.stepLocked(coherence.Drained{Extent: a.Extent})
	}
	if r.m.End() {
		r.quietLocked()
	}
}

// Drained tells that Map.Exit returned true for an extent.
func (r *Replica) Drained(ext uint64) { r.step(coherence.Drained{Extent: ext}) }

// Quiet tells that Map.End returned true.
func (r *Replica) Quiet() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.quietLocked()
}

func (r *Replica) quietLocked() {
	r.quiet.Set()
	r.stepLocked(coherence.Quiet{})
}

// dismissLocked ends all host commands that wait.
func (r *Replica) dismissLocked(err error) {
	for _, op := range slices.Sorted(maps.Keys(r.requests)) {
		w := r.requests[op]
		if w == nil {
			continue // ended by the Cancel of another one
		}
		delete(r.requests, op)
		r.stepLocked(coherence.Cancel{Op: op})
		w.q.returnLocked()
		w.q.err = err
		w.q.wake.Set()
	}
}
