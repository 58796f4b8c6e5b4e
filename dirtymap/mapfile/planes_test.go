package mapfile

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/twinlun/twinlun/dirtymap"
)

// planesOf are states packed for the peer.
func planesOf(t testing.TB, id Identity, states []dirtymap.State) []byte {
	t.Helper()
	var b bytes.Buffer
	must(t, WritePlanes(&b, id, func(first uint64, into []dirtymap.State) { copy(into, states[first:]) }))
	return b.Bytes()
}

// unpacked reads planes and checks that they come in order.
func unpacked(r io.Reader, id Identity) (states []dirtymap.State, err error) {
	err = ReadPlanes(r, id, func(first uint64, some []dirtymap.State) error {
		if first != uint64(len(states)) {
			return errors.New("out of order")
		}
		states = append(states, some...)
		return nil
	})
	return states, err
}

// compressed is anything, through zstd.
func compressed(t testing.TB, b []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	must(t, err)
	return z.EncodeAll(b, nil)
}

func TestPlanesThereAndBack(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, extents := range []int64{1, pageStates - 1, pageStates, pageStates + 1, 50_000} {
		states := make([]dirtymap.State, extents)
		for i := range states {
			states[i] = []dirtymap.State{shared, owned, stale}[rnd.IntN(3)].WithTurn(uint8(rnd.IntN(4)))
		}
		id := testIdentity(extents)
		got, err := unpacked(bytes.NewReader(planesOf(t, id, states)), id)
		if err != nil || !slices.Equal(got, states) {
			t.Fatalf("%d extents: %v", extents, err)
		}
	}
}

func TestPlanesOfAMapInUseCarryOnlyWhatIsDurable(t *testing.T) {
	id := testIdentity(3)
	got, err := unpacked(bytes.NewReader(planesOf(t, id, []dirtymap.State{owned | dirtymap.Logged | dirtymap.Closing, stale, 0})), id)
	if err != nil || !slices.Equal(got, []dirtymap.State{owned, stale, 0}) {
		t.Fatalf("%v, %v", got, err)
	}
}

func TestPlanesAreAMapFilesPages(t *testing.T) {
	f := newFile(t, 10_000, stale.WithTurn(2))
	states := make([]dirtymap.State, 10_000)
	for i := range states {
		states[i] = stale.WithTurn(2)
	}
	z, err := zstd.NewReader(bytes.NewReader(planesOf(t, testIdentity(10_000), states)))
	must(t, err)
	defer z.Close()
	raw, err := io.ReadAll(z)
	must(t, err)
	if !bytes.Equal(raw[slotSize:], f.data[pagesAt:]) {
		t.Fatal("pages differ from those of a map file")
	}
	if _, err := decodeHeader(raw[:slotSize]); err != nil {
		t.Fatalf("header %v", err)
	}
}

