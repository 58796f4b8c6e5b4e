package dirtymap

import (
	"math/bits"
	"sync/atomic"
)

// chunkExtents is how many extents share a chunk: with 64 KiB extents, 8 MiB of
// the LUN cost three quarters of a KiB while they are owned.
const chunkExtents = 128

// chunk has the dirty blocks of chunkExtents neighbouring extents, and when each
// was last written.
type chunk struct {
	dirty   []atomic.Uint64 // bit (extent in chunk × blocks per extent + block)
	touched []atomic.Uint32 // Map.clock at the extent's last write; with unwritten set, at the tenure's beginning
	blocks  atomic.Int32    // how many bits of dirty are set
	owned   int             // extents owned; the engine's
	shared  bool            // other places have this chunk too: it does not change any more
	full    bool            // shared, and every block is dirty
}

// newChunk has nothing dirty, and nothing owned.
func (m *Map) newChunk() *chunk {
	perExtent := int(m.geo.ExtentSize / BlockSize)
	return &chunk{
		dirty:   make([]atomic.Uint64, (chunkExtents*perExtent+63)/64),
		touched: make([]atomic.Uint32, chunkExtents),
	}
}

// private is the chunk at a place, for who wants to change it: a copy of its own if it
// was shared. Hosts, too, may be the first to need it.
func (m *Map) private(i uint64) *chunk {
	p := &m.chunks[i]
	c := p.Load()
	if c == nil || !c.shared {
		return c
	}
	if own := c.copy(); p.CompareAndSwap(c, own) {
		return own
	}
	return p.Load()
}

func (c *chunk) copy() *chunk {
	own := &chunk{dirty: make([]atomic.Uint64, len(c.dirty)), touched: make([]atomic.Uint32, len(c.touched)), owned: c.owned}
	for i := range c.dirty {
		own.dirty[i].Store(c.dirty[i].Load())
	}
	for i := range c.touched {
		own.touched[i].Store(c.touched[i].Load())
	}
	own.blocks.Store(c.blocks.Load())
	return own
}

// unwritten in chunk.touched says that nothing was written in this tenure.
const unwritten = 1 << 31

// Tick moves the clock that dates writes, in the engine's unit; below 1<<31.
func (m *Map) Tick(now uint32) { m.clock.Store(now) }

// DirtyBlocks is the number of blocks that wait for being copied, less those
// that a copy has taken. While writes and copies are under way it may be too
// much, never too little.
func (m *Map) DirtyBlocks() int64 { return m.dirty.Load() }

// Own makes room for an owned extent's dirty blocks. Engine only, before a
// command can enter to write.
func (m *Map) Own(ext uint64) {
	c := m.private(ext / chunkExtents)
	if c == nil {
		c = m.newChunk()
		m.put(ext/chunkExtents, c)
	}
	c.owned++
	c.touched[ext%chunkExtents].Store(m.clock.Load() | unwritten)
}

// Disown forgets an extent's dirty blocks when its tenure is over. Engine only,
// with no command inside that writes.
func (m *Map) Disown(ext uint64) {
	m.TakeDirty(ext)
	if c := m.private(ext / chunkExtents); c != nil {
		if c.owned--; c.owned == 0 {
			m.put(ext/chunkExtents, nil)
		}
	}
}

// put has a chunk at a place, or none.
func (m *Map) put(i uint64, c *chunk) {
	m.chunks[i].Store(c)
	if c != nil {
		m.live[i/64] |= 1 << (i % 64)
	} else {
		m.live[i/64] &^= 1 << (i % 64)
	}
}

// Wrote sets blocks dirty: n of them from first on, in an owned extent that the
// caller has entered, after they were written and before that is acknowledged.
func (m *Map) Wrote(ext uint64, first, n int) {
	c := m.chunks[ext/chunkExtents].Load()
	if c.full {
		return // who takes its blocks from here on reads what was written before
	}
	if c.shared {
		c = m.private(ext / chunkExtents)
	}
	c.touched[ext%chunkExtents].Store(m.clock.Load() &^ unwritten)
	m.setDirty(c, ext, first, n)
}

// SetDirty puts blocks back that a copy had taken. Engine only.
func (m *Map) SetDirty(ext uint64, blocks Mask) {
	if blocks.Empty() {
		return
	}
	c := m.private(ext / chunkExtents)
	for first, n := range blocks.Runs {
		m.setDirty(c, ext, first, n)
	}
}

