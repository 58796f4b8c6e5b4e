package mapfile

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"iter"
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
	must(t, WritePlanes(&b, id, runsOf(states)))
	return b.Bytes()
}

// runsOf yields runs of equal states, as a Map does.
func runsOf(states []dirtymap.State) iter.Seq2[dirtymap.Range, dirtymap.State] {
	return func(yield func(dirtymap.Range, dirtymap.State) bool) {
		for i := 0; i < len(states); {
			n := 1
			for i+n < len(states) && states[i+n] == states[i] {
				n++
			}
			if !yield(dirtymap.Range{First: uint64(i), Count: uint64(n)}, states[i]) {
				return
			}
			i += n
		}
	}
}

// unpacked reads planes and checks that they come in order.
func unpacked(r io.Reader, id Identity) (states []dirtymap.State, err error) {
	err = ReadPlanes(r, id, func(extents dirtymap.Range, some []dirtymap.State) error {
		if extents.First != uint64(len(states)) {
			return errors.New("out of order")
		}
		if uint64(len(some)) != extents.Count {
			some = slices.Repeat(some[:1:1], int(extents.Count))
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
	for _, extents := range []int64{1, pieceStates - 1, pieceStates, pieceStates + 1, 50_000} {
		for _, run := range []int{1, pieceAlike - 1, pieceAlike, pieceAlike + 1, 3 * pieceStates} { // the longest
			states := make([]dirtymap.State, 0, extents)
			for len(states) < cap(states) {
				s := []dirtymap.State{shared, owned, stale}[rnd.IntN(3)].WithTurn(uint8(rnd.IntN(4)))
				states = append(states, slices.Repeat([]dirtymap.State{s}, min(cap(states)-len(states), 1+rnd.IntN(run)))...)
			}
			id := testIdentity(extents)
			got, err := unpacked(bytes.NewReader(planesOf(t, id, states)), id)
			if err != nil || !slices.Equal(got, states) {
				t.Fatalf("%d extents in runs up to %d: %v", extents, run, err)
			}
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

func TestPlanesFormat(t *testing.T) {
	id := testIdentity(303)
	states := append(slices.Repeat([]dirtymap.State{stale.WithTurn(2)}, 300), shared, shared, owned)
	raw := plain(t, planesOf(t, id, states))
	if _, err := decodeHeader(raw[:slotSize]); err != nil {
		t.Fatalf("header %v", err)
	}
	want := "0000000000000000" + "2c01000000000000" + "01000000" + "........" + "09" +
		"2c01000000000000" + "0300000000000000" + "03000000" + "........" + "000002"
	got := hex.EncodeToString(raw[slotSize:])
	if len(got) != len(want) {
		t.Fatalf("%s", got)
	}
	for i := range want {
		if want[i] != '.' && want[i] != got[i] {
			t.Fatalf("%s, want %s", got, want)
		}
	}
}

// TestPlanesThatAreTheLongest has the states that take most room, none of which zstd can
// make smaller: the reader takes them.
func TestPlanesThatAreTheLongest(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	const extents = 200_000
	var states []dirtymap.State
	for len(states) < extents {
		states = append(states, slices.Repeat([]dirtymap.State{shared.WithTurn(uint8(len(states)))}, pieceAlike)...)
		states = append(states, owned.WithTurn(uint8(rnd.IntN(4))))
	}
	id := testIdentity(extents)
	raw := plain(t, planesOf(t, id, states[:extents]))
	if int64(len(raw)) > id.planesLimit()-1<<16 {
		t.Fatalf("%d bytes, and the limit is %d", len(raw), id.planesLimit())
	}
}

// plain undoes compressed.
func plain(t testing.TB, b []byte) []byte {
	t.Helper()
	z, err := zstd.NewReader(nil)
	must(t, err)
	defer z.Close()
	raw, err := z.DecodeAll(b, nil)
	must(t, err)
	return raw
}

func TestPlanesThatCannotBe(t *testing.T) {
	id, other := testIdentity(5000), testIdentity(5000)
	other.LUN[0]++
	states := make([]dirtymap.State, 5000)
	for i := range states {
		states[i] = []dirtymap.State{shared, owned}[i%2]
	}
	good := planesOf(t, id, states)
	raw := plain(t, good)
	first, second := raw[slotSize:][:pieceHead+pieceStates], raw[slotSize+pieceHead+pieceStates:]
	change := func(at int, to ...byte) []byte {
		b := slices.Clone(raw)
		copy(b[at:], to)
		return compressed(t, b)
	}
	piece := func(first, n uint64, states ...byte) []byte {
		var b bytes.Buffer
		p := planesWriter{w: &b, id: &id}
		p.piece(first, n, states)
		return b.Bytes()
	}
	pieces := func(list ...[]byte) []byte {
		return compressed(t, append(slices.Clone(raw[:slotSize]), slices.Concat(list...)...))
	}
	newer := header{version: version + 1, id: id, generation: 1}

	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"nothing":                 {nil, ErrDamaged},
		"no zstd":                 {[]byte("GET / HTTP/1.1\r\n\r\n"), ErrDamaged},
		"cut short":               {good[:len(good)-3], ErrDamaged},
		"another LUN":             {planesOf(t, other, states), ErrForeign},
		"another size":            {planesOf(t, testIdentity(5001), make([]dirtymap.State, 5001)), ErrForeign},
		"newer":                   {compressed(t, append(newer.encode(), raw[slotSize:]...)), ErrVersion},
		"a piece less":            {pieces(first), ErrDamaged},
		"half a piece":            {pieces(first, second[:len(second)-1]), ErrDamaged},
		"half a head":             {pieces(first, second[:pieceHead-1]), ErrDamaged},
		"a piece more":            {pieces(first, second, piece(5000, 1, 0)), ErrDamaged},
		"a piece twice":           {pieces(first, first), ErrDamaged},
		"a byte more":             {pieces(first, second, []byte{0}), ErrDamaged},
		"pieces swapped":          {pieces(second, first), ErrDamaged},
		"header changed":          {change(3000, 1), ErrDamaged},
		"state changed":           {change(slotSize+pieceHead+100, byte(stale)), ErrDamaged},
		"number of extents 0":     {pieces(piece(0, 0), first, second), ErrDamaged},
		"stale and held":          {pieces(piece(0, 5000, byte(stale|owned))), ErrDamaged},
		"a state for memory only": {pieces(piece(0, 5000, byte(dirtymap.Closing))), ErrDamaged},
		"too many extents":        {pieces(piece(0, 5001, 0)), ErrDamaged},
		"far too many extents":    {pieces(piece(0, 1<<63, 0)), ErrDamaged},
		"too few states":          {pieces(piece(0, 5000, make([]byte, 4096)...)), ErrDamaged},
		"too many states":         {pieces(piece(0, 5000, make([]byte, 5000)...)), ErrDamaged},
		"no states":               {pieces(piece(0, 5000)), ErrDamaged},
		"garbage behind":          {append(slices.Clone(good), 1), ErrDamaged},
		"endless frames behind":   {append(slices.Clone(good), bytes.Repeat([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}, 1<<14)...), ErrDamaged},
	} {
		if _, err := unpacked(bytes.NewReader(c.b), id); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if got, err := unpacked(bytes.NewReader(pieces(piece(0, 4096, make([]byte, 4096)...), piece(4096, 904, 0))), id); err != nil || len(got) != 5000 {
		t.Errorf("pieces that are right: %v", err)
	}
}

// TestPiecesAreBounded: the owner of a piece holds a lock while it works on it.
func TestPiecesAreBounded(t *testing.T) {
	id := testIdentity(3*pieceExtents + 5)
	list := make([]dirtymap.State, id.Extents())
	must(t, ReadPlanes(bytes.NewReader(planesOf(t, id, list)), id, func(r dirtymap.Range, s []dirtymap.State) error {
		if r.Count > pieceExtents || len(s) > pieceStates {
			t.Fatalf("%d extents, %d states", r.Count, len(s))
		}
		return nil
	}))
}

func TestPlanesPassOnTheCallersError(t *testing.T) {
	id := testIdentity(10)
	stop := errors.New("stop")
	err := ReadPlanes(bytes.NewReader(planesOf(t, id, make([]dirtymap.State, 10))), id,
		func(dirtymap.Range, []dirtymap.State) error { return stop })
	if !errors.Is(err, stop) || errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
}

func TestPlanesOfAQuietLUNAreSmall(t *testing.T) {
	id := Identity{Geometry: dirtymap.Geometry{Size: 16 << 40, ExtentSize: 64 << 10}}
	m := dirtymap.New(id.Geometry)
	var b bytes.Buffer
	must(t, WritePlanes(&b, id, m.Runs(m.All(), dirtymap.Durable)))
	if b.Len() > 8<<10 {
		t.Fatalf("%d bytes for 16 TiB that is all SHARED", b.Len())
	}
	t.Logf("%d bytes", b.Len())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n := uint64(0)
	must(t, ReadPlanes(&b, id, func(r dirtymap.Range, _ []dirtymap.State) error { n += r.Count; return nil }))
	runtime.ReadMemStats(&after)
	if n != id.Extents() {
		t.Fatalf("%d extents of %d", n, id.Extents())
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 16<<20 {
		t.Fatalf("reading took %d bytes of memory", took)
	}
}

func FuzzReadPlanes(f *testing.F) {
	id := testIdentity(5000)
	states := make([]dirtymap.State, 5000)
	good := planesOf(f, id, states)
	f.Add(good)
	f.Add(good[:len(good)/2])
	for i := range states {
		states[i] = []dirtymap.State{shared, owned}[i/3%2]
	}
	mixed := planesOf(f, id, states)
	f.Add(mixed)
	f.Add(compressed(f, plain(f, mixed)[:slotSize+pieceHead+pieceStates]))
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
