package iscsi

import (
	"context"
	"sync"
)

// budget bounds the bytes of a session's large transfers. Whoever must wait is
// served in the order of asking, so that large ones are not overtaken forever.
type budget struct {
	mu    sync.Mutex
	free  int64
	queue []*claim
}

type claim struct {
	n       int64
	granted chan struct{}
}

// try takes n bytes if they are free and nobody waits.
func (b *budget) try(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) > 0 || n > b.free {
		return false
	}
	b.free -= n
	return true
}

// take takes n bytes, waiting for them. False: ctx ended, nothing was taken.
func (b *budget) take(ctx context.Context, n int64) bool {
	if b.try(n) {
		return true
	}
	c := &claim{n, make(chan struct{})}
	b.mu.Lock()
	b.queue = append(b.queue, c)
	b.serveLocked() // bytes may have come back in between
	b.mu.Unlock()
	select {
	case <-c.granted:
		return true
	case <-ctx.Done():
		return b.withdraw(c)
	}
}

// withdraw takes a claim back, unless it was granted in the meantime.
func (b *budget) withdraw(c *claim) (granted bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.queue {
		if b.queue[i] == c {
			b.queue = append(b.queue[:i], b.queue[i+1:]...)
			b.serveLocked()
			return false
		}
	}
	return true
}

// give returns n bytes.
func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += n
	b.serveLocked()
}

func (b *budget) serveLocked() {
	for len(b.queue) > 0 && b.queue[0].n <= b.free {
		c := b.queue[0]
		b.queue = b.queue[1:]
		b.free -= c.n
		close(c.granted)
	}
}