// setDirty counts blocks before they are dirty, and takes back what others have
// counted too: the counters may say too much for a moment, never too little, so
// NextDirty passes over nothing. Bits that are set already are left alone: a copy
// that takes them from here on reads what was written before.
func (m *Map) setDirty(c *chunk, ext uint64, first, n int) {
	perExtent := int(m.geo.ExtentSize / BlockSize)
	at := int(ext%chunkExtents)*perExtent + first
	for n > 0 {
		k := min(n, 64-at%64)
		word := &c.dirty[at/64]
		if set := ^uint64(0) >> (64 - k) << (at % 64) &^ word.Load(); set != 0 {
			m.count(c, bits.OnesCount64(set))
			m.count(c, -bits.OnesCount64(set&word.Or(set)))
		}
		at, n = at+k, n-k
	}
}

// count changes the counters of dirty blocks.
func (m *Map) count(c *chunk, by int) {
	if by != 0 {
		c.blocks.Add(int32(by))
		m.dirty.Add(int64(by))
	}
}

// Dirty is the extent's set of dirty blocks.
func (m *Map) Dirty(ext uint64) Mask { return m.dirtyBits(ext, false) }

// TakeDirty is Dirty, and clears the set. A block that is written from then on
// is dirty again.
func (m *Map) TakeDirty(ext uint64) Mask { return m.dirtyBits(ext, true) }

func (m *Map) dirtyBits(ext uint64, take bool) (set Mask) {
	c := m.chunks[ext/chunkExtents].Load()
	if c == nil || c.blocks.Load() == 0 {
		return set
	}
	if take {
		c = m.private(ext / chunkExtents)
	}
	perExtent := int(m.geo.ExtentSize / BlockSize)
	at := int(ext%chunkExtents) * perExtent
	if perExtent >= 64 {
		for i := range perExtent / 64 {
			if take {
				set[i] = c.dirty[at/64+i].Swap(0)
			} else {
				set[i] = c.dirty[at/64+i].Load()
			}
		}
	} else {
		mine := ^uint64(0) >> (64 - perExtent) << (at % 64)
		var w uint64
		if take {
			w = c.dirty[at/64].And(^mine)
		} else {
			w = c.dirty[at/64].Load()
		}
		set[0] = w & mine >> (at % 64)
	}
	if take {
		m.count(c, -set.Count())
	}
	return set
}

// Touched is the clock at an owned extent's last write in this tenure; when
// nothing was written, at the tenure's beginning.
func (m *Map) Touched(ext uint64) (at uint32, written bool) {
	c := m.chunks[ext/chunkExtents].Load()
	if c == nil {
		return 0, false
	}
	t := c.touched[ext%chunkExtents].Load()
	return t &^ unwritten, t&unwritten == 0
}

// NextOwned is the first OWNED extent at or behind from. False: none up to the end
// of the LUN. Engine only.
func (m *Map) NextOwned(from uint64) (uint64, bool) {
	for i := range m.liveFrom(from / chunkExtents) {
		for ext := max(from, i*chunkExtents); ext < min((i+1)*chunkExtents, m.geo.Extents()); ext++ {
			if m.State(ext)&Held != 0 {
				return ext, true
			}
		}
	}
	return 0, false
}

// NextDirty is the first extent at or behind from that has dirty blocks; false:
// none up to the end of the LUN. Engine only.
func (m *Map) NextDirty(from uint64) (uint64, bool) {
	for i := range m.liveFrom(from / chunkExtents) {
		if m.chunks[i].Load().blocks.Load() == 0 {
			continue
		}
		for ext := max(from, i*chunkExtents); ext < (i+1)*chunkExtents; ext++ {
			if !m.Dirty(ext).Empty() {
				return ext, true
			}
		}
	}
	return 0, false
}

// liveFrom yields the chunks that exist, from chunk i on, in ascending order.
func (m *Map) liveFrom(i uint64) func(yield func(uint64) bool) {
	return func(yield func(uint64) bool) {
		for w := i / 64; w < uint64(len(m.live)); w++ {
			rest := m.live[w]
			if w == i/64 {
				rest &= ^uint64(0) << (i % 64)
			}
			for ; rest != 0; rest &= rest - 1 {
				if !yield(w*64 + uint64(bits.TrailingZeros64(rest))) {
					return
				}
			}
		}
	}
}
