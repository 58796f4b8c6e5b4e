package volume

import (
	"context"
	"slices"
	"sync"

	"github.com/twinlun/twinlun/task"
)

// turn is had by one command at a time, first come, first served. A mutex would not
// do: who waits for it can be aborted, and in simulation waiting must go through the
// Runtime.
type turn struct {
	run task.Runtime

	mu    sync.Mutex
	taken bool
	queue []task.Signal // set when the turn is theirs
}

// take waits for the turn, or until ctx ends.
func (t *turn) take(ctx context.Context) error {
	t.mu.Lock()
	if !t.taken {
		t.taken = true
		t.mu.Unlock()
		return nil
	}
	mine := t.run.NewSignal()
	t.queue = append(t.queue, mine)
	t.mu.Unlock()
	err := mine.Wait(ctx)
	if err != nil && !t.leave(mine) {
		t.give() // it was ours already
	}
	return err
}

// leave takes one that waits out of the queue; false: it is not there any more.
func (t *turn) leave(mine task.Signal) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.Index(t.queue, mine)
	if i >= 0 {
		t.queue = slices.Delete(t.queue, i, i+1)
	}
	return i >= 0
}

// give hands the turn to the next one.
func (t *turn) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) == 0 {
		t.taken = false
		return
	}
	next := t.queue[0]
	t.queue = t.queue[1:]
	next.Set()
}
