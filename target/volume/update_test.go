package volume

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/twinlun/twinlun/task"
)

// until waits for something that is bound to happen.
func until(ctx context.Context, t *testing.T, what string, happened func() bool) {
	t.Helper()
	for !happened() {
		if task.System.Sleep(ctx, time.Millisecond) != nil {
			t.Fatal("never: ", what)
		}
	}
}

func TestUpdate(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	for _, c := range []struct {
		name   string
		off, n int64
	}{
		{"a block", 4096, 4096},
		{"a sector", 512 * 3, 512},
		{"across two extents", 64<<10 - 1024, 2048},
		{"across three extents", 64<<10 - 512, MaxUpdate},
		{"the end of the LUN", geometry.Size - 5000, 5000},
	} {
		t.Run(c.name, func(t *testing.T) {
			whole := pattern(int(geometry.Size), 1)
			must(t, p.sides[0].vol.WriteAt(ctx, whole, 0, false))
			for i := range 4 { // the sites take turns
				saw := make([]byte, c.n)
				err := p.sides[i%2].vol.Update(ctx, c.off, c.n, i == 3, func(p []byte) bool {
					copy(saw, p)
					for j := range p {
						p[j]++
					}
					return i != 2
				})
				must(t, err)
				part := whole[c.off : c.off+c.n]
				if !bytes.Equal(saw, part) {
					t.Fatalf("update %d saw something else than was written", i)
				}
				for j := range part {
					if i != 2 { // it took its change back
						part[j]++
					}
				}
				got := make([]byte, len(whole))
				must(t, p.sides[1-i%2].vol.ReadAt(ctx, got, 0))
				if !bytes.Equal(got, whole) {
					t.Fatalf("after update %d the LUN holds something else", i)
				}
			}
		})
	}
}

func TestUpdateOutsideItsBounds(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	v := p.sides[0].vol
	never := func([]byte) bool { t.Error("called"); return true }
	for _, c := range [][2]int64{{-1, 512}, {0, -1}, {v.Size() - 511, 512}, {1 << 62, 512}, {0, MaxUpdate + 1}} {
		if v.Update(ctx, c[0], c[1], false, never) == nil {
			t.Errorf("%d bytes at %d", c[1], c[0])
		}
	}
	must(t, v.Update(ctx, v.Size(), 0, true, never))
}

func TestUpdateAndTheMedium(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	s := p.sides[0]
	must(t, s.vol.WriteAt(ctx, pattern(4096, 1), 0, false))
	broken := errors.New("medium error")
	s.store.setFail(broken)
	err := s.vol.Update(ctx, 0, 512, false, func([]byte) bool { t.Error("what cannot be read is changed"); return true })
	if !errors.Is(err, broken) {
		t.Error(err)
	}
}

// Counters at both sites: no increment is lost, and the two halves of a pair, one in
// each of two extents, are never seen different.
func TestUpdatesOfBothSitesAreAtomic(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	const hosts, rounds = 6, 60
	spans := [][2]int64{{512, 512}, {64<<10 - 512, 1024}, {128<<10 - 4096, 70 << 10}, {64<<10 - 512, 66 << 10}}
	var running sync.WaitGroup
	for h := range hosts {
		running.Go(func() {
			for i := range rounds {
				s := spans[(h+i)%len(spans)]
				err := p.sides[h%2].vol.Update(ctx, s[0], s[1], i%16 == 0, func(p []byte) bool { return increment(t, p) })
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	// Each span begins with a counter of its own, but for the two that share one.
	want := map[int64]uint64{}
	for h := range hosts {
		for i := range rounds {
			want[spans[(h+i)%len(spans)][0]]++
		}
	}
	for off, n := range want {
		for _, s := range p.sides {
			got := make([]byte, 8)
			must(t, s.vol.ReadAt(ctx, got, off))
			if c := binary.LittleEndian.Uint64(got); c != n {
				t.Errorf("the counter at %d is %d after %d increments", off, c, n)
			}
		}
	}
}

// increment counts up at the beginning of a span, and keeps a copy 512 bytes further
// on if there is room.
func increment(t *testing.T, p []byte) bool {
	n := binary.LittleEndian.Uint64(p)
	if len(p) >= 1024 {
		if other := binary.LittleEndian.Uint64(p[512:]); other != n {
			t.Errorf("half an update: %d and %d", n, other)
		}
		binary.LittleEndian.PutUint64(p[512:], n+1)
	}
	binary.LittleEndian.PutUint64(p, n+1)
	return true
}

// An update of two extents has the first, and waits for the second, when the link
// goes down. It must leave the first: nobody joins while it is there.
func TestUpdateLetsGo(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	a, b := p.sides[0], p.sides[1]
	must(t, b.vol.WriteAt(ctx, pattern(4096, 1), 64<<10, false))
	b.store.mu.Lock() // b cannot read what a asks for
	done := make(chan error)
	go func() {
		done <- a.vol.Update(ctx, 64<<10-512, 1024, false, func(p []byte) bool {
			clear(p)
			return true
		})
	}()
	until(ctx, t, "it has the first extent", func() bool { return a.rep.Map().Users(0) == 1 })
	p.cut()
	until(ctx, t, "it has left the first extent", func() bool { return a.rep.Map().Users(0) == 0 })
	b.store.mu.Unlock()
	p.connect(t)
	must(t, <-done)
	got := make([]byte, 1024)
	must(t, b.vol.ReadAt(ctx, got, 64<<10))
	if !bytes.Equal(got[512:], pattern(1024, 1)[512:]) || !bytes.Equal(got[:512], make([]byte, 512)) {
		t.Error("the update did something else")
	}
}

// Aborted updates leave everything to the others.
func TestAbortedUpdates(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	a, b := p.sides[0], p.sides[1]
	must(t, b.vol.WriteAt(ctx, pattern(4096, 1), 64<<10, false))
	b.store.mu.Lock()
	short, abort := context.WithCancel(ctx)
	done := make(chan error)
	for range 3 {
		go func() {
			done <- a.vol.Update(short, 64<<10-512, 1024, false, func([]byte) bool { t.Error("aborted, but done"); return true })
		}()
	}
	until(ctx, t, "one has the first extent", func() bool { return a.rep.Map().Users(0) == 1 })
	abort()
	for range 3 {
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	if n := a.rep.Map().Users(0); n != 0 {
		t.Errorf("%d commands in the extent", n)
	}
	b.store.mu.Unlock()
	must(t, a.vol.Update(ctx, 64<<10-512, 1024, false, func([]byte) bool { return true }))
}

func TestTurn(t *testing.T) {
	tn, ctx := turn{run: task.System}, limited(t)
	must(t, tn.take(ctx))
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := tn.take(gone); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	done := make(chan int, 2)
	for i := range 2 {
		go func() {
			must(t, tn.take(ctx))
			done <- i
		}()
		until(ctx, t, "it is in the queue", func() bool { tn.mu.Lock(); defer tn.mu.Unlock(); return len(tn.queue) == i+1 })
	}
	for i := range 2 {
		tn.give()
		if got := <-done; got != i {
			t.Errorf("%d is let in as number %d", got, i)
		}
	}
	tn.give()
	if tn.taken {
		t.Error("taken by nobody")
	}
	// A turn that comes to one who has given up goes on to the next.
	must(t, tn.take(ctx))
	late := task.System.NewSignal()
	tn.queue = append(tn.queue, late)
	tn.give()
	if tn.leave(late) || !tn.taken {
		t.Error("the turn is not handed over")
	}
}
