package volume

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/dirtymap/mapfile"
)

// spans of atomic writes, in bytes: in an extent, and across several. They do not overlap.
var atomicSpans = []struct {
	name   string
	off, n int64
}{
	{"a block", 4096, 4096},
	{"within an extent", 8192, 16 << 10},
	{"a part of a block", 512 * 3, 512},
	{"across two extents", 256<<10 - 8192, 16 << 10},
	{"across three extents", 64<<10 - 4096, MaxUpdate},
	{"the end of the LUN", geometry.Size - 16384, 16384},
}

func TestWriteAtomic(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	for _, c := range atomicSpans {
		t.Run(c.name, func(t *testing.T) {
			whole := pattern(int(geometry.Size), 1)
			must(t, p.sides[0].vol.WriteAt(ctx, whole, 0, false))
			for i := range 4 { // the sites take turns
				part := whole[c.off : c.off+c.n]
				copy(part, pattern(len(part), byte(10+i)))
				must(t, p.sides[i%2].vol.WriteAtomic(ctx, part, c.off, i == 3))
				for _, s := range p.sides {
					got := make([]byte, len(whole))
					must(t, s.vol.ReadAt(ctx, got, 0))
					if !bytes.Equal(got, whole) {
						t.Fatalf("after atomic write %d the LUN holds something else", i)
					}
				}
			}
		})
	}
}

func TestWriteAtomicOutsideItsBounds(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	v := p.sides[0].vol
	for _, c := range [][2]int64{{-1, 512}, {v.Size() - 511, 512}, {1 << 62, 512}, {0, MaxUpdate + 1}} {
		if v.WriteAtomic(ctx, make([]byte, c[1]), c[0], false) == nil {
			t.Errorf("%d bytes at %d", c[1], c[0])
		}
	}
	must(t, v.WriteAtomic(ctx, nil, v.Size(), true))
}

