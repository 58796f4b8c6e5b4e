package replication

import (
	"context"
	"slices"
	"sync"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/target/backing"
	"github.com/twinlun/twinlun/task"
)

// A LUN's blocks are dealt out to shards by regions of lockRegion bytes, so that most
// commands meet one mutex, and commands far from one another different ones.
const (
	lockShards = 64
	lockRegion = 1 << 20
	// lockLook is how many waiters of a shard are looked at to find those who can go
	// on; those behind them go in order. It bounds what letting go of a range costs.
	lockLook = 64
)

// blockLocks keep reads and writes of one block from tearing each other. They lock
// ranges of blocks: many readers, or one writer, for each block. Ranges that have no
// block in common never wait for each other.
//
// A range is entered in each of its shards, in ascending order, and in each shard who
// comes first is first served; so two ranges cannot wait for each other. They are held
// for one call of the backing store (two by Modify, a few and the journal's by
// WriteAtomic), and nothing else is waited for while they are held.
//
// Not sync.RWMutex: a task may wait here for another one's I/O, and in simulation
// waiting must go through the Runtime. Without contention nothing is allocated.
type blockLocks struct {
	run   task.Runtime
	shard [lockShards]lockShard
}

type lockShard struct {
	mu    sync.Mutex
	held  []span
	queue []lockWaiter // first come, first served, as far as they meet
	_     [64 - 56]byte
}

// span is a range of blocks.
type span struct {
	first, last int64
	write       bool
}

// meets tells whether two spans cannot be held at a time.
func (s span) meets(t span) bool {
	return (s.write || t.write) && s.first <= t.last && t.first <= s.last
}

type lockWaiter struct {
	span
	mine task.Signal // set when the lock is handed over
}

// spanOf has the blocks that [off, off+n) touches, n > 0, in bytes.
func spanOf(off, n int64, write bool) span {
	return span{off / dirtymap.BlockSize, (off + n - 1) / dirtymap.BlockSize, write}
}

// lock locks the blocks that [off, off+n) touches, n > 0, in bytes.
func (l *blockLocks) lock(off, n int64, write bool) {
	s := spanOf(off, n, write)
	for a, b := range shards(off, n) {
		for i := a; i < b; i++ {
			l.shard[i].lock(l.run, s)
		}
	}
}

// tryLock is lock, unless it would have to wait.
func (l *blockLocks) tryLock(off, n int64, write bool) bool {
	s := spanOf(off, n, write)
	for a, b := range shards(off, n) {
		for i := a; i < b; i++ {
			if !l.shard[i].tryLock(s) {
				l.unlockUpTo(off, n, s, i)
				return false
			}
		}
	}
	return true
}

func (l *blockLocks) unlock(off, n int64, write bool) {
	l.unlockUpTo(off, n, spanOf(off, n, write), lockShards)
}

// unlockUpTo lets go of what was taken before a shard.
func (l *blockLocks) unlockUpTo(off, n int64, s span, end int64) {
	for a, b := range shards(off, n) {
		for i := a; i < b; i++ {
			if i == end {
				return
			}
			l.shard[i].unlock(s)
		}
	}
}

// shards yields the shards of [off, off+n) as ascending intervals.
func shards(off, n int64) func(yield func(a, b int64) bool) {
	return func(yield func(a, b int64) bool) {
		first, last := off/lockRegion, (off+n-1)/lockRegion
		a, b := first%lockShards, last%lockShards+1
		switch {
		case last-first+1 >= lockShards:
			yield(0, lockShards)
		case a < b:
			yield(a, b)
		default:
			_ = yield(0, b) && yield(a, lockShards)
		}
	}
}

func (h *lockShard) lock(run task.Runtime, s span) {
	h.mu.Lock()
	if h.freeLocked(s, len(h.queue)) {
		h.held = append(h.held, s)
		h.mu.Unlock()
		return
	}
	w := lockWaiter{span: s, mine: run.NewSignal()}
	h.queue = append(h.queue, w)
	h.mu.Unlock()
	w.mine.Wait(context.Background())
}

