package dirtymap

import (
	"fmt"
	"math/bits"
)

// BlockSize is the unit of dirtiness, in bytes.
const BlockSize = 4096

// Bounds of a LUN's geometry.
const (
	MinExtentSize     = 4 << 10
	MaxExtentSize     = 1 << 20
	DefaultExtentSize = 64 << 10
	MaxSize           = 64 << 40 // bytes
)

// Geometry divides a LUN into extents.
type Geometry struct {
	Size       int64 // bytes; a multiple of BlockSize, at most MaxSize
	ExtentSize int64 // bytes; a power of two in [MinExtentSize, MaxExtentSize]
}

// Check tells what is wrong with a geometry.
func (g Geometry) Check() error {
	switch {
	case g.ExtentSize < MinExtentSize || g.ExtentSize > MaxExtentSize || g.ExtentSize&(g.ExtentSize-1) != 0:
		return fmt.Errorf("extent size %d: must be a power of two from %d to %d bytes", g.ExtentSize, MinExtentSize, MaxExtentSize)
	case g.Size <= 0 || g.Size > MaxSize || g.Size%BlockSize != 0:
		return fmt.Errorf("size %d: must be a multiple of %d bytes, more than 0 and at most 64 TiB", g.Size, BlockSize)
	}
	return nil
}

// Extents is the number of extents; the last one may be short.
func (g Geometry) Extents() uint64 {
	return uint64((g.Size + g.ExtentSize - 1) / g.ExtentSize)
}

// Blocks is the number of blocks in extent ext.
func (g Geometry) Blocks(ext uint64) int {
	return int(min(g.ExtentSize, g.Size-int64(ext)*g.ExtentSize) / BlockSize)
}

// Offset is where extent ext begins, in bytes.
func (g Geometry) Offset(ext uint64) int64 { return int64(ext) * g.ExtentSize }

// Covering is the range of extents that [off, off+n) touches, n > 0, in bytes.
func (g Geometry) Covering(off, n int64) Range {
	first := uint64(off / g.ExtentSize)
	last := uint64((off + n - 1) / g.ExtentSize)
	return Range{First: first, Count: last - first + 1}
}

// Full has every block of extent ext.
func (g Geometry) Full(ext uint64) Mask { return MaskOf(0, g.Blocks(ext)) }

// Range is a run of Count extents from First on.
type Range struct{ First, Count uint64 }

// End is the first extent behind the range.
func (r Range) End() uint64 { return r.First + r.Count }

// Has tells whether the range contains ext.
func (r Range) Has(ext uint64) bool { return ext >= r.First && ext-r.First < r.Count }

// Mask is a set of blocks inside one extent: bit b of word b/64 is block b.
type Mask [MaxExtentSize / BlockSize / 64]uint64

// MaskOf has the n blocks from first on.
func MaskOf(first, n int) (m Mask) {
	for w := range m {
		lo, hi := max(first-w*64, 0), min(first+n-w*64, 64)
		if lo < hi {
			m[w] = ^uint64(0) >> (64 - (hi - lo)) << lo
		}
	}
	return m
}

// Empty tells whether no block is in the set.
func (m Mask) Empty() bool { return m == Mask{} }

// Has tells whether block b is in the set.
func (m Mask) Has(b int) bool { return m[b/64]>>(b%64)&1 == 1 }

// Count is the number of blocks in the set.
func (m Mask) Count() (n int) {
	for _, w := range m {
		n += bits.OnesCount64(w)
	}
	return n
}

// Or is the union of two sets.
func (m Mask) Or(o Mask) Mask {
	for w := range m {
		m[w] |= o[w]
	}
	return m
}

// And is the intersection of two sets.
func (m Mask) And(o Mask) Mask {
	for w := range m {
		m[w] &= o[w]
	}
	return m
}

// Minus has what is in m and not in o.
func (m Mask) Minus(o Mask) Mask {
	for w := range m {
		m[w] &^= o[w]
	}
	return m
}

// Runs yields the runs of neighbouring blocks in ascending order: first block
// and length.
func (m Mask) Runs(yield func(first, n int) bool) {
	const all = len(m) * 64
	for b := 0; b < all; {
		rest := m[b/64] >> (b % 64)
		if rest == 0 {
			b = (b/64 + 1) * 64
			continue
		}
		b += bits.TrailingZeros64(rest)
		n := 0
		for b+n < all && m.Has(b+n) {
			n++
		}
		if !yield(b, n) {
			return
		}
		b += n
	}
}
