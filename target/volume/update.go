package volume

import (
	"context"
	"errors"
	"fmt"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication"
	"github.com/twinlun/twinlun/replication/coherence"
)

// MaxUpdate bounds an Update, in bytes: what COMPARE AND WRITE can ask for (255 blocks
// of 512 bytes), rounded up. It is short because its extents are kept from the peer,
// and its blocks from everybody, until all of them are there.
const MaxUpdate = 128 << 10

// Update reads the n bytes at off, hands them to change, and stores what change
// made of them if it returns true; durably if fua. Nobody, at either site, reads or
// writes any of these blocks between the read and the write, and two Updates see
// each other whole or not at all. change is called once at most, must not block,
// and does not keep p. With an error of the medium, any part may have been written,
// and so may it have when the process dies.
func (v *Volume) Update(ctx context.Context, off, n int64, fua bool, change func(p []byte) bool) error {
	if off < 0 || n < 0 || n > MaxUpdate || n > v.geo.Size-off {
		return fmt.Errorf("update %d bytes at offset %d: at most %d, and the LUN has %d", n, off, int64(MaxUpdate), v.geo.Size)
	}
	if n == 0 {
		return nil
	}
	u := &update{v: v, off: off, p: make([]byte, n), run: v.geo.Covering(off, n), change: change}
	done, err := u.atOnce()
	if !done {
		err = u.inTurn(ctx)
	}
	if err != nil {
		return fmt.Errorf("update %d bytes at offset %d: %w", n, off, err)
	}
	if !fua || !u.wrote {
		return nil
	}
	return v.Sync(ctx)
}

// update is an Update under way.
type update struct {
	v      *Volume
	off    int64
	p      []byte
	run    dirtymap.Range // its extents
	change func(p []byte) bool
	wrote  bool
}

// perform does the work; all extents are entered for writing.
func (u *update) perform() (err error) {
	u.wrote, err = u.v.r.Modify(u.p, u.off, u.change)
	if u.wrote {
		u.v.wrote(access{kind: write, p: u.p, off: u.off, n: int64(len(u.p))}, u.run)
	}
	return err
}

// atOnce does the work if all extents are owned already. Else it holds nothing.
func (u *update) atOnce() (done bool, err error) {
	v := u.v
	if !v.m.Begin() {
		return false, nil
	}
	got := v.enter(access{kind: write}, u.run)
	if done = got == u.run; done {
		err = u.perform()
	}
	v.exit(got)
	if v.m.End() {
		v.r.Quiet()
	}
	return done, err
}

// inTurn waits for the extents. Only one update of several extents at a time does;
// DESIGN.md says why.
func (u *update) inTurn(ctx context.Context) error {
	if u.run.Count > 1 {
		if err := u.v.turn.take(ctx); err != nil {
			return err
		}
		defer u.v.turn.give()
	}
	for {
		if err := u.gather(ctx); !errors.Is(err, replication.ErrLetGo) {
			return err
		}
	}
}

// gather waits for one extent after the other, in ascending order, keeping those it
// has, and then does the work. With ErrLetGo, nothing was done.
func (u *update) gather(ctx context.Context) error {
	r := u.v.r
	q := r.NewRequest()
	defer q.Cancel()
	var held []coherence.Admit
	defer func() {
		for _, a := range held {
			r.Leave(a)
		}
	}()
	for ext := u.run.First; ext < u.run.End(); ext++ {
		q.Want(dirtymap.Range{First: ext, Count: 1}, true)
		admits, err := q.Next(ctx)
		if err != nil {
			return err
		}
		held = append(held, admits...)
		if err := admits[0].Err; err != nil {
			return err
		}
		q.Hold()
	}
	return u.perform()
}
