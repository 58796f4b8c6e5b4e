package mapfile

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/twinlun/twinlun/dirtymap"
)

// crashFile is a File that keeps what was not synced apart from what was, and
// whose power fails after a number of operations.
type crashFile struct {
	memFile          // what the process sees
	disk    []byte   // what is durable
	pending []change // what was written since
	halfway []change // what failed with the power
	power   int      // operations left; negative: power does not fail
}

// change is a write, or a truncation when data is nil.
type change struct {
	off  int64
	data []byte
}

var errPower = errors.New("power failure")

// use takes an operation off the power; false: it has failed.
func (f *crashFile) use() bool {
	if f.power == 0 {
		return false
	}
	f.power--
	return true
}

func (f *crashFile) WriteAt(p []byte, off int64) (int, error) {
	c := change{off, slices.Clone(p)}
	if !f.use() {
		f.halfway = append(f.halfway, c)
		return 0, errPower
	}
	f.pending = append(f.pending, c)
	return f.memFile.WriteAt(p, off)
}

func (f *crashFile) Truncate(size int64) error {
	if !f.use() {
		f.halfway = append(f.halfway, change{off: size})
		return errPower
	}
	f.pending = append(f.pending, change{off: size})
	return f.memFile.Truncate(size)
}

func (f *crashFile) Sync() error {
	if !f.use() {
		return errPower
	}
	f.disk = slices.Clone(f.data)
	f.pending = nil
	return nil
}

// crash gives the file as the next start finds it. When only the process dies it
// finds all that was written, but that is no more durable than before. When the
// power fails: of every change that was not synced some sectors, or some bytes
// from its beginning on, or nothing.
func (f *crashFile) crash(t *rapid.T) *crashFile {
	if rapid.IntRange(0, 3).Draw(t, "crash") == 0 {
		return &crashFile{memFile: memFile{data: f.data}, disk: f.disk, pending: f.pending, power: -1}
	}
	for _, c := range append(f.pending, f.halfway...) {
		switch how := rapid.IntRange(0, 3).Draw(t, "fate"); {
		case how == 0:
		case c.data == nil:
			f.disk = resize(f.disk, c.off)
		case how == 1:
			f.disk = put(f.disk, c.data, c.off)
		case how == 2:
			f.disk = put(f.disk, c.data[:rapid.IntRange(0, len(c.data)).Draw(t, "bytes")], c.off)
		case how == 3:
			seed := rapid.Uint64().Draw(t, "sectors")
			for at := 0; at < len(c.data); at += sectorSize {
				if seed>>(at/sectorSize%61)&1 == 1 {
					f.disk = put(f.disk, c.data[at:min(at+sectorSize, len(c.data))], c.off+int64(at))
				}
			}
		}
	}
	return &crashFile{memFile: memFile{data: slices.Clone(f.disk)}, disk: slices.Clone(f.disk), power: -1}
}

const crashExtents = 3*pageStates + 100

func drawState(t *rapid.T) dirtymap.State {
	s := rapid.SampledFrom([]dirtymap.State{shared, owned, stale}).Draw(t, "state")
	return s.WithTurn(uint8(rapid.IntRange(0, 3).Draw(t, "turn"))) | dirtymap.State(rapid.IntRange(0, 3).Draw(t, "flags"))<<4
}

func drawSet(t *rapid.T) Set {
	first := rapid.Uint64Range(0, crashExtents-1).Draw(t, "first")
	count := rapid.OneOf(rapid.Just(uint64(1)), rapid.Uint64Range(1, crashExtents)).Draw(t, "count")
	return setOf(first, min(count, crashExtents-first), drawState(t))
}

// drawPrepare is sometimes longer than a block.
func drawPrepare(t *rapid.T) Prepare {
	p := Prepare{Join: rapid.Uint64Range(1, 5).Draw(t, "join"), Meta: testMeta(rapid.Byte().Draw(t, "meta"))}
	n := rapid.SampledFrom([]int{0, 1, 5, 4000}).Draw(t, "changes")
	s := drawSet(t)
	for i := range uint64(n) {
		p.Changes = append(p.Changes, setOf((s.Range.First+i*3)%crashExtents, 1, s.State.WithTurn(uint8(i))))
	}
	return p
}

