package volume

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/twinlun/twinlun/replication"
	"github.com/twinlun/twinlun/task"
)

// LUN is a volume that outlives its replica: while a replica is closed and opened
// anew, as when the LUN grows, commands wait, and go on with the next one. All
// methods may be called concurrently; they are Volume's, and say the same.
type LUN struct {
	run task.Runtime
	now atomic.Pointer[Volume]

	mu      sync.Mutex
	ended   bool
	waiting []task.Signal // for the next replica, or the end
}

// NewLUN makes a LUN that begins with a volume.
func NewLUN(v *Volume) *LUN {
	l := &LUN{run: v.r.Runtime()}
	l.now.Store(v)
	return l
}

// Replace goes on with the volume of the next replica; its bytes are those of the last
// one, which has been closed, and it is at least as large.
func (l *LUN) Replace(v *Volume) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now.Store(v)
	l.wakeLocked()
}

// End says that no replica will follow: commands end with
// replication.ErrReplicaClosed when the present one is closed.
func (l *LUN) End() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.wakeLocked()
}

func (l *LUN) wakeLocked() {
	for _, w := range l.waiting {
		w.Set()
	}
	l.waiting = nil
}

// Volume is the present replica's volume.
func (l *LUN) Volume() *Volume { return l.now.Load() }

// Size is the LUN's size in bytes. It may grow.
func (l *LUN) Size() int64 { return l.Volume().Size() }

// ReadAt reads.
func (l *LUN) ReadAt(ctx context.Context, p []byte, off int64) error {
	for {
		v := l.Volume()
		if err := v.ReadAt(ctx, p, off); !l.again(ctx, v, &err) {
			return err
		}
	}
}

// WriteAt writes.
func (l *LUN) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	return l.leased(ctx, func() error { return l.store(ctx, access{kind: write, p: p, off: off, n: int64(len(p))}, fua) })
}

// store does a write. When the end of a replica interrupts it, what has been written is
// not written again: it may have been read, and overwritten by others, meanwhile.
func (l *LUN) store(ctx context.Context, a access, fua bool) (err error) {
	parts := []access{a}
	for {
		v := l.Volume()
		if parts, err = v.doParts(ctx, parts); !l.again(ctx, v, &err) {
			break
		}
	}
	if err != nil || !fua {
		return err
	}
	return l.Sync(ctx)
}

// Leased does something that is answered to a host and needs no medium, and returns when
// it may be answered, as for any other command: not while the other node may serve alone.
// The error is that of do, or of a read or write that could not be answered.
func (l *LUN) Leased(ctx context.Context, do func() error) error { return l.leased(ctx, do) }

// leased is Volume's, over several replicas.
func (l *LUN) leased(ctx context.Context, do func() error) error {
	era := l.Volume().era()
	if err := do(); err != nil {
		return err
	}
	return l.Volume().settle(ctx, era)
}

// WriteAtomic writes atomically, once: what has been done is not done again.
func (l *LUN) WriteAtomic(ctx context.Context, p []byte, off int64, fua bool) error {
	return l.leased(ctx, func() error { return l.writeAtomic(ctx, p, off, fua) })
}

func (l *LUN) writeAtomic(ctx context.Context, p []byte, off int64, fua bool) error {
	for {
		v := l.Volume()
		if err := v.WriteAtomic(ctx, p, off, false); !l.again(ctx, v, &err) {
			if err != nil || !fua {
				return err
			}
			return l.Sync(ctx)
		}
	}
}

// Zero zeroes.
func (l *LUN) Zero(ctx context.Context, off, n int64, fua bool) error {
	return l.leased(ctx, func() error { return l.store(ctx, access{kind: zero, off: off, n: n}, fua) })
}

// Update updates. What has been done is not done again: the next replica would compare
// with what this one wrote.
func (l *LUN) Update(ctx context.Context, off, n int64, fua bool, change func(p []byte) bool) error {
	return l.leased(ctx, func() error { return l.update(ctx, off, n, fua, change) })
}

func (l *LUN) update(ctx context.Context, off, n int64, fua bool, change func(p []byte) bool) error {
	wrote := false
	once := func(p []byte) bool {
		wrote = change(p)
		return wrote
	}
	for {
		v := l.Volume()
		if err := v.Update(ctx, off, n, false, once); !l.again(ctx, v, &err) {
			if err != nil || !fua || !wrote {
				return err
			}
			return l.Sync(ctx)
		}
	}
}

// Sync makes durable.
func (l *LUN) Sync(ctx context.Context) error {
	for {
		v := l.Volume()
		if err := v.Sync(ctx); !l.again(ctx, v, &err) {
			return err
		}
	}
}

// again tells whether a command is to be tried again with the replica behind v, which
// was closed, and waits for that one. It replaces the error if ctx ends meanwhile.
func (l *LUN) again(ctx context.Context, v *Volume, err *error) bool {
	if *err == nil || !errors.Is(*err, replication.ErrReplicaClosed) {
		return false
	}
	l.mu.Lock()
	if l.now.Load() != v {
		l.mu.Unlock()
		return true
	}
	if l.ended {
		l.mu.Unlock()
		return false
	}
	mine := l.run.NewSignal()
	l.waiting = append(l.waiting, mine)
	l.mu.Unlock()
	if e := mine.Wait(ctx); e != nil {
		l.forget(mine)
		*err = e
		return false
	}
	return true
}

func (l *LUN) forget(mine task.Signal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.waiting, mine); i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
	}
}

// ReadNow reads, if it need not wait.
func (l *LUN) ReadNow(p []byte, off int64) (done bool, err error) {
	return l.Volume().ReadNow(p, off)
}

// WriteNow writes, if it need not wait.
func (l *LUN) WriteNow(p []byte, off int64) (done bool, err error) {
	return l.Volume().WriteNow(p, off)
}

// Mapped tells of holes.
func (l *LUN) Mapped(off, n int64) (mapped bool, run int64, err error) {
	return l.Volume().Mapped(off, n)
}

// Provisioning tells of space.
func (l *LUN) Provisioning() (used, available int64, ok bool) { return l.Volume().Provisioning() }
