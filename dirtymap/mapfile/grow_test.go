package mapfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/twinlun/twinlun/dirtymap"
)

// A larger map says what the smaller one said, and nothing of the extents that are
// new: with everything that can be in a map file, and of every size.
func TestGrow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		extents := rapid.Int64Range(1, 3*pageStates).Draw(t, "extents")
		more := rapid.Int64Range(0, 2*pageStates).Draw(t, "more")
		f := &memFile{}
		must(t, Create(f, testIdentity(extents), 0, testMeta(3)))
		l, _, err := Open(f, nil)
		must(t, err)
		sets := func(label string) (s []Set) {
			for range rapid.IntRange(0, 30).Draw(t, label) {
				first := rapid.Uint64Range(0, uint64(extents)-1).Draw(t, "first")
				s = append(s, setOf(first, rapid.Uint64Range(1, uint64(extents)-first).Draw(t, "count"),
					rapid.SampledFrom([]dirtymap.State{shared, owned.WithTurn(1), stale.WithTurn(2), owned | dirtymap.Volatile, dirtymap.Alone}).Draw(t, "state")))
			}
			return s
		}
		for _, s := range sets("sets") {
			must(t, l.Append(s))
		}
		must(t, l.Append(testMeta(5)))
		if rapid.Bool().Draw(t, "prepared") {
			must(t, l.Append(Prepare{Join: 9, Meta: testMeta(9), Changes: sets("changes")}))
		}
		must(t, l.Sync())

		to := &memFile{}
		must(t, l.Grow(to, (extents+more)*65536))
		id := testIdentity(extents + more)
		next, _, err := Open(to, &id)
		must(t, err)
		if next.Meta() != l.Meta() || !reflect.DeepEqual(next.Prepared(), l.Prepared()) {
			t.Fatalf("meta %+v, prepared %+v; was %+v, %+v", next.Meta(), next.Prepared(), l.Meta(), l.Prepared())
		}
		was, is := dirtymap.New(l.id.Geometry), dirtymap.New(id.Geometry)
		must(t, l.Fill(was))
		must(t, next.Fill(is))
		for ext := range uint64(extents + more) {
			want := shared
			if ext < uint64(extents) {
				want = was.State(ext)
			}
			if is.State(ext) != want {
				t.Fatalf("extent %d is %v, was %v", ext, is.State(ext), want)
			}
		}
	})
}

func TestGrowOS(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map")
	if _, err := IdentityOS(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("identity of no file: %v", err)
	}
	id := testIdentity(100)
	must(t, CreateOS(path, id, 0, testMeta(1)))
	f, err := OpenOS(path)
	must(t, err)
	l, _, err := Open(f, nil)
	must(t, err)
	must(t, l.Append(setOf(7, 3, stale)))
	must(t, l.Sync())
	if err := GrowOS(path, id.LUN, 200*65536); err == nil {
		t.Error("it grew while it was open")
	}
	must(t, l.Close())
	must(t, os.WriteFile(path+".new", []byte("left by a crash"), 0o600))

	for _, test := range []struct {
		lun     [16]byte
		extents int64
		want    int64 // afterwards
	}{
		{id.LUN, 100, 100},
		{[16]byte{9}, 200, 100},
		{id.LUN, 200, 200},
		{id.LUN, 150, 200},
	} {
		err := GrowOS(path, test.lun, test.extents*65536)
		if (err == nil) != (test.want == test.extents) {
			t.Errorf("%x to %d extents: %v", test.lun[:1], test.extents, err)
		}
		got, err := IdentityOS(path)
		must(t, err)
		if got != testIdentity(test.want) {
			t.Errorf("%x to %d extents: now %+v", test.lun[:1], test.extents, got)
		}
	}
	if _, err := os.Stat(path + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("something is left beside the map file")
	}
	f, err = OpenOS(path)
	must(t, err)
	l, _, err = Open(f, nil)
	must(t, err)
	if s, err := l.State(8); s != stale || err != nil {
		t.Error(s, err)
	}
	must(t, l.Close())
}
