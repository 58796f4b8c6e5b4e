package dirtymap

import "iter"

// What changes many extents at once. It is the engine's only, and while no command is
// between Begin and End: a join, and the time before a replica serves.

// Runs yields the states of the extents of r, in ascending order: neighbours with the
// same state come together. What is yielded may be changed meanwhile.
func (m *Map) Runs(r Range) iter.Seq2[Range, State] {
	return func(yield func(Range, State) bool) {
		for ext := r.First; ext < r.End(); {
			s := m.State(ext)
			run := Range{First: ext, Count: m.sameAs(s, ext, r.End()) - ext}
			if !yield(run, s) {
				return
			}
			ext = run.End()
		}
	}
}

// All is every extent.
func (m *Map) All() Range { return Range{Count: m.geo.Extents()} }

// sameAs is the first extent from ext on that has another state than s; end at most.
func (m *Map) sameAs(s State, ext, end uint64) uint64 {
	for ext < end {
		switch g := &m.groups[ext/groupExtents]; {
		case !g.mixed.Load():
			if State(g.base.Load()) != s {
				return ext
			}
			ext = min(end, (ext/groupExtents+1)*groupExtents)
		case ext%2 == 0 && ext+1 < end && (m.words[ext/2].Load()^g.base.Load()^twice(s))&stateBits == 0:
			ext += 2
		case m.State(ext) != s:
			return ext
		default:
			ext++
		}
	}
	return end
}

// stateBits are those of a word that are no users.
const stateBits = 0x00ff00ff

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

// ChangeRange is Change for all extents of a range, which have one state.
func (m *Map) ChangeRange(r Range, off, on State) {
	m.SetRange(r, m.State(r.First)&^off|on)
}

// NextOwnedRun is the run of equal states that begins with NextOwned.
func (m *Map) NextOwnedRun(from uint64) (run Range, s State, ok bool) {
	ext, ok := m.NextOwned(from)
	if !ok {
		return run, s, false
	}
	s = m.State(ext)
	return Range{First: ext, Count: m.sameAs(s, ext, m.geo.Extents()) - ext}, s, true
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
