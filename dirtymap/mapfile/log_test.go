package mapfile

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/dirtymap"
)

func TestRecordsSurviveReopening(t *testing.T) {
	f := newFile(t, 10_000, stale)
	l, rep := mustOpen(t, f)
	if rep != (Report{}) {
		t.Fatalf("fresh file reports %+v", rep)
	}
	want := newModel(10_000, stale, testMeta(1))
	expect(t, l, want)
	for _, r := range []Record{
		setOf(0, 1, owned.WithTurn(3)|dirtymap.Logged), // Logged is not durable
		setOf(4000, 5000, shared|dirtymap.Volatile),
		testMeta(7),
		Prepare{Join: 4, Meta: testMeta(9), Changes: []Set{setOf(1, 9999, owned), setOf(77, 1, shared)}},
	} {
		must(t, l.Append(r))
		want.apply(r)
		expect(t, l, want)
	}
	must(t, l.Close())
	l, rep = mustOpen(t, f)
	if rep.Records != 6 || rep.Torn != 0 || rep.Prepared == nil || rep.Prepared.Join != 4 {
		t.Fatalf("report %+v", rep)
	}
	expect(t, l, want)
	must(t, l.Append(Commit{Join: 4}))
	want.apply(Commit{Join: 4})
	expect(t, l, want)
	must(t, l.Close())
	l, _ = mustOpen(t, f)
	expect(t, l, want)
	for _, ext := range []uint64{0, 77, 4087, 4088, 9999} {
		if s, err := l.State(ext); err != nil || s != want.states[ext] {
			t.Fatalf("extent %d: %v, %v; want %v", ext, s, err, want.states[ext])
		}
	}
}

func TestCheckpointKeepsEverything(t *testing.T) {
	f := newFile(t, 10_000, shared)
	fresh := len(f.data)
	l, _ := mustOpen(t, f)
	want := newModel(10_000, shared, testMeta(1))
	step := func(r Record) {
		t.Helper()
		must(t, l.Append(r))
		want.apply(r)
	}
	step(setOf(5, 4090, owned))
	step(testMeta(2))
	must(t, l.Checkpoint())
	if len(f.data) != fresh {
		t.Fatalf("checkpoint leaves %d bytes, a fresh file has %d", len(f.data), fresh)
	}
	expect(t, l, want)

	prepare := Prepare{Join: 9, Meta: testMeta(3)}
	for i := range uint64(5000) {
		prepare.Changes = append(prepare.Changes, setOf(i*2, 1, stale))
	}
	step(prepare)
	for range 4 { // the prepared join moves from log to log
		step(setOf(7, 1, owned.WithTurn(1)))
		must(t, l.Checkpoint())
		expect(t, l, want)
		must(t, l.Close())
		l, _ = mustOpen(t, f)
		expect(t, l, want)
	}
	if limit := fresh + 2*20<<10 + 2*20<<10; len(f.data) > limit {
		t.Fatalf("%d bytes with a prepared join, want at most %d", len(f.data), limit)
	}
	step(Commit{Join: 9})
	must(t, l.Checkpoint())
	if len(f.data) != fresh {
		t.Fatalf("%d bytes at the end, a fresh file has %d", len(f.data), fresh)
	}
	must(t, l.Close())
	l, rep := mustOpen(t, f)
	if rep.Records != 0 {
		t.Fatalf("report %+v", rep)
	}
	expect(t, l, want)
}

func TestSyncCheckpointsWhenTheLogHasGrown(t *testing.T) {
	f := newFile(t, 100_000, shared)
	fresh := len(f.data)
	l, _ := mustOpen(t, f)
	l.logLimit = 64 << 10
	want := newModel(100_000, shared, testMeta(1))
	for i := range uint64(2000) {
		r := setOf(i*7919%100_000, 1, owned.WithTurn(uint8(i)))
		must(t, l.Append(r))
		want.apply(r)
		if i%3 == 0 {
			must(t, l.Sync())
		}
		if limit := fresh + 64<<10 + 4<<10; len(f.data) > limit {
			t.Fatalf("%d bytes after %d records, want at most %d", len(f.data), i+1, limit)
		}
	}
	expect(t, l, want)
	if l.generation < 10 {
		t.Fatalf("generation %d: no checkpoints", l.generation)
	}
}

