package dirtymap

import (
	"testing"

	"pgregory.net/rapid"
)

// TestDirtyAgainstModel writes, copies, owns and disowns extents of every size,
// across the edges of chunks and of the LUN, and compares with plain sets.
func TestDirtyAgainstModel(t *testing.T) {
	for _, size := range extentSizes() {
		rapid.Check(t, func(t *rapid.T) { checkDirty(t, size) })
	}
}

// dirtyModel is what a Map should say: the dirty blocks of each owned extent.
type dirtyModel map[uint64]Mask

func (d dirtyModel) total() (n int64) {
	for _, m := range d {
		n += int64(m.Count())
	}
	return n
}

// next is NextDirty's answer.
func (d dirtyModel) next(from uint64) (found uint64, ok bool) {
	for ext, m := range d {
		if ext >= from && !m.Empty() && (!ok || ext < found) {
			found, ok = ext, true
		}
	}
	return found, ok
}

func checkDirty(t *rapid.T, size int64) {
	const extents = 2*chunkExtents + 3
	geo := Geometry{Size: extents*size - size + BlockSize, ExtentSize: size} // the last one has one block
	m, want := New(geo), dirtyModel{}
	for range rapid.IntRange(1, 25).Draw(t, "steps") {
		ext := rapid.OneOf(rapid.Uint64Range(0, 3), rapid.Uint64Range(chunkExtents-2, chunkExtents+2),
			rapid.Uint64Range(extents-3, extents-1)).Draw(t, "ext")
		dirty, owned := want[ext]
		switch step := rapid.IntRange(0, 5).Draw(t, "step"); {
		case !owned:
			m.Own(ext)
			want[ext] = Mask{}
		case step == 0:
			m.Disown(ext)
			delete(want, ext)
		case step == 1:
			if got := m.TakeDirty(ext); got != dirty {
				t.Fatalf("extent %d: took %x, want %x", ext, got, dirty)
			}
			want[ext] = Mask{}
		case step == 2:
			back := drawMask(t, "back").And(geo.Full(ext))
			m.SetDirty(ext, back)
			want[ext] = dirty.Or(back)
		default:
			first := rapid.IntRange(0, geo.Blocks(ext)-1).Draw(t, "first")
			n := rapid.IntRange(1, geo.Blocks(ext)-first).Draw(t, "n")
			m.Wrote(ext, first, n)
			want[ext] = dirty.Or(MaskOf(first, n))
		}
		compareDirty(t, m, want)
	}
}

func compareDirty(t *rapid.T, m *Map, want dirtyModel) {
	t.Helper()
	if m.DirtyBlocks() != want.total() {
		t.Fatalf("%d dirty blocks, want %d", m.DirtyBlocks(), want.total())
	}
	chunks := map[uint64]bool{}
	for ext := range m.geo.Extents() {
		if got := m.Dirty(ext); got != want[ext] {
			t.Fatalf("extent %d: %x, want %x", ext, got, want[ext])
		}
		if _, owned := want[ext]; owned {
			chunks[ext/chunkExtents] = true
		}
	}
	for i := range m.chunks {
		if (m.chunks[i].Load() != nil) != chunks[uint64(i)] {
			t.Fatalf("chunk %d exists: %t", i, !chunks[uint64(i)])
		}
	}
	from := rapid.Uint64Range(0, m.geo.Extents()+1).Draw(t, "from")
	ext, ok := m.NextDirty(from)
	if wantExt, wantOk := want.next(from); ext != wantExt || ok != wantOk {
		t.Fatalf("next dirty from %d: %d, %t; want %d, %t", from, ext, ok, wantExt, wantOk)
	}
}

func TestTouched(t *testing.T) {
	m := testMap(300)
	expect := func(ext uint64, at uint32, written bool) {
		t.Helper()
		if gotAt, gotWritten := m.Touched(ext); gotAt != at || gotWritten != written {
			t.Fatalf("extent %d touched at %d, written %t; want %d, %t", ext, gotAt, gotWritten, at, written)
		}
	}
	expect(200, 0, false)
	m.Tick(5)
	m.Own(200)
	m.Own(201)
	expect(200, 5, false)
	m.Tick(77)
	m.Wrote(200, 0, 1)
	expect(200, 77, true)
	expect(201, 5, false)
	m.SetDirty(201, MaskOf(0, 1)) // putting blocks back is no write
	expect(201, 5, false)
	m.Disown(200)
	m.Tick(80)
	m.Own(200) // a new tenure in the same chunk
	expect(200, 80, false)
	if !m.Dirty(200).Empty() {
		t.Fatal("remembers the former tenure's blocks")
	}
}
