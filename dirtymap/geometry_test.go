package dirtymap

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// extentSizes are all that a LUN may have.
func extentSizes() (sizes []int64) {
	for s := int64(MinExtentSize); s <= MaxExtentSize; s *= 2 {
		sizes = append(sizes, s)
	}
	return sizes
}

// drawGeometry is a LUN of any extent size, up to limit bytes.
func drawGeometry(t *rapid.T, limit int64) Geometry {
	return Geometry{
		Size:       rapid.Int64Range(1, limit/BlockSize).Draw(t, "blocks") * BlockSize,
		ExtentSize: rapid.SampledFrom(extentSizes()).Draw(t, "extent size"),
	}
}

func TestGeometryCheck(t *testing.T) {
	for _, c := range []struct {
		size, extent int64
		ok           bool
	}{
		{1 << 30, 64 << 10, true},
		{4096, 1 << 20, true}, // one short extent
		{MaxSize, 4096, true},
		{1 << 30, 0, false},
		{1 << 30, -4096, false},
		{1 << 30, 2048, false},
		{1 << 30, 2 << 20, false},
		{1 << 30, 12 << 10, false},
		{0, 64 << 10, false},
		{-4096, 64 << 10, false},
		{4097, 64 << 10, false},
		{MaxSize + 4096, 64 << 10, false},
	} {
		if err := (Geometry{Size: c.size, ExtentSize: c.extent}).Check(); (err == nil) != c.ok {
			t.Errorf("size %d, extents of %d: %v", c.size, c.extent, err)
		}
	}
}

func TestExtentsMakeUpTheLUN(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawGeometry(t, 1<<30)
		if err := g.Check(); err != nil {
			t.Fatal(err)
		}
		last := g.Extents() - 1
		if got := g.Offset(last) + int64(g.Blocks(last))*BlockSize; got != g.Size {
			t.Fatalf("the last extent ends at %d of %d", got, g.Size)
		}
		if last > 0 && g.Blocks(0) != int(g.ExtentSize/BlockSize) {
			t.Fatalf("%d blocks in the first extent", g.Blocks(0))
		}
		if full := g.Full(last); full.Count() != g.Blocks(last) || g.Blocks(last) < 1 {
			t.Fatalf("%d of %d blocks", full.Count(), g.Blocks(last))
		}
	})
}

func TestCovering(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawGeometry(t, 1<<30)
		off := rapid.Int64Range(0, g.Size-1).Draw(t, "off")
		n := rapid.Int64Range(1, g.Size-off).Draw(t, "n")
		r := g.Covering(off, n)
		if off < g.Offset(r.First) || off >= g.Offset(r.First+1) {
			t.Fatalf("[%d,+%d) begins outside of extent %d", off, n, r.First)
		}
		if end := off + n; end <= g.Offset(r.End()-1) || end > g.Offset(r.End()) {
			t.Fatalf("[%d,+%d) ends outside of extent %d", off, n, r.End()-1)
		}
	})
}

func TestRangeHas(t *testing.T) {
	r := Range{First: 5, Count: 3}
	for ext, want := range map[uint64]bool{0: false, 4: false, 5: true, 7: true, 8: false, ^uint64(0): false} {
		if r.Has(ext) != want {
			t.Errorf("%+v has %d: %t", r, ext, !want)
		}
	}
	if (Range{First: 5}).Has(5) {
		t.Error("an empty range has something")
	}
}

const maskBlocks = len(Mask{}) * 64

// blocksOf is a set's blocks one by one.
func blocksOf(m Mask) (blocks []int) {
	for b := range maskBlocks {
		if m.Has(b) {
			blocks = append(blocks, b)
		}
	}
	return blocks
}

// drawMask has some runs, and bits anywhere.
func drawMask(t *rapid.T, name string) (m Mask) {
	for _, b := range rapid.SliceOfN(rapid.IntRange(0, maskBlocks-1), 0, 20).Draw(t, name) {
		n := rapid.OneOf(rapid.Just(1), rapid.IntRange(1, maskBlocks)).Draw(t, "n")
		m = m.Or(MaskOf(b, min(n, maskBlocks-b)))
	}
	return m
}

func TestMaskOf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := rapid.IntRange(0, maskBlocks-1).Draw(t, "first")
		n := rapid.IntRange(0, maskBlocks-first).Draw(t, "n")
		m := MaskOf(first, n)
		for b := range maskBlocks {
			if m.Has(b) != (b >= first && b < first+n) {
				t.Fatalf("MaskOf(%d, %d): block %d", first, n, b)
			}
		}
		if m.Count() != n || m.Empty() != (n == 0) {
			t.Fatalf("count %d, empty %t", m.Count(), m.Empty())
		}
	})
}

func TestMaskRuns(t *testing.T) {
	for _, c := range []struct {
		m    Mask
		want [][2]int
	}{
		{Mask{}, nil},
		{MaskOf(0, maskBlocks), [][2]int{{0, maskBlocks}}},
		{MaskOf(63, 2), [][2]int{{63, 2}}},
		{MaskOf(0, 1).Or(MaskOf(2, 1)), [][2]int{{0, 1}, {2, 1}}},
		{MaskOf(64, 64).Or(MaskOf(255, 1)), [][2]int{{64, 64}, {255, 1}}},
	} {
		var got [][2]int
		for first, n := range c.m.Runs {
			got = append(got, [2]int{first, n})
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%x: %v, want %v", c.m, got, c.want)
		}
	}
	for first := range MaskOf(1, 1).Or(MaskOf(9, 9)).Runs {
		if first != 1 {
			t.Fatal("goes on after a break")
		}
		break
	}
}

func TestMaskAlgebra(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawMask(t, "a"), drawMask(t, "b")
		or, and, minus := a.Or(b), a.And(b), a.Minus(b)
		for i := range maskBlocks {
			x, y := a.Has(i), b.Has(i)
			if or.Has(i) != (x || y) || and.Has(i) != (x && y) || minus.Has(i) != (x && !y) {
				t.Fatalf("block %d", i)
			}
		}
		if a.Count() != len(blocksOf(a)) {
			t.Fatalf("count %d of %v", a.Count(), blocksOf(a))
		}
		var runs []int
		last := -1
		for first, n := range a.Runs {
			if first <= last || n < 1 {
				t.Fatalf("run %d+%d behind block %d", first, n, last-1)
			}
			for i := range n {
				runs = append(runs, first+i)
			}
			last = first + n // the next run cannot touch this one
		}
		if !slices.Equal(runs, blocksOf(a)) {
			t.Fatalf("runs %v, blocks %v", runs, blocksOf(a))
		}
	})
}
