package volume

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/coherence"
	"github.com/twinlun/twinlun/replication/salvage"
)

// testLease holds or not; after lapse() it holds once more.
type testLease struct {
	held   atomic.Bool
	lapses atomic.Bool
}

func (l *testLease) Holds() bool {
	if l.lapses.Swap(false) {
		l.held.Store(false)
		return true
	}
	return l.held.Load()
}

// role makes a side's role; terms have names of their own.
func role(term uint64, s coherence.Serve) coherence.Role {
	return coherence.Role{Term: term, ID: [16]byte{byte(term)}, Serve: s}
}

func (s *side) setRole(t testing.TB, r coherence.Role) {
	t.Helper()
	_, err := s.rep.SetRole(r)
	must(t, err)
}

// leasedPair joins two nodes; the first one has a lease.
func leasedPair(t testing.TB) (*pair, *testLease) {
	p, lease := newPair(t), &testLease{}
	lease.held.Store(true)
	p.sides[0].vol.lease = lease
	for _, s := range p.sides {
		s.setRole(t, role(1, coherence.ServeBoth))
	}
	return p, lease
}

// TestLease: without a lease nothing is answered; what is done is not done again, and is
// answered when the lease is back, unless the other site may have served alone.
func TestLease(t *testing.T) {
	data, got := pattern(8192, 3), make([]byte, 8192)
	commands := map[string]func(ctx context.Context, v *Volume) error{
		"read":  func(ctx context.Context, v *Volume) error { return v.ReadAt(ctx, got, 0) },
		"write": func(ctx context.Context, v *Volume) error { return v.WriteAt(ctx, data, 0, false) },
		"fua":   func(ctx context.Context, v *Volume) error { return v.WriteAt(ctx, data, 0, true) },
		"zero":  func(ctx context.Context, v *Volume) error { return v.Zero(ctx, 0, 8192, false) },
		"sync":  func(ctx context.Context, v *Volume) error { return v.Sync(ctx) },
		"update": func(ctx context.Context, v *Volume) error {
			return v.Update(ctx, 0, 4096, false, func([]byte) bool { return true })
		},
	}
	for name, do := range commands {
		for _, lost := range []bool{false, true} {
			p, lease := leasedPair(t)
			ctx, a := limited(t), p.sides[0]
			must(t, do(ctx, a.vol))
			lease.held.Store(false)
			era := a.rep.Era()
			done := make(chan error, 1)
			go func() { done <- do(ctx, a.vol) }()
			if lost {
				a.setRole(t, role(2, coherence.ServeNone))
				if err := <-done; !errors.Is(err, coherence.ErrUnavailable) || a.rep.Era() == era {
					t.Errorf("%s, while the other site served alone: %v", name, err)
				}
				a.setRole(t, role(3, coherence.ServeBoth))
				lease.held.Store(true)
				must(t, do(ctx, a.vol))
				continue
			}
			select {
			case err := <-done:
				t.Errorf("%s without a lease: %v", name, err)
			default:
			}
			lease.held.Store(true)
			must(t, <-done)
		}
	}
}

