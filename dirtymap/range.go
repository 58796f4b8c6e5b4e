package dirtymap

import "iter"

// What changes many extents at once. It is the engine's only, and while no command is
// between Begin and End: a join, and the time before a replica serves.

// Runs yields what the extents of r have of the bits, in ascending order: neighbours that
// have the same come together. What was yielded may be changed meanwhile.
func (m *Map) Runs(r Range, bits State) iter.Seq2[Range, State] {
	return func(yield func(Range, State) bool) {
		if r.Count == 0 {
			return
		}
		w := runs{m: m, bits: bits, yield: yield, first: r.First, state: m.State(r.First) & bits}
		for ext := r.First; ext < r.End(); {
			end := min(r.End(), (ext/groupExtents+1)*groupExtents)
			if !w.group(ext, end) {
				return
			}
			ext = end
		}
		yield(Range{First: w.first, Count: r.End() - w.first}, w.state)
	}
}

// All is every extent.
func (m *Map) All() Range { return Range{Count: m.geo.Extents()} }

// runs is how far Runs has come.
type runs struct {
	m     *Map
	bits  State
	yield func(Range, State) bool
	first uint64 // of the run that is not yielded yet
	state State  // of that
}

// group goes on with a part of one group. False: no more is wanted.
func (r *runs) group(ext, end uint64) bool {
	g := &r.m.groups[ext/groupExtents]
	base := g.base.Load()
	if !g.mixed.Load() {
		return r.meet(ext, State(base)&r.bits)
	}
	bits, same := twice(r.bits), twice(r.state)
	for ext < end {
		w := (r.m.words[ext/2].Load() ^ base) & bits
		if w == same && ext%2 == 0 && ext+1 < end {
			ext += 2
			continue
		}
		if !r.meet(ext, State(w>>(ext%2*16))) {
			return false
		}
		same = twice(r.state)
		ext++
	}
	return true
}

// meet ends the run at an extent that has another state.
func (r *runs) meet(ext uint64, s State) bool {
	if s == r.state {
		return true
	}
	run, was := Range{First: r.first, Count: ext - r.first}, r.state
	r.first, r.state = ext, s
	return r.yield(run, was)
}

// whole cuts a range into pieces of unit extents, which are given to all when they are
// whole (the last one of the LUN may be short), and to each extent by extent when not.
func (m *Map) whole(r Range, unit uint64, all func(i uint64), each func(ext uint64)) {
	for ext := r.First; ext < r.End(); {
		i := ext / unit
		end := min((i+1)*unit, m.geo.Extents())
		if ext == i*unit && end <= r.End() {
			all(i)
			ext = end
			continue
		}
		for ; ext < min(end, r.End()); ext++ {
			each(ext)
		}
	}
}

// stateBits are those of a word that are no users.
const stateBits = 0x00ff00ff

// SetRange gives all extents of a range one state.
func (m *Map) SetRange(r Range, s State) {
	m.whole(r, groupExtents, func(i uint64) {
		g := &m.groups[i]
		if g.mixed.Load() {
			for w := i * groupExtents / 2; w < min((i+1)*groupExtents/2, uint64(len(m.words))); w++ {
				m.words[w].And(^uint32(stateBits))
			}
			g.mixed.Store(false)
		}
		g.base.Store(twice(s))
	}, func(ext uint64) { m.Set(ext, s) })
}

// ChangeRange is Change for all extents of a range.
func (m *Map) ChangeRange(r Range, off, on State) {
	for run, s := range m.Runs(r, allBits) {
		m.SetRange(run, s&^off|on)
	}
}

// allBits are those of a State.
const allBits State = 0xff

// NextOwnedRun is the run of extents with the same bits that begins with NextOwned.
func (m *Map) NextOwnedRun(from uint64, bits State) (run Range, s State, ok bool) {
	ext, ok := m.NextOwned(from)
	if !ok {
		return run, s, false
	}
	for run, s = range m.Runs(Range{First: ext, Count: m.geo.Extents() - ext}, bits|Held) {
		break
	}
	return run, s, true
}

// OwnRange is Own for all extents of a range, none of which is owned.
func (m *Map) OwnRange(r Range) {
	shared := sharing{m: m}
	m.whole(r, chunkExtents, func(i uint64) { m.put(i, shared.chunk(i, false)) }, m.Own)
}

// SetDirtyRange makes every block of a range dirty, all of whose extents are owned. They
// count as written now.
func (m *Map) SetDirtyRange(r Range) {
	shared := sharing{m: m}
	m.whole(r, chunkExtents, func(i uint64) {
		c := shared.chunk(i, true)
		m.dirty.Add(int64(c.blocks.Load() - m.chunks[i].Load().blocks.Load()))
		m.put(i, c)
	}, func(ext uint64) {
		m.SetDirty(ext, m.geo.Full(ext))
		m.chunks[ext/chunkExtents].Load().touched[ext%chunkExtents].Store(m.clock.Load())
	})
}

// DisownRange is Disown for all extents of a range, all of which are owned.
func (m *Map) DisownRange(r Range) {
	m.whole(r, chunkExtents, func(i uint64) {
		m.dirty.Add(-int64(m.chunks[i].Load().blocks.Load()))
		m.put(i, nil)
	}, m.Disown)
}

// sharing makes chunks of which all extents are owned: one for as many places as can
// share it, which is all but the last one of a LUN.
type sharing struct {
	m    *Map
	made *chunk
}

// chunk is one for place i: nothing is dirty, or all.
func (s *sharing) chunk(i uint64, dirty bool) *chunk {
	first := i * chunkExtents
	n := int(min(chunkExtents, s.m.geo.Extents()-first))
	blocks := int32(0)
	if dirty {
		blocks = int32(min(chunkExtents*s.m.geo.ExtentSize, s.m.geo.Size-s.m.geo.Offset(first)) / BlockSize)
	}
	if s.made == nil || s.made.owned != n || s.made.blocks.Load() != blocks {
		s.made = s.m.newChunk()
		s.made.fill(int(blocks), s.m.clock.Load())
		s.made.owned, s.made.shared, s.made.full = n, true, dirty
	}
	return s.made
}

// fill makes the first n blocks dirty, and dates the extents.
func (c *chunk) fill(n int, now uint32) {
	for i := range c.dirty {
		if k := min(n-i*64, 64); k > 0 {
			c.dirty[i].Store(^uint64(0) >> (64 - k))
		}
	}
	at := now
	if n == 0 {
		at |= unwritten
	}
	for i := range c.touched {
		c.touched[i].Store(at)
	}
	c.blocks.Store(int32(n))
}