func TestPlanesThatCannotBe(t *testing.T) {
	id, other := testIdentity(5000), testIdentity(5000)
	other.LUN[0]++
	states := make([]dirtymap.State, 5000)
	good := planesOf(t, id, states)
	z, err := zstd.NewReader(nil)
	must(t, err)
	raw, err := z.DecodeAll(good, nil)
	must(t, err)
	change := func(at int, to byte) []byte {
		b := slices.Clone(raw)
		b[at] = to
		return compressed(t, b)
	}
	both := slices.Clone(raw)
	both[slotSize+8+7] = byte(stale | owned)
	id.sealPage(0, both[slotSize:][:pageSize])
	beyond := slices.Clone(raw)
	beyond[len(beyond)-1] = byte(stale)
	id.sealPage(1, beyond[slotSize+pageSize:])
	newer := header{version: version + 1, id: id, generation: 1}

	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"nothing":                {nil, ErrDamaged},
		"no zstd":                {[]byte("GET / HTTP/1.1\r\n\r\n"), ErrDamaged},
		"cut short":              {good[:len(good)-3], ErrDamaged},
		"another LUN":            {planesOf(t, other, states), ErrForeign},
		"another size":           {planesOf(t, testIdentity(5001), make([]dirtymap.State, 5001)), ErrForeign},
		"newer":                  {compressed(t, append(newer.encode(), raw[slotSize:]...)), ErrVersion},
		"a page less":            {compressed(t, raw[:slotSize+pageSize]), ErrDamaged},
		"a page more":            {compressed(t, append(slices.Clone(raw), raw[slotSize:][:pageSize]...)), ErrDamaged},
		"a byte more":            {compressed(t, append(slices.Clone(raw), 0)), ErrDamaged},
		"pages swapped":          {compressed(t, slices.Concat(raw[:slotSize], raw[slotSize+pageSize:], raw[slotSize:][:pageSize])), ErrDamaged},
		"header changed":         {change(3000, 1), ErrDamaged},
		"page changed":           {change(slotSize+100, 1), ErrDamaged},
		"stale and held":         {compressed(t, both), ErrDamaged},
		"states beyond the last": {compressed(t, beyond), ErrDamaged},
		"garbage behind":         {append(slices.Clone(good), 1), ErrDamaged},
		"endless frames behind":  {append(slices.Clone(good), bytes.Repeat([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}, 1<<14)...), ErrDamaged},
	} {
		if _, err := unpacked(bytes.NewReader(c.b), id); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestPlanesPassOnTheCallersError(t *testing.T) {
	id := testIdentity(10)
	stop := errors.New("stop")
	err := ReadPlanes(bytes.NewReader(planesOf(t, id, make([]dirtymap.State, 10))), id,
		func(uint64, []dirtymap.State) error { return stop })
	if !errors.Is(err, stop) || errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
}

func TestPlanesOfAQuietLUNAreSmall(t *testing.T) {
	id := Identity{Geometry: dirtymap.Geometry{Size: 1 << 40, ExtentSize: 64 << 10}}
	var b bytes.Buffer
	must(t, WritePlanes(&b, id, func(_ uint64, into []dirtymap.State) { clear(into) }))
	if b.Len() > 24<<10 {
		t.Fatalf("%d bytes for 1 TiB that is all SHARED", b.Len())
	}
	t.Logf("%d bytes", b.Len())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n := uint64(0)
	must(t, ReadPlanes(&b, id, func(_ uint64, s []dirtymap.State) error { n += uint64(len(s)); return nil }))
	runtime.ReadMemStats(&after)
	if n != id.Extents() {
		t.Fatalf("%d extents of %d", n, id.Extents())
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 16<<20 {
		t.Fatalf("reading took %d bytes of memory", took)
	}
}

func BenchmarkPlanes16TiB(b *testing.B) {
	id := Identity{Geometry: dirtymap.Geometry{Size: 16 << 40, ExtentSize: 64 << 10}}
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			must(b, WritePlanes(io.Discard, id, func(_ uint64, into []dirtymap.State) { clear(into) }))
		}
	})
	var w bytes.Buffer
	must(b, WritePlanes(&w, id, func(_ uint64, into []dirtymap.State) { clear(into) }))
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			must(b, ReadPlanes(bytes.NewReader(w.Bytes()), id, func(uint64, []dirtymap.State) error { return nil }))
		}
	})
}

func FuzzReadPlanes(f *testing.F) {
	id := testIdentity(5000)
	states := make([]dirtymap.State, 5000)
	good := planesOf(f, id, states)
	f.Add(good)
	f.Add(good[:len(good)/2])
	z, err := zstd.NewReader(nil)
	must(f, err)
	raw, err := z.DecodeAll(good, nil)
	must(f, err)
	f.Add(compressed(f, raw[:slotSize+pageSize]))
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0, 0, 0}) // a window of terabytes
	f.Fuzz(func(t *testing.T, b []byte) {
		states, err := unpacked(bytes.NewReader(b), id)
		if err != nil {
			return
		}
		if len(states) != 5000 || slices.ContainsFunc(states, func(s dirtymap.State) bool { return !validState(s) }) {
			t.Fatalf("accepted %d states", len(states))
		}
		again, err := unpacked(bytes.NewReader(planesOf(t, id, states)), id)
		if err != nil || !slices.Equal(again, states) {
			t.Fatalf("does not survive: %v", err)
		}
	})
}
