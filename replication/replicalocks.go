package replication

import (
	"context"
	"sync"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/target/backing"
	"github.com/twinlun/twinlun/task"
)

// lockStripes is how many blocks can be locked apart from one another: enough
// that a hundred commands at random places seldom meet by chance (64 KiB memory).
const lockStripes = 1024

// blockLocks keep reads and writes of one block from tearing each other. Block b
// belongs to stripe b modulo lockStripes; a range takes its stripes in ascending
// order, so that two ranges cannot wait for each other. They are held for one call
// of the backing store (two by Modify), and nothing else is waited for while they are
// held.
//
// Not sync.RWMutex: a task may wait here for another one's I/O, and in simulation
// waiting must go through the Runtime. Without contention nothing is allocated.
type blockLocks struct {
	run    task.Runtime
	stripe [lockStripes]lockStripe
}

type lockStripe struct {
	mu      sync.Mutex
	writing bool
	readers int32
	queue   []lockWaiter // first come, first served
	_       [64 - 40]byte
}

type lockWaiter struct {
	write bool
	mine  task.Signal // set when the lock is handed over
}

// lock locks the blocks that [off, off+n) touches, n > 0, in bytes.
func (l *blockLocks) lock(off, n int64, write bool) {
	for a, b := range stripes(off, n) {
		for i := a; i < b; i++ {
			l.stripe[i].lock(l.run, write)
		}
	}
}

// tryLock is lock for reading, unless it would have to wait.
func (l *blockLocks) tryLock(off, n int64) bool {
	for a, b := range stripes(off, n) {
		for i := a; i < b; i++ {
			if !l.stripe[i].tryLock() {
				l.unlockUpTo(off, n, i)
				return false
			}
		}
	}
	return true
}

// unlockUpTo takes back what tryLock took before it came to a stripe.
func (l *blockLocks) unlockUpTo(off, n, end int64) {
	for a, b := range stripes(off, n) {
		for i := a; i < b; i++ {
			if i == end {
				return
			}
			l.stripe[i].unlock(false)
		}
	}
}

func (l *blockLocks) unlock(off, n int64, write bool) {
	for a, b := range stripes(off, n) {
		for i := a; i < b; i++ {
			l.stripe[i].unlock(write)
		}
	}
}

// stripes yields the stripes of [off, off+n) as ascending intervals.
func stripes(off, n int64) func(yield func(a, b int64) bool) {
	return func(yield func(a, b int64) bool) {
		first, last := off/dirtymap.BlockSize, (off+n-1)/dirtymap.BlockSize
		a, b := first%lockStripes, last%lockStripes+1
		switch {
		case last-first+1 >= lockStripes:
			yield(0, lockStripes)
		case a < b:
			yield(a, b)
		default:
			_ = yield(0, b) && yield(a, lockStripes)
		}
	}
}

func (s *lockStripe) lock(run task.Runtime, write bool) {
	s.mu.Lock()
	if len(s.queue) == 0 && s.free(write) {
		s.take(write)
		s.mu.Unlock()
		return
	}
	w := lockWaiter{write: write, mine: run.NewSignal()}
	s.queue = append(s.queue, w)
	s.mu.Unlock()
	w.mine.Wait(context.Background())
}

// tryLock takes the stripe for reading, if it is free and nobody stands in line.
func (s *lockStripe) tryLock() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) > 0 || !s.free(false) {
		return false
	}
	s.take(false)
	return true
}

func (s *lockStripe) unlock(write bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if write {
		s.writing = false
	} else {
		s.readers--
	}
	for len(s.queue) > 0 && s.free(s.queue[0].write) {
		w := s.queue[0]
		s.queue = s.queue[1:]
		s.take(w.write)
		w.mine.Set()
	}
	if len(s.queue) == 0 {
		s.queue = nil
	}
}

func (s *lockStripe) free(write bool) bool { return !s.writing && (!write || s.readers == 0) }

func (s *lockStripe) take(write bool) {
	if write {
		s.writing = true
	} else {
		s.readers++
	}
}

// Read reads the replica; each block is as some write left it. Whether the bytes
// are the newest is the caller's business.
func (r *Replica) Read(p []byte, off int64) error {
	n := int64(len(p))
	r.locks.lock(off, n, false)
	err := r.cfg.Store.ReadAt(p, off)
	r.locks.unlock(off, n, false)
	return err
}

// ReadNow is Read if it has to wait for nothing: neither for a block lock nor, as
// far as the Store can tell, for the medium. It allocates nothing.
func (r *Replica) ReadNow(p []byte, off int64) (done bool, err error) {
	now, able := r.cfg.Store.(backing.NowReader)
	if n := int64(len(p)); able && r.locks.tryLock(off, n) {
		done, err = now.ReadNow(p, off)
		r.locks.unlock(off, n, false)
	}
	return done, err
}

// Write writes the replica.
func (r *Replica) Write(p []byte, off int64) error {
	n := int64(len(p))
	r.locks.lock(off, n, true)
	err := r.cfg.Store.WriteAt(p, off)
	r.locks.unlock(off, n, true)
	return err
}

// Modify reads p, has change put new bytes in its place, and writes those, while
// nobody else reads or writes its blocks. Without wrote, nothing was written.
func (r *Replica) Modify(p []byte, off int64, change func(p []byte) (write bool)) (wrote bool, err error) {
	n := int64(len(p))
	r.locks.lock(off, n, true)
	defer r.locks.unlock(off, n, true)
	if err := r.cfg.Store.ReadAt(p, off); err != nil || !change(p) {
		return false, err
	}
	return true, r.cfg.Store.WriteAt(p, off)
}

// Zero writes n zeros, and gives their space back where the medium can do that.
func (r *Replica) Zero(off, n int64) error {
	r.locks.lock(off, n, true)
	err := r.cfg.Store.Zero(off, n)
	r.locks.unlock(off, n, true)
	return err
}
