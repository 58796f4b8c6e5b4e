package dirtymap

import (
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// rangeModel is what a Map should say, extent by extent.
type rangeModel struct {
	m      *Map
	states []State
	users  []int
	dirty  dirtyModel
}

// TestRangesAgainstModel gives ranges a state, owns them, makes them dirty and disowns
// them, across the edges of groups, chunks and the LUN, and works on single extents
// between.
func TestRangesAgainstModel(t *testing.T) {
	const extents = 2*groupExtents + 3
	geo := Geometry{Size: extents*DefaultExtentSize - BlockSize, ExtentSize: DefaultExtentSize}
	rapid.Check(t, func(t *rapid.T) {
		model := rangeModel{m: New(geo), states: make([]State, extents), users: make([]int, extents), dirty: dirtyModel{}}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			model.step(t, drawRange(t, extents))
			model.compare(t)
		}
	})
}

// drawRange is a range that begins and ends near an edge.
func drawRange(t *rapid.T, extents uint64) Range {
	edge := func(name string) uint64 {
		at := rapid.SampledFrom([]uint64{0, chunkExtents, 2 * chunkExtents, groupExtents, 2 * groupExtents, extents}).Draw(t, name)
		return min(extents, max(3, at+rapid.Uint64Range(0, 6).Draw(t, name+" by"))-3)
	}
	a, b := edge("from"), edge("to")
	if a > b {
		a, b = b, a
	}
	a = min(a, extents-1)
	return Range{First: a, Count: max(1, b-a)}
}

func (d *rangeModel) step(t *rapid.T, r Range) {
	s := State(rapid.Byte().Draw(t, "state"))
	switch rapid.IntRange(0, 6).Draw(t, "step") {
	case 0, 1:
		d.m.SetRange(r, s)
		for ext := r.First; ext < r.End(); ext++ {
			d.states[ext] = s
		}
	case 2:
		d.m.Set(r.First, s)
		d.states[r.First] = s
	case 3:
		if d.m.Enter(r.First, false) {
			d.users[r.First]++
		}
	case 4:
		on := State(rapid.Byte().Draw(t, "on"))
		for run := range d.m.Runs(r, on) { // in pieces
			d.m.ChangeRange(run, s, on)
		}
		for ext := r.First; ext < r.End(); ext++ {
			d.states[ext] = d.states[ext]&^s | on
		}
	case 5:
		d.own(r)
	case 6:
		d.work(t, r.First)
	}
}

// own owns what is not owned of a range, makes it all dirty and disowns the second half.
func (d *rangeModel) own(r Range) {
	for ext := r.First; ext < r.End(); ext++ {
		if _, owned := d.dirty[ext]; owned {
			d.m.Disown(ext)
			delete(d.dirty, ext)
		}
	}
	d.m.OwnRange(r)
	for ext := r.First; ext < r.End(); ext++ {
		d.dirty[ext] = Mask{}
	}
	if r.Count%3 == 0 {
		return
	}
	d.m.SetDirtyRange(r)
	for ext := r.First; ext < r.End(); ext++ {
		d.dirty[ext] = d.m.geo.Full(ext)
	}
	half := Range{First: r.First + r.Count/2, Count: r.Count - r.Count/2}
	d.m.DisownRange(half)
	for ext := half.First; ext < half.End(); ext++ {
		delete(d.dirty, ext)
	}
}

// work writes and copies in an owned extent, which may share its chunk with others.
func (d *rangeModel) work(t *rapid.T, ext uint64) {
	mask, owned := d.dirty[ext]
	if !owned {
		return
	}
	if rapid.Bool().Draw(t, "take") {
		if got := d.m.TakeDirty(ext); got != mask {
			t.Fatalf("extent %d: took %x, want %x", ext, got, mask)
		}
		mask = Mask{}
	} else {
		d.m.Wrote(ext, 1, 2)
		mask = mask.Or(MaskOf(1, 2))
	}
	d.dirty[ext] = mask
}

func (d *rangeModel) compare(t *rapid.T) {
	t.Helper()
	bits, next := rapid.SampledFrom([]State{allBits, Durable, Held}).Draw(t, "bits"), uint64(0)
	for run, s := range d.m.Runs(d.m.All(), bits) {
		if run.First != next || run.Count == 0 || run.First > 0 && d.states[run.First-1]&bits == s {
			t.Fatalf("run %v of %v where extent %d is next", run, s, next)
		}
		for next = run.First; next < run.End(); next++ {
			if d.states[next]&bits != s || d.m.State(next) != d.states[next] || d.m.Users(next) != d.users[next] {
				t.Fatalf("extent %d: %v in a run of %v, want %v; %d users, want %d", next, d.m.State(next), s, d.states[next], d.m.Users(next), d.users[next])
			}
		}
	}
	if next != d.m.geo.Extents() {
		t.Fatalf("runs end at %d", next)
	}
	compareDirty(t, d.m, d.dirty)
}

// TestWritersMeetAChunkThatIsShared has hosts write in extents that were owned as a
// range, while the owner copies: no dirty block may get lost, in that place or another.
func TestWritersMeetAChunkThatIsShared(t *testing.T) {
	const places = 4
	for _, dirty := range []bool{false, true} {
		for range 200 {
			m := testMap(places * chunkExtents)
			m.OwnRange(m.All())
			if dirty {
				m.SetDirtyRange(m.All())
			}
			var hosts sync.WaitGroup
			for i := range uint64(8) {
				hosts.Go(func() { m.Wrote(i%2*chunkExtents+i, 3, 1) })
			}
			taken := m.TakeDirty(0)
			hosts.Wait()
			for i := range uint64(8) {
				set := m.Dirty(i%2*chunkExtents + i)
				if i == 0 {
					set = set.Or(taken)
				}
				if !set.Has(3) {
					t.Fatalf("writer %d: its block is not dirty", i)
				}
			}
			if got := m.Dirty(3 * chunkExtents); got.Empty() == dirty {
				t.Fatalf("a place where nobody wrote: %x", got)
			}
		}
	}
}

// TestARangeTakesNoMemory: a LUN of 16 TiB that one site owns as a whole.
func TestARangeTakesNoMemory(t *testing.T) {
	m := New(Geometry{Size: 16 << 40, ExtentSize: DefaultExtentSize})
	if n := testing.AllocsPerRun(1, func() {
		m.OwnRange(m.All())
		m.SetDirtyRange(m.All())
		m.SetRange(m.All(), running)
		m.DisownRange(m.All())
	}); n > 32 {
		t.Fatalf("%v allocations", n)
	}
}