func (h *lockShard) tryLock(s span) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.freeLocked(s, len(h.queue)) {
		return false
	}
	h.held = append(h.held, s)
	return true
}

// unlock lets go of a span, and hands others over to those who can go on now.
func (h *lockShard) unlock(s span) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.Index(h.held, s)
	last := len(h.held) - 1
	h.held[i] = h.held[last]
	h.held = h.held[:last]
	for i := 0; i < min(len(h.queue), lockLook); {
		w := h.queue[i]
		if !h.freeLocked(w.span, i) {
			i++
			continue
		}
		h.held = append(h.held, w.span)
		h.queue = slices.Delete(h.queue, i, i+1)
		w.mine.Set()
	}
}

// freeLocked tells whether a span meets none that is held, and none of the first ahead
// of those who wait.
func (h *lockShard) freeLocked(s span, ahead int) bool {
	if ahead >= lockLook {
		return false
	}
	for _, o := range h.held {
		if s.meets(o) {
			return false
		}
	}
	for i := range h.queue[:ahead] {
		if s.meets(h.queue[i].span) {
			return false
		}
	}
	return true
}

// Read reads the replica; each block is as some write left it. Whether the bytes
// are the newest is the caller's business.
func (r *Replica) Read(p []byte, off int64) error {
	n := int64(len(p))
	r.locks.lock(off, n, false)
	defer r.locks.unlock(off, n, false)
	if err := r.whole(); err != nil {
		return err
	}
	return r.cfg.Store.ReadAt(p, off)
}

// ReadNow is Read if it has to wait for nothing: neither for a block lock nor, as
// far as the Store can tell, for the medium. It allocates nothing.
func (r *Replica) ReadNow(p []byte, off int64) (done bool, err error) {
	now, able := r.cfg.Store.(backing.NowReader)
	if n := int64(len(p)); able && r.locks.tryLock(off, n, false) {
		if err = r.whole(); err == nil {
			done, err = now.ReadNow(p, off)
		}
		r.locks.unlock(off, n, false)
	}
	return done, err
}

// Write writes the replica.
func (r *Replica) Write(p []byte, off int64) error {
	n := int64(len(p))
	r.locks.lock(off, n, true)
	defer r.locks.unlock(off, n, true)
	return r.cfg.Store.WriteAt(p, off)
}

// WriteNow is Write if it need not wait for a block lock; it may wait for the medium.
// done says that the Store was asked, and may have written, also when there is an error.
func (r *Replica) WriteNow(p []byte, off int64) (done bool, err error) {
	n := int64(len(p))
	if !r.locks.tryLock(off, n, true) {
		return false, nil
	}
	err = r.cfg.Store.WriteAt(p, off)
	r.locks.unlock(off, n, true)
	return true, err
}

// Modify reads p, has change put new bytes in its place, and writes those, while
// nobody else reads or writes its blocks. Without wrote, nothing was written.
func (r *Replica) Modify(p []byte, off int64, change func(p []byte) (write bool)) (wrote bool, err error) {
	n := int64(len(p))
	r.locks.lock(off, n, true)
	defer r.locks.unlock(off, n, true)
	if err := r.whole(); err != nil {
		return false, err
	}
	if err := r.cfg.Store.ReadAt(p, off); err != nil || !change(p) {
		return false, err
	}
	return true, r.cfg.Store.WriteAt(p, off)
}

// whole is the error of an atomic write of which a half is there: no read that has
// waited for its blocks may show that.
func (r *Replica) whole() error {
	if err := r.torn.Load(); err != nil {
		return *err
	}
	return nil
}

// Zero writes n zeros, and gives their space back where the medium can do that.
func (r *Replica) Zero(off, n int64) error {
	r.locks.lock(off, n, true)
	defer r.locks.unlock(off, n, true)
	return r.cfg.Store.Zero(off, n)
}