// TestLeaseNow: what cannot wait is not begun without a lease, and not done twice when
// the lease is lost in the middle.
func TestLeaseNow(t *testing.T) {
	p, lease := leasedPair(t)
	ctx, a, buf := limited(t), p.sides[0].vol, pattern(4096, 4)
	now := func(write bool) (bool, error) {
		for { // the other site may read a block, to copy it
			must(t, a.WriteAt(ctx, buf, 0, false))
			try := a.ReadNow
			if write {
				try = a.WriteNow
			}
			if done, err := try(buf, 0); done || err != nil {
				return done, err
			}
		}
	}
	for _, write := range []bool{false, true} {
		if done, err := now(write); !done || err != nil {
			t.Errorf("write %v with a lease: %v, %v", write, done, err)
		}
	}
	lease.held.Store(false)
	for _, try := range []func([]byte, int64) (bool, error){a.ReadNow, a.WriteNow} {
		if done, err := try(buf, 0); done || err != nil {
			t.Errorf("without a lease: %v, %v", done, err)
		}
	}
	lease.lapses.Store(true)
	if done, err := a.ReadNow(buf, 0); done || err != nil {
		t.Errorf("read while the lease lapses: %v, %v", done, err)
	}
	for lapsed := false; !lapsed; {
		lease.held.Store(true)
		must(t, a.WriteAt(ctx, buf, 0, false))
		lease.lapses.Store(true)
		done, err := a.WriteNow(buf, 0)
		if lapsed = done; lapsed && !errors.Is(err, ErrLapsed) {
			t.Errorf("write while the lease lapses: %v", err)
		}
	}
	lease.held.Store(true)
	if n := testing.AllocsPerRun(100, func() { _, _ = a.WriteNow(buf, 0) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestServeAlone cuts the link, has one side serve alone, and joins both again.
func TestServeAlone(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	a, b := p.sides[0], p.sides[1]
	for _, s := range p.sides {
		s.setRole(t, role(1, coherence.ServeBoth))
	}
	one, two, got := pattern(4096, 1), pattern(4096, 2), make([]byte, 4096)
	const far = 896 << 10
	must(t, a.vol.WriteAt(ctx, one, 0, false))
	must(t, b.vol.WriteAt(ctx, one, far, true)) // b owns it
	p.cut()
	a.setRole(t, role(2, coherence.ServeAlone))
	b.setRole(t, role(2, coherence.ServeNone))
	must(t, a.vol.ReadAt(ctx, got, 0))
	must(t, a.vol.WriteAt(ctx, two, 0, true))
	if err := a.vol.ReadAt(ctx, got, far); !errors.Is(err, coherence.ErrHeld) {
		t.Errorf("read of what the lost site has: %v", err)
	}
	if err := b.vol.ReadAt(ctx, got, 0); !errors.Is(err, coherence.ErrUnavailable) {
		t.Errorf("read at the site that does not serve: %v", err)
	}
	p.connect(t)
	p.joinBoth(t, coherence.Role{})
	for _, s := range p.sides {
		for off, want := range map[int64][]byte{0: two, far: one} {
			must(t, s.vol.ReadAt(ctx, got, off))
			if !bytes.Equal(got, want) {
				t.Errorf("other bytes at %d", off)
			}
		}
	}
}

// joinBoth has the first side, which serves alone, propose that both do, as soon as they
// are joined.
func (p *pair) joinBoth(t testing.TB, like coherence.Role) {
	ctx := limited(t)
	for joined := false; !joined; {
		must(t, ctx.Err())
		r := role(2, coherence.ServeAlone)
		r.Loss, r.Patience, r.Tied = like.Loss, like.Patience, true
		var err error
		joined, err = p.sides[0].rep.SetRole(r)
		must(t, err)
		if r.Tied = joined; !joined {
			p.sides[0].setRole(t, r)
			must(t, p.sides[0].vol.ReadAt(ctx, make([]byte, 4096), 0)) // takes its time while they join
		}
	}
	for _, s := range p.sides {
		s.setRole(t, role(3, coherence.ServeBoth))
	}
}

// TestHeldUntilBack: what only the lost site has is waited for, and is there when that site
// comes back in time.
func TestHeldUntilBack(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	a, b := p.sides[0], p.sides[1]
	for _, s := range p.sides {
		s.setRole(t, role(1, coherence.ServeBoth))
	}
	const readAt, writeAt = 896 << 10, 448 << 10
	one, two, got := pattern(4096, 1), pattern(4096, 2), make([]byte, 4096)
	must(t, a.vol.WriteAt(ctx, one, 0, false))
	must(t, b.vol.WriteAt(ctx, one, readAt, true))
	must(t, b.vol.WriteAt(ctx, one, writeAt, true))
	p.cut()
	alone := role(2, coherence.ServeAlone)
	alone.Patience = math.MaxUint32
	a.setRole(t, alone)
	b.setRole(t, role(2, coherence.ServeNone))
	done := make(chan error, 2)
	go func() { done <- a.vol.ReadAt(ctx, got, readAt) }()
	go func() { done <- a.vol.WriteAt(ctx, two, writeAt, false) }()
	for a.rep.Status().Waiting < 2 {
		must(t, ctx.Err())
		must(t, a.vol.ReadAt(ctx, make([]byte, 4096), 0)) // nothing else waits
	}
	p.connect(t)
	p.joinBoth(t, alone)
	must(t, <-done)
	must(t, <-done)
	if !bytes.Equal(got, one) {
		t.Error("other bytes were read")
	}
	for _, s := range p.sides {
		must(t, s.vol.ReadAt(ctx, got, writeAt))
		if !bytes.Equal(got, two) {
			t.Error("other bytes than were written")
		}
	}
}

// salvaged is a salvage file in memory.
type salvaged struct {
	bytes.Buffer
	whole bool
}

func (f *salvaged) Commit() error  { f.whole = true; return nil }
func (f *salvaged) Discard() error { f.Reset(); return nil }

// TestSalvage has the first side serve its older data where the second one, which is
// lost, has newer: that goes to a file when the second one is back, and nowhere else.
func TestSalvage(t *testing.T) {
	p, ctx := newPairRate(t, 1), limited(t) // it copies one block, and is in debt then
	a, b := p.sides[0], p.sides[1]
	for _, s := range p.sides {
		s.setRole(t, role(1, coherence.ServeBoth))
	}
	one, two, got := pattern(4096, 1), pattern(4096, 2), make([]byte, 4096)
	const far = 896 << 10
	must(t, b.vol.WriteAt(ctx, one, far, false))
	for b.rep.Map().DirtyBlocks() > 0 || b.rep.Status().InFlight > 0 {
		must(t, ctx.Err())
		runtime.Gosched()
	}
	must(t, b.vol.WriteAt(ctx, two, far, true))
	p.cut()
	alone := role(2, coherence.ServeAlone)
	alone.Loss = coherence.LossServeStale
	a.setRole(t, alone)
	b.setRole(t, role(2, coherence.ServeNone))
	must(t, a.vol.ReadAt(ctx, got, far))
	if !bytes.Equal(got, one) {
		t.Error("not the older data")
	}
	p.connect(t)
	p.joinBoth(t, alone)
	for _, s := range p.sides {
		must(t, s.vol.ReadAt(ctx, got, far))
		if !bytes.Equal(got, one) {
			t.Error("what was served is not the truth")
		}
	}
	r, err := salvage.NewReader(&b.saved)
	must(t, err)
	if h := r.Header(); !b.saved.whole || h.LUN != [16]byte{1} || h.Geometry != geometry || h.Place != "here" {
		t.Errorf("whole %v, %+v", b.saved.whole, h)
	}
	blocks, err := r.Next()
	must(t, err)
	if blocks.Extent != far/uint64(geometry.ExtentSize) || blocks.Present != dirtymap.MaskOf(0, 1) || !bytes.Equal(blocks.Data, two) {
		t.Errorf("extent %d, blocks %x", blocks.Extent, blocks.Present[0])
	}
	if _, err := r.Next(); err != io.EOF {
		t.Error("more than was given up is salvaged")
	}
}
