package replication

import (
	"context"
	"fmt"
	"sync"

	"github.com/twinlun/twinlun/replication/coherence"
	"github.com/twinlun/twinlun/task"
)

// flushWait is something that waits for a flush of the replica.
type flushWait struct {
	token  uint64
	copied bool // it is a StoreCopy
}

// flusher flushes the replica. One flush serves all that asked before it began.
type flusher struct {
	r    *Replica
	crew crew
	wake task.Signal

	mu      sync.Mutex
	waiting []flushWait
	closing bool
}

func (f *flusher) start(r *Replica) {
	f.r, f.wake = r, r.run.NewSignal()
	f.crew.start(r.run)
	f.crew.run("flusher", f.work)
}

func (f *flusher) put(w flushWait) {
	f.mu.Lock()
	f.waiting = append(f.waiting, w)
	f.mu.Unlock()
	f.wake.Set()
}

// work is the flusher's task. It ends when the flusher is closed and nobody waits.
func (f *flusher) work() {
	for {
		waiting, closing := f.take()
		switch {
		case len(waiting) > 0:
			err := f.r.cfg.Store.Sync()
			if err != nil {
				err = fmt.Errorf("flush the replica: %w", err)
			}
			f.answer(waiting, err)
		case closing:
			return
		default:
			f.wake.Wait(context.Background())
		}
	}
}

func (f *flusher) answer(waiting []flushWait, err error) {
	r := f.r
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range waiting {
		switch {
		case !w.copied:
			r.stepLocked(coherence.Done{Token: w.token, Err: err})
		case err != nil:
			r.stepLocked(coherence.CopyStored{Token: w.token, Err: err})
		default:
			r.stepLocked(coherence.CopyDurable{Token: w.token})
		}
	}
}

func (f *flusher) take() ([]flushWait, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.waiting
	f.waiting = nil
	return w, f.closing
}

// close returns when nobody waits any more.
func (f *flusher) close() {
	f.mu.Lock()
	f.closing = true
	f.mu.Unlock()
	f.wake.Set()
	f.crew.wait()
}
