package volume

import (
	"context"
	"errors"
	"fmt"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication"
	"github.com/twinlun/twinlun/replication/coherence"
)

// MaxUpdate bounds an Update and a WriteAtomic, in bytes: what COMPARE AND WRITE can ask
// for (255 blocks of 512 bytes), rounded up. It is short because its extents are kept
// from the peer, and its blocks from everybody, until all of them are there.
const MaxUpdate = 128 << 10

// Update reads the n bytes at off, hands them to change, and stores what change
// made of them if it returns true; durably if fua. Nobody, at either site, reads or
// writes any of these blocks between the read and the write, and two Updates see
// each other whole or not at all. change is called once at most, must not block,
// and does not keep p. With an error of the medium, any part may have been written,
// and so may it have when the process dies.
func (v *Volume) Update(ctx context.Context, off, n int64, fua bool, change func(p []byte) bool) error {
	return v.leased(ctx, func() error { return v.update(ctx, off, n, fua, change) })
}

func (v *Volume) update(ctx context.Context, off, n int64, fua bool, change func(p []byte) bool) error {
	if err := v.checkWhole("update", off, n); err != nil || n == 0 {
		return err
	}
	p, wrote := make([]byte, n), false
	w := v.whole(off, n, func() (_ bool, err error) {
		wrote, err = v.r.Modify(p, off, change)
		return wrote, err
	})
	if err := w.do(ctx); err != nil {
		return fmt.Errorf("update %d bytes at offset %d: %w", n, off, err)
	}
	if !fua || !wrote {
		return nil
	}
	return v.sync(ctx)
}

// WriteAtomic stores p at off, all of it or nothing, durably if fua: so it is seen by
// readers at both sites, and so it is after a crash or a power failure. With an error
// nothing was stored; or, if the replica is out of service because of it, all of it may
// be when the replica is opened again.
func (v *Volume) WriteAtomic(ctx context.Context, p []byte, off int64, fua bool) error {
	return v.leased(ctx, func() error { return v.writeAtomic(ctx, p, off, fua) })
}

func (v *Volume) writeAtomic(ctx context.Context, p []byte, off int64, fua bool) error {
	n := int64(len(p))
	if err := v.checkWhole("write atomically", off, n); err != nil || n == 0 {
		return err
	}
	w := v.whole(off, n, func() (bool, error) {
		return true, v.r.WriteAtomic(p, off)
	})
	w.clean = true
	if err := w.do(ctx); err != nil {
		return fmt.Errorf("write atomically %d bytes at offset %d: %w", n, off, err)
	}
	if !fua {
		return nil
	}
	return v.sync(ctx)
}

// readWhole reads p in one piece.
func (v *Volume) readWhole(ctx context.Context, p []byte, off int64) error {
	n := int64(len(p))
	w := v.whole(off, n, func() (bool, error) {
		return v.r.Modify(p, off, func([]byte) bool { return false })
	})
	if err := w.do(ctx); err != nil {
		return fmt.Errorf("read %d bytes at offset %d: %w", n, off, err)
	}
	return nil
}

func (v *Volume) checkWhole(what string, off, n int64) error {
	if off < 0 || n < 0 || n > MaxUpdate || n > v.geo.Size-off {
		return fmt.Errorf("%s %d bytes at offset %d: at most %d, and the LUN has %d", what, n, off, int64(MaxUpdate), v.geo.Size)
	}
	return nil
}

// whole is a command that needs all of its extents at once, for writing.
type whole struct {
	v    *Volume
	a    access
	run  dirtymap.Range // its extents
	work func() (wrote bool, err error)
	// clean says that the map file must not call any of the extents volatile, so that an
	// operating system crash cannot take back what was written to one of them, or leave
	// what of it had been copied by then.
	clean bool
}

func (v *Volume) whole(off, n int64, work func() (wrote bool, err error)) *whole {
	return &whole{v: v, a: access{kind: write, off: off, n: n}, run: v.geo.Covering(off, n), work: work}
}

// do does the work.
func (w *whole) do(ctx context.Context) error {
	if !w.clean {
		if done, err := w.atOnce(); done {
			return err
		}
	}
	for {
		if err := w.inTurn(ctx); !errors.Is(err, replication.ErrLetGo) {
			return err
		}
	}
}

// perform does the work; all extents are entered for writing.
func (w *whole) perform() error {
	wrote, err := w.work()
	if wrote {
		w.v.wrote(w.a, w.run)
	}
	return err
}

// atOnce does the work if all extents are owned already. Else it holds nothing.
func (w *whole) atOnce() (done bool, err error) {
	v := w.v
	if !v.m.Begin() {
		return false, nil
	}
	got := v.enter(w.a, w.run)
	if done = got == w.run; done {
		err = w.perform()
	}
	v.exit(got)
	if v.m.End() {
		v.r.Quiet()
	}
	return done, err
}

// inTurn waits for the extents, and does the work. With ErrLetGo, nothing was done.
func (w *whole) inTurn(ctx context.Context) error {
	q := w.v.r.NewRequest()
	defer q.Cancel()
	held, err := w.take(ctx, q)
	defer func() {
		for _, a := range held {
			w.v.r.Leave(a)
		}
	}()
	if err == nil && w.clean {
		q.Sync()
		err = awaitSync(ctx, q)
	}
	if err != nil {
		return err
	}
	return w.perform()
}

// take is gather. Only one command at a time waits for several extents; DESIGN.md says
// why.
func (w *whole) take(ctx context.Context, q *replication.Request) ([]coherence.Admit, error) {
	if w.run.Count > 1 {
		if err := w.v.turn.take(ctx); err != nil {
			return nil, err
		}
		defer w.v.turn.give()
	}
	return w.gather(ctx, q)
}

// gather waits for one extent after the other, in ascending order, keeping those it
// has; they are returned also with an error.
func (w *whole) gather(ctx context.Context, q *replication.Request) (held []coherence.Admit, err error) {
	for ext := w.run.First; ext < w.run.End(); ext++ {
		q.Want(dirtymap.Range{First: ext, Count: 1}, true)
		admits, err := q.Next(ctx)
		if err != nil {
			return held, err
		}
		held = append(held, admits...)
		if err := admits[0].Err; err != nil {
			return held, err
		}
		q.Hold()
	}
	return held, nil
}

// awaitSync waits for the Sync that was asked for.
func awaitSync(ctx context.Context, q *replication.Request) error {
	admits, err := q.Next(ctx)
	if err != nil {
		return err
	}
	return admits[0].Err
}
