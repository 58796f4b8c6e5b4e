package dirtymap

import (
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// writer is a host that writes to a replica whose peer grants every mark: a
// window's extents become OWNED.
type writer struct {
	t     testing.TB
	m     *Map
	p     *Predictor
	asked int // calls of Window
}

func newWriter(t testing.TB, size, extent int64) *writer {
	m := New(Geometry{Size: size, ExtentSize: extent})
	return &writer{t: t, m: m, p: NewPredictor(m)}
}

// write is a host's write of n bytes at off.
func (w *writer) write(off, n int64) {
	w.t.Helper()
	r := w.m.geo.Covering(off, n)
	for ext := r.First; ext < r.End(); ext++ {
		if w.m.State(ext)&Held != 0 {
			continue
		}
		w.asked++
		win := w.p.Window(Range{First: ext, Count: r.End() - ext})
		if !win.Has(ext) || !win.Has(r.End()-1) || win.End() > w.m.geo.Extents() {
			w.t.Fatalf("window %+v for %+v", win, r)
		}
		for e := win.First; e < win.End(); e++ {
			w.m.Set(e, Held)
		}
	}
}

// perThousand fails if there were more Window calls than max per 1000 writes.
func (w *writer) perThousand(writes int, max float64) {
	w.t.Helper()
	got := float64(w.asked) * 1000 / float64(writes)
	w.t.Logf("%d windows for %d writes: %.2f per 1000", w.asked, writes, got)
	if got > max {
		w.t.Fatalf("want at most %.2f per 1000", max)
	}
	w.asked = 0
}

func TestSequentialWritesAreMarkedFarAhead(t *testing.T) {
	const size = 1 << 28
	for _, extent := range []int64{4 << 10, 64 << 10, 1 << 20} {
		up := newWriter(t, size, extent)
		for off := int64(0); off < size; off += 4096 {
			up.write(off, 4096)
		}
		up.perThousand(size/4096, 0.2)
		down := newWriter(t, size, extent)
		for off := int64(size - 4096); off >= 0; off -= 4096 {
			down.write(off, 4096)
		}
		down.perThousand(size/4096, 0.2)
	}
}

func TestSequentialWindowsDouble(t *testing.T) {
	for _, down := range []bool{false, true} {
		p := NewPredictor(New(Geometry{Size: 1 << 40, ExtentSize: 64 << 10}))
		at := uint64(160_000)
		want := uint64(16)
		for range 12 {
			w := p.Window(Range{First: at, Count: 1})
			if w.Count != want {
				t.Fatalf("down %t: %d extents, want %d", down, w.Count, want)
			}
			if at = w.End(); down {
				at = w.First - 1
			}
			want = min(want*2, 1024)
		}
	}
}

func TestEightStreamsAmongRandomWrites(t *testing.T) {
	w := newWriter(t, 1<<40, 64<<10)
	rnd := rand.New(rand.NewPCG(5, 6))
	for i := range int64(200_000) {
		w.write(i%8<<34+i/8*4096, 4096)
	}
	w.perThousand(200_000, 0.5)
	// Random writes beside them, on fresh ground each, leave them in memory.
	random := 0
	for i := range int64(200_000) {
		w.write(i%8<<34+(200_000+i)/8*4096, 4096)
		if i%100 == 0 {
			before := w.asked
			w.write((1<<38)+rnd.Int64N(1<<39)&^4095, 4096)
			random += w.asked - before
		}
	}
	w.asked -= random
	w.perThousand(200_000, 0.2)
}

func TestQueuedSequentialWritesMayOvertake(t *testing.T) {
	w := newWriter(t, 1<<32, 64<<10)
	rnd := rand.New(rand.NewPCG(7, 8))
	const writes = 1 << 18
	for i := int64(0); i < writes; i += 32 {
		for _, j := range rnd.Perm(32) {
			w.write((i+int64(j))*4096, 4096)
		}
	}
	w.perThousand(writes, 0.3)
}

func TestRandomWritesIn4GiB(t *testing.T) {
	w := newWriter(t, 1<<40, 64<<10)
	rnd := rand.New(rand.NewPCG(1, 2))
	const writes = 65_536
	for _, max := range []float64{50, 1, 1} {
		for range writes {
			w.write(rnd.Int64N(1<<20)*4096, 4096)
		}
		w.perThousand(writes, max)
	}
	if s := w.m.State(1 << 17); s != 0 {
		t.Fatalf("far outside of the 4 GiB: %v", s)
	}
}

func TestSparseWritesStayNarrow(t *testing.T) {
	w := newWriter(t, 1<<40, 64<<10)
	for i := range int64(1000) {
		w.write(i*997<<20, 4096)
	}
	owned := 0
	for ext := range w.m.geo.Extents() {
		owned += int(w.m.State(ext) & Held / Held)
	}
	if owned != 1000*16 {
		t.Fatalf("%d extents for 1000 lone writes", owned)
	}
}

func TestDensityOfRegularPatterns(t *testing.T) {
	for _, c := range []struct {
		every, from uint64
		dense       bool
	}{
		{16, 0, false}, {16, 1, false}, {16, 15, false}, {8, 0, false}, {32, 0, false},
		{2, 0, true}, {2, 1, true}, {1, 0, true}, {1 << 20, 0, false},
	} {
		m := New(Geometry{Size: 1 << 30, ExtentSize: 64 << 10})
		for ext := c.from; ext < 1024; ext += c.every {
			m.Set(ext, Held)
		}
		for exp := uint(8); exp <= 10; exp++ {
			if got := NewPredictor(m).dense(aligned(0, exp)); got != c.dense {
				t.Errorf("%d extents, every %dth OWNED from %d on: dense %t", 1<<exp, c.every, c.from, got)
			}
		}
	}
}

func TestTwoSitesOnOneExtentShrinkToIt(t *testing.T) {
	p := NewPredictor(New(Geometry{Size: 1 << 30, ExtentSize: 64 << 10}))
	const ext = 1234
	rounds := 0
	for ; ; rounds++ {
		w := p.Window(Range{First: ext, Count: 1})
		if w == (Range{First: ext, Count: 1}) {
			break
		}
		for e := w.First; e < w.End(); e++ { // the peer takes all of it
			p.TooWide(e)
		}
		if rounds > 10 {
			t.Fatalf("still %+v", w)
		}
	}
	if rounds != 4 { // from 16 extents
		t.Fatalf("%d rounds", rounds)
	}
	if far := p.Window(Range{First: ext + 8192, Count: 1}); far.Count != 16 {
		t.Fatalf("another region has %+v", far)
	}
}

func TestLimitRecovers(t *testing.T) {
	p := NewPredictor(New(Geometry{Size: 1 << 30, ExtentSize: 64 << 10}))
	for range 5 {
		p.Window(Range{First: 100, Count: 1})
		p.TooWide(100)
	}
	for _, want := range []uint64{1, 2, 4, 8, 16, 16} {
		for i := range uint64(calmWindows) {
			// Writes that continue nothing.
			if w := p.Window(Range{First: i % 2 * 512, Count: 1}); w.Count != want {
				t.Fatalf("%+v, want %d extents", w, want)
			}
		}
	}
}

func TestTooWideWithoutAWindowChangesNothing(t *testing.T) {
	p := NewPredictor(New(Geometry{Size: 1 << 30, ExtentSize: 64 << 10}))
	for ext := range uint64(16384) {
		p.TooWide(ext)
	}
	if w := p.Window(Range{First: 5, Count: 1}); w != (Range{First: 0, Count: 16}) {
		t.Fatalf("%+v", w)
	}
}

func TestWindowStaysOutOfANarrowRegion(t *testing.T) {
	p := NewPredictor(New(Geometry{Size: 1 << 30, ExtentSize: 64 << 10}))
	p.Window(Range{First: 1024, Count: 1})
	p.TooWide(1024)
	at := uint64(1)
	for at < 1024 {
		w := p.Window(Range{First: at, Count: 1})
		if w.Has(1024) {
			t.Fatalf("window %+v reaches into the narrow region", w)
		}
		at = w.End()
	}
	if w := p.Window(Range{First: 1000, Count: 30}); w.First > 1000 || w.End() < 1030 {
		t.Fatalf("%+v lacks what was asked for", w)
	}
}

func TestWindowKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		geo := drawGeometry(t, 1<<32)
		m := New(geo)
		p, twin := NewPredictor(m), NewPredictor(m)
		most := max(1, uint64(maxWindow/geo.ExtentSize))
		var last Range
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			first := rapid.Uint64Range(0, geo.Extents()-1).Draw(t, "first")
			switch rapid.IntRange(0, 3).Draw(t, "how") {
			case 0:
				first = min(last.End(), geo.Extents()-1)
			case 1:
				first = max(last.First, 1) - 1
			case 2:
				p.TooWide(first)
				twin.TooWide(first)
			}
			count := rapid.OneOf(rapid.Just(uint64(1)), rapid.Uint64Range(1, 2*most)).Draw(t, "count")
			r := Range{First: first, Count: min(count, geo.Extents()-first)}
			w := p.Window(r)
			if w.First > r.First || w.End() < r.End() || w.End() > geo.Extents() || w.Count > max(most, r.Count) {
				t.Fatalf("window %+v for %+v of %d", w, r, geo.Extents())
			}
			if again := twin.Window(r); again != w {
				t.Fatalf("%+v, and from the same past %+v", w, again)
			}
			if last = w; rapid.Bool().Draw(t, "granted") {
				for ext := w.First; ext < min(w.End(), w.First+3000); ext++ {
					m.Set(ext, Held)
				}
			}
		}
	})
}

func TestPredictorAllocatesNothing(t *testing.T) {
	p := NewPredictor(New(Geometry{Size: 1 << 40, ExtentSize: 64 << 10}))
	ext := uint64(0)
	if n := testing.AllocsPerRun(1000, func() {
		p.Window(Range{First: ext, Count: 1})
		p.TooWide(ext)
		ext += 7919
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkWindow(b *testing.B) {
	m := New(Geometry{Size: 1 << 40, ExtentSize: 64 << 10})
	for ext := range m.geo.Extents() {
		m.Set(ext, Held)
	}
	p := NewPredictor(m)
	rnd := rand.New(rand.NewPCG(1, 2))
	for b.Loop() {
		p.Window(Range{First: rnd.Uint64N(m.geo.Extents()), Count: 1})
	}
}