func TestHugeSetTakesLittleMemory(t *testing.T) {
	// Only the pages that the geometry needs are as large as 1 TiB's; the Log
	// must not keep them in memory.
	const extents = 1 << 24
	f := newFile(t, extents, shared)
	l, _ := mustOpen(t, f)
	must(t, l.Append(setOf(3, extents-3, stale)))
	if l.overlay.memory > 1<<20 {
		t.Fatalf("%d bytes for one Set over 1 TiB", l.overlay.memory)
	}
	must(t, l.Checkpoint())
	l, _ = mustOpen(t, f)
	for ext, want := range map[uint64]dirtymap.State{0: shared, 2: shared, 3: stale, extents / 2: stale, extents - 1: stale} {
		if s, err := l.State(ext); err != nil || s != want {
			t.Fatalf("extent %d: %v, %v", ext, s, err)
		}
	}
}

func TestSyncIsOneForAll(t *testing.T) {
	f := newFile(t, 100, shared)
	l, _ := mustOpen(t, f)
	before := f.syncs
	for i := range uint64(50) {
		must(t, l.Append(setOf(i, 1, owned)))
	}
	must(t, l.Sync())
	must(t, l.Sync())
	if f.syncs != before+1 {
		t.Fatalf("%d syncs", f.syncs-before)
	}
}

func TestFailureIsFinal(t *testing.T) {
	f := newFile(t, 100, shared)
	l, _ := mustOpen(t, f)
	must(t, l.Append(setOf(1, 1, owned)))
	f.fail = errDisk
	err := l.Sync()
	if !errors.Is(err, ErrFailed) || !errors.Is(err, errDisk) || !strings.Contains(err.Error(), "full") {
		t.Fatalf("sync: %v", err)
	}
	f.fail = nil // the disk recovers, what it lost does not
	size := len(f.data)
	for _, again := range []error{l.Append(setOf(2, 1, owned)), l.Sync(), l.Checkpoint(), l.Close()} {
		if !errors.Is(again, ErrFailed) {
			t.Fatalf("after the failure: %v", again)
		}
	}
	if len(f.data) != size {
		t.Fatal("wrote after the failure")
	}
}

func TestCommitNeedsItsPrepare(t *testing.T) {
	f := newFile(t, 100, shared)
	l, _ := mustOpen(t, f)
	size := len(f.data)
	must(t, l.Append(Prepare{Join: 2}))
	must(t, l.Append(Abort{}))
	for _, recs := range [][]Record{
		{Commit{Join: 2}},
		{setOf(0, 1, owned), Prepare{Join: 3}, Commit{Join: 2}},
		{Prepare{Join: 2}, Abort{}, Commit{Join: 2}},
	} {
		if err := l.Append(recs...); !errors.Is(err, ErrNoPrepare) {
			t.Fatalf("%v: %v", recs, err)
		}
	}
	expect(t, l, newModel(100, shared, testMeta(1)))
	must(t, l.Append(Prepare{Join: 2, Changes: []Set{setOf(5, 1, stale)}}, Commit{Join: 2}))
	if s, _ := l.State(5); s != stale || len(f.data) == size {
		t.Fatalf("extent 5: %v", s)
	}
}