// Both sites write atomically, in one extent and across several, and read what they and
// the other one write, in pieces of any length: no read shows two writes in one span.
func TestNoReadShowsAPart(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	const writes = 16
	var writing, reading sync.WaitGroup
	stop, done := context.WithCancel(ctx)
	for h, s := range p.sides {
		for _, c := range atomicSpans[1:] {
			writing.Go(func() {
				for n := range writes {
					b := bytes.Repeat([]byte{byte(1 + (n*2+h)%255)}, int(c.n))
					if err := s.vol.WriteAtomic(ctx, b, c.off, n%8 == 0); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		reading.Go(func() {
			for n := 0; stop.Err() == nil && !t.Failed(); n++ {
				s.readSpan(ctx, t, 1+n%(len(atomicSpans)-1), n)
			}
		})
	}
	writing.Wait()
	done()
	reading.Wait()
}

// readSpan reads a span, with more around it or less, and checks it.
func (s *side) readSpan(ctx context.Context, t *testing.T, i, n int) {
	c := atomicSpans[i]
	more := int64(n) % 3 * 40960
	off, end := max(0, c.off-more), min(geometry.Size, c.off+c.n+more)
	b, done, err := make([]byte, end-off), false, error(nil)
	if n%4 == 0 {
		done, err = s.vol.ReadNow(b, off)
	}
	if !done && err == nil {
		err = s.vol.ReadAt(ctx, b, off)
	}
	if err != nil {
		t.Error(err)
	}
	if part := b[c.off-off:][:c.n]; !bytes.Equal(part[1:], part[:len(part)-1]) {
		t.Errorf("%s: a part of an atomic write", c.name)
	}
}

func TestWriteAtomicAndTheMedium(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	s := p.sides[0]
	want := pattern(16384, 1)
	must(t, s.vol.WriteAt(ctx, want, 0, false))
	broken := errors.New("medium error")
	s.store.setFail(broken)
	if err := s.vol.WriteAtomic(ctx, pattern(8192, 9), 4096, false); !errors.Is(err, broken) {
		t.Error(err)
	}
	if !bytes.Equal(s.store.data[:len(want)], want) {
		t.Error("it has written something")
	}
}

// An atomic write of two extents has both, and waits for a flush, when the link goes
// down. It must leave them: nobody joins while it is there.
func TestWriteAtomicLetsGo(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	a, b := p.sides[0], p.sides[1]
	must(t, a.vol.WriteAt(ctx, pattern(128<<10, 1), 0, false))
	a.store.mu.Lock()
	want := pattern(16384, 2)
	done := make(chan error)
	go func() { done <- a.vol.WriteAtomic(ctx, want, 64<<10-8192, false) }()
	users := func(n int) func() bool {
		return func() bool { return a.rep.Map().Users(0) == n && a.rep.Map().Users(1) == n }
	}
	until(ctx, t, "it has both extents", users(1))
	p.cut()
	until(ctx, t, "it has left them", users(0))
	a.store.mu.Unlock()
	p.connect(t)
	must(t, <-done)
	got := make([]byte, len(want))
	must(t, b.vol.ReadAt(ctx, got, 64<<10-8192))
	if !bytes.Equal(got, want) {
		t.Error("the other site reads something else")
	}
}

// A read that atomic writes disturb again and again takes its extents, and is whole.
func TestReadWhole(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	want := pattern(int(geometry.Size), 3)
	must(t, p.sides[0].vol.WriteAt(ctx, want, 0, false))
	got := make([]byte, 300<<10)
	must(t, p.sides[1].vol.readWhole(ctx, got, 50<<10))
	if !bytes.Equal(got, want[50<<10:][:len(got)]) {
		t.Error("it read something else")
	}
	stop, cancel := context.WithCancel(ctx)
	var disturbing sync.WaitGroup
	disturbing.Go(func() {
		for stop.Err() == nil {
			p.sides[1].rep.Map().Mix()
		}
	})
	must(t, p.sides[1].vol.ReadAt(ctx, got, 400<<10))
	cancel()
	disturbing.Wait()
	if !bytes.Equal(got, want[400<<10:][:len(got)]) {
		t.Error("a read that is disturbed read something else")
	}
}

// Before the journal has an atomic write, the map file calls none of its extents volatile:
// after a crash of the operating system the other site would have one of them as it was
// before, or with a part of the write that had been copied, and this one the others with
// the write.
func TestWriteAtomicIsOfFlushedExtents(t *testing.T) {
	t.Run("one", func(t *testing.T) { writeAtomicFlushed(t, 8192, 4096) })
	t.Run("two", func(t *testing.T) { writeAtomicFlushed(t, 16384, 64<<10-8192) })
}

func writeAtomicFlushed(t *testing.T, n int, off int64) {
	p, ctx := newPair(t), limited(t)
	a, b := p.sides[0], p.sides[1]
	id := mapfile.Identity{LUN: [16]byte{1}, Geometry: geometry}
	volatile := func() (which []uint64) {
		a.mapFile.mu.Lock()
		file := &mapMemory{data: bytes.Clone(a.mapFile.data)}
		a.mapFile.mu.Unlock()
		log, _, err := mapfile.Open(file, &id)
		if err != nil {
			t.Error(err)
			return nil
		}
		for ext := range geometry.Extents() {
			if s, err := log.State(ext); err != nil || s&dirtymap.Volatile != 0 {
				which = append(which, ext)
			}
		}
		return which
	}
	must(t, b.vol.WriteAt(ctx, pattern(128<<10, 1), 0, false))
	must(t, a.vol.WriteAt(ctx, pattern(4096, 2), 0, false)) // and fetches the first extent
	if len(volatile()) == 0 {
		t.Fatal("the map file calls no extent volatile; the test is about one that is")
	}
	puts := 0
	a.journal.writes = func() {
		puts++
		if v := volatile(); len(v) > 0 {
			t.Errorf("extents %v are volatile when the journal is written", v)
		}
	}
	must(t, a.vol.WriteAtomic(ctx, pattern(n, 3), off, false))
	if puts != 2 {
		t.Errorf("the journal was written %d times", puts)
	}
}
