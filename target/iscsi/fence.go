package iscsi

import (
	"context"
	"sync/atomic"
)

// fence lets one wait for the end of commands that it was given to.
type fence struct {
	left atomic.Int64 // commands, and one until raised
	gone chan struct{}
}

func newFence() *fence {
	f := &fence{gone: make(chan struct{})}
	f.left.Store(1)
	return f
}

func (f *fence) add() { f.left.Add(1) }

func (f *fence) done() {
	if f.left.Add(-1) == 0 {
		close(f.gone)
	}
}

// wait returns when all commands have ended that were added, or when ctx has.
// Nothing is added any more, and nobody else waits.
func (f *fence) wait(ctx context.Context) {
	f.done()
	select {
	case <-f.gone:
	case <-ctx.Done():
	}
}