func TestOpenRefusesWhatIsNotItsOwn(t *testing.T) {
	f := newFile(t, 100, shared)
	other, larger := testIdentity(100), testIdentity(101)
	other.LUN[3]++
	blocks, odd := testIdentity(100), testIdentity(100)
	blocks.BlockSize, odd.BlockSize = 4096, 1024
	oddFile := &memFile{data: put(append([]byte(nil), f.data...), (&header{version: 1, id: odd, number: 9, generation: 1}).encode(), 0)}
	copy(oddFile.data[slotSize:], oddFile.data[:slotSize])
	newer := &memFile{data: f.data}
	h := header{version: version + 1, id: testIdentity(100), number: 9, generation: 1}
	newer.data = put(append([]byte(nil), f.data...), h.encode(), 0)
	same := testIdentity(100)
	for name, c := range map[string]struct {
		f    File
		id   *Identity
		want error
	}{
		"other LUN":      {f, &other, ErrForeign},
		"other geometry": {f, &larger, ErrForeign},
		"other blocks":   {f, &blocks, ErrForeign},
		"odd blocks":     {oddFile, &same, ErrDamaged},
		"newer version":  {newer, &same, ErrVersion},
		"no bytes":       {&memFile{}, &same, ErrEmpty},
		"few bytes":      {&memFile{data: make([]byte, 100)}, &same, ErrDamaged},
		"zeros":          {&memFile{data: make([]byte, 1<<20)}, &same, ErrDamaged},
		"pages cut off":  {&memFile{data: f.data[:8192+100]}, &same, ErrDamaged},
	} {
		if _, _, err := Open(c.f, c.id); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	same.BlockSize = 512 // as is one that does not say
	if _, _, err := Open(f, &same); err != nil {
		t.Fatal(err)
	}
}

// TestBlockSizeStays: the file says which blocks hosts were shown, through checkpoints
// and growing, and planes are taken from a peer that shows the same ones.
func TestBlockSizeStays(t *testing.T) {
	f, to := &memFile{}, &memFile{}
	id, larger := testIdentity(100), testIdentity(200)
	id.BlockSize, larger.BlockSize = 4096, 4096
	must(t, Create(f, id, shared, testMeta(1)))
	l, _, err := Open(f, &id)
	must(t, err)
	must(t, l.Append(setOf(1, 2, owned)))
	must(t, l.Checkpoint())
	must(t, l.Grow(to, larger.Size))
	for _, c := range []struct {
		f  *memFile
		id Identity
	}{{f, id}, {to, larger}} {
		if _, _, err := Open(c.f, &c.id); err != nil {
			t.Error(err)
		}
		c.id.BlockSize = 512
		if _, _, err := Open(c.f, &c.id); !errors.Is(err, ErrForeign) {
			t.Error("wanted with other blocks:", err)
		}
	}
	planes := planesOf(t, id, make([]dirtymap.State, 100))
	if _, err := unpacked(bytes.NewReader(planes), id); err != nil {
		t.Error(err)
	}
	if _, err := unpacked(bytes.NewReader(planes), testIdentity(100)); !errors.Is(err, ErrForeign) {
		t.Error("planes of other blocks:", err)
	}
}

func TestOpenOSLocksAndKeeps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lun.map")
	f, err := OpenOS(path)
	must(t, err)
	must(t, Create(f, testIdentity(100), stale, testMeta(1)))
	if _, err := OpenOS(path); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Fatalf("opened twice: %v", err)
	}
	l, _ := mustOpen(t, f)
	must(t, l.Append(setOf(9, 2, owned)))
	must(t, l.Close())
	f, err = OpenOS(path)
	must(t, err)
	l, rep := mustOpen(t, f)
	if rep.Records != 1 {
		t.Fatalf("%+v", rep)
	}
	want := newModel(100, stale, testMeta(1))
	want.apply(setOf(9, 2, owned))
	expect(t, l, want)
	must(t, l.Close())
}

// TestVersions: a file is of version 1, which older programs read, until it has to keep
// a term; from then on they refuse it for its version, not as damaged.
func TestVersions(t *testing.T) {
	f := &memFile{}
	must(t, Create(f, testIdentity(100), shared, testMeta(1)))
	versions := func() [2]uint32 {
		s, err := readSlots(f)
		must(t, err)
		return [2]uint32{s.header[0].version, s.header[1].version}
	}
	l, _ := mustOpen(t, f)
	must(t, l.Append(testMeta(2), setOf(1, 2, owned)))
	must(t, l.Checkpoint())
	if got := versions(); got != [2]uint32{1, 1} {
		t.Fatalf("without a term: %v", got)
	}
	must(t, l.Append(setOf(3, 2, stale)))
	termed := testMeta(3)
	must(t, l.Append(termed))
	if got := versions(); got != [2]uint32{2, 2} {
		t.Fatalf("with a term: %v", got)
	}
	must(t, l.Sync())
	for range 2 {
		l, rep := mustOpen(t, f)
		if l.Meta() != termed || rep.Repaired {
			t.Fatalf("%+v, %+v", l.Meta(), rep)
		}
		if s, err := l.State(3); err != nil || s != stale {
			t.Fatalf("state %v, %v", s, err)
		}
		must(t, l.Checkpoint())
	}
	header := (&header{version: 1, id: testIdentity(100), number: 9, generation: 1, meta: termed}).encode()
	if _, err := decodeHeader(header); err == nil {
		t.Error("a header of version 1 has a term")
	}
}