func drawRecord(t *rapid.T, m *model) Record {
	kinds := []string{"set", "set", "set", "meta", "prepare", "abort"}
	if m.prepared != nil {
		kinds = append(kinds, "commit", "commit")
	}
	switch rapid.SampledFrom(kinds).Draw(t, "record") {
	case "meta":
		return testMeta(rapid.Byte().Draw(t, "meta"))
	case "prepare":
		return drawPrepare(t)
	case "abort":
		return Abort{}
	case "commit":
		return Commit{Join: m.prepared.Join}
	}
	return drawSet(t)
}

// crashRun is one map file through crashes, with all contents that the next
// start may find: the last one synced, and those of each Append since.
type crashRun struct {
	f        *crashFile
	l        *Log
	possible []*model
}

func (r *crashRun) now() *model { return r.possible[len(r.possible)-1] }

// open starts again, with the power failing at any operation, until one start
// gets through; every one of them must find something possible.
func (r *crashRun) open(t *rapid.T) {
	for {
		r.f.power = rapid.IntRange(-1, 8).Draw(t, "power for Open")
		l, _, err := Open(r.f, nil)
		if err == nil {
			r.l = l
			break
		}
		if !errors.Is(err, errPower) {
			t.Fatalf("open after a crash: %v", err)
		}
		r.f = r.f.crash(t)
	}
	r.f.power = -1
	r.l.limits = limits{payloadLimit: 3 * maxRecord, logLimit: 64 << 10, overlayLimit: 64 << 10}
	got := content(t, r.l)
	for _, m := range r.possible {
		if got.equal(m) {
			r.possible = []*model{m}
			return
		}
	}
	t.Fatalf("after a crash: none of the %d possible contents", len(r.possible))
}

// step does one thing; false: the power failed.
func (r *crashRun) step(t *rapid.T) bool {
	var err error
	switch rapid.SampledFrom([]string{"append", "append", "append", "sync", "checkpoint", "read"}).Draw(t, "step") {
	case "append":
		next := r.now().clone()
		recs := []Record{drawRecord(t, next)}
		next.apply(recs[0])
		if _, long := recs[0].(Prepare); !long {
			for range rapid.IntRange(0, 3).Draw(t, "more") {
				s := drawSet(t)
				recs = append(recs, s)
				next.apply(s)
			}
		}
		r.possible = append(r.possible, next)
		err = r.l.Append(recs...)
	case "sync":
		if err = r.l.Sync(); err == nil {
			r.possible = []*model{r.now()}
		}
	case "checkpoint":
		if err = r.l.Checkpoint(); err == nil {
			r.possible = []*model{r.now()}
		}
	case "read":
		ext := rapid.Uint64Range(0, crashExtents-1).Draw(t, "read")
		if s, err := r.l.State(ext); err != nil || s != r.now().states[ext] {
			t.Fatalf("extent %d: %v, %v; want %v", ext, s, err, r.now().states[ext])
		}
	}
	if err != nil && !errors.Is(err, errPower) {
		t.Fatal(err)
	}
	return err == nil
}

func TestCrashesLoseNothingThatWasSynced(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := &crashFile{power: -1}
		if err := Create(f, testIdentity(crashExtents), stale, testMeta(1)); err != nil {
			t.Fatal(err)
		}
		r := &crashRun{f: f, possible: []*model{newModel(crashExtents, stale, testMeta(1))}}
		for range rapid.IntRange(1, 4).Draw(t, "lives") {
			r.open(t)
			r.f.power = rapid.IntRange(0, 60).Draw(t, "power")
			for range 25 {
				if !r.step(t) {
					break
				}
			}
			r.f = r.f.crash(t)
		}
		r.open(t)
	})
}

func TestTornCreateIsNoMapFile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := &crashFile{power: rapid.IntRange(0, 6).Draw(t, "power")}
		made := Create(f, testIdentity(crashExtents), owned, testMeta(3)) == nil
		f = f.crash(t)
		l, _, err := Open(f, nil)
		switch {
		case err == nil:
			if !content(t, l).equal(newModel(crashExtents, owned, testMeta(3))) {
				t.Fatal("a torn Create opens with other contents")
			}
		case made:
			t.Fatalf("Create was through: %v", err)
		case !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrEmpty):
			t.Fatal(err)
		}
	})
}
