package replication

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/dirtymap/mapfile"
	"github.com/twinlun/twinlun/target/backing/journal"
)

const testSector = 512

// machine is one with a replica and a journal of atomic writes, in which one access
// fails, or at which the power does.
type machine struct {
	mu     sync.Mutex
	rand   *rand.Rand
	at     int  // the access at which it happens
	forgo  bool // it is the power
	always bool // all later ones fail, too; else only every second one
	count  int
	store  powerFile
	log    powerFile
}

// powerFile is a file with a cache in front of it.
type powerFile struct {
	*machine
	cache, durable []byte
	pending        []int // sectors of the cache that were not synced
}

var errPower = errors.New("the test lets this fail")

// step counts an access, and tells whether it fails.
func (m *machine) step() error {
	m.count++
	switch late := m.count - m.at; {
	case m.at == 0 || late < 0:
		return nil
	case late == 0, m.forgo, m.always, late%2 == 0:
		return errPower
	}
	return nil
}

// write stores sectors; of one that fails, some.
func (f *powerFile) write(p []byte, off int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.step()
	if dead := f.forgo && f.at > 0 && f.count > f.at; dead {
		return err
	}
	f.cache = append(f.cache, make([]byte, max(0, int(off)+len(p)-len(f.cache)))...)
	for at := 0; at < len(p); {
		n := min(testSector-(int(off)+at)%testSector, len(p)-at)
		if err == nil || f.rand.IntN(2) == 0 {
			copy(f.cache[int(off)+at:], p[at:at+n])
			f.pending = append(f.pending, (int(off)+at)/testSector)
		}
		at += n
	}
	return err
}

func (f *powerFile) read(p []byte, off int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	copy(p, f.cache[off:])
	return f.step()
}

// Sync implements backing.Store and journal.File.
func (f *powerFile) Sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step(); err != nil {
		return err
	}
	f.settle(func() bool { return true })
	return nil
}

// settle makes those sectors durable for which keep says so.
func (f *powerFile) settle(keep func() bool) {
	f.durable = append(f.durable, make([]byte, len(f.cache)-len(f.durable))...)
	for _, s := range f.pending {
		if keep() {
			copy(f.durable[s*testSector:min((s+1)*testSector, len(f.cache))], f.cache[s*testSector:])
		}
	}
	f.pending = nil
}

// Close implements backing.Store and journal.File.
func (f *powerFile) Close() error { return nil }

// powerStore is a backing.Store, powerJournal a journal.File.
type (
	powerStore   struct{ *powerFile }
	powerJournal struct{ *powerFile }
)

func (s powerStore) ReadAt(p []byte, off int64) error  { return s.read(p, off) }
func (s powerStore) WriteAt(p []byte, off int64) error { return s.write(p, off) }
func (s powerStore) Zero(off, n int64) error           { return s.write(make([]byte, n), off) }
func (s powerStore) Size() int64                       { return int64(len(s.cache)) }

func (j powerJournal) Size() (int64, error) { return int64(len(j.cache)), nil }

func (j powerJournal) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > int64(len(j.cache)) {
		return 0, io.EOF
	}
	return len(p), j.read(p, off)
}

func (j powerJournal) WriteAt(p []byte, off int64) (int, error) { return len(p), j.write(p, off) }

// madeJournal is an empty journal.
var madeJournal = sync.OnceValue(func() []byte {
	f := &testMapFile{}
	if _, _, err := journal.Open(f, [16]byte{1}); err != nil {
		panic(err)
	}
	return f.data
})

// newMachine is one whose replica holds old, and has a journal.
func newMachine(seed uint64, old []byte) *machine {
	m := &machine{rand: rand.New(rand.NewPCG(seed, 1))}
	m.store = powerFile{machine: m, cache: bytes.Clone(old), durable: bytes.Clone(old)}
	made := madeJournal()
	m.log = powerFile{machine: m, cache: bytes.Clone(made), durable: bytes.Clone(made)}
	return m
}

// again is the machine after a restart, as another process finds it.
func (m *machine) again(power bool) {
	m.at = 0
	for _, f := range []*powerFile{&m.store, &m.log} {
		if power {
			keep := m.rand.IntN(101)
			f.settle(func() bool { return m.rand.IntN(100) < keep })
			f.cache = bytes.Clone(f.durable)
		}
	}
}

// open opens the machine's replica; all of it is owned.
func (m *machine) open(t *testing.T, owned dirtymap.State, history byte) (*Replica, error) {
	t.Helper()
	file := &testMapFile{}
	id := mapfile.Identity{LUN: [16]byte{1}, Geometry: testGeometry}
	if err := mapfile.Create(file, id, owned, mapfile.Meta{History: [16]byte{history}, BootID: [16]byte{9}, Join: 1}); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(file)
	cfg.Store, cfg.Journal = powerStore{&m.store}, powerJournal{&m.log}
	cfg.Log = slog.New(slog.DiscardHandler)
	return OpenReplica(cfg)
}

// atomicCase is what the tests write, and onto what.
type atomicCase struct {
	off  int64
	data []byte
}

var atomicCases = []atomicCase{
	{4096, bytes.Repeat([]byte{1}, 16<<10)},
	{64<<10 - 4096, bytes.Repeat([]byte{2}, 8192)},   // across extents
	{200<<10 + 512, bytes.Repeat([]byte{3}, 10<<10)}, // parts of blocks
	{500 << 10, bytes.Repeat([]byte{4}, 40<<10)},
	{1<<20 - 20<<10, append(make([]byte, 8192), 5, 5, 5)}, // zeros, and the end
}

// oldContents are data, with holes. Nobody changes it.
var oldContents = sync.OnceValue(func() []byte {
	old := make([]byte, testGeometry.Size)
	for i := range old {
		if i/4096%3 != 0 {
			old[i] = 0x80 | byte(i/testSector)
		}
	}
	return old
})

// TestAtomicWrites: alone, and many at a time.
func TestAtomicWrites(t *testing.T) {
	want := bytes.Clone(oldContents())
	m := newMachine(1, want)
	r, err := m.open(t, dirtymap.Held, 1)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	for _, c := range atomicCases {
		copy(want[c.off:], c.data)
		for range 20 {
			running.Go(func() {
				if err := r.WriteAtomic(c.data, c.off); err != nil {
					t.Error(err)
				}
			})
		}
	}
	running.Wait()
	if !bytes.Equal(m.store.cache, want) || !bytes.Equal(m.store.durable, want) {
		t.Error("the replica holds something else, or has not synced it")
	}
	if len(m.log.pending) > 0 {
		t.Error("the journal was not synced")
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// TestAtomicWriteFaults lets every access in turn fail, in several ways, while atomic
// writes are done: nobody ever reads a half of one, neither then, nor after a restart,
// nor after a power failure; and one that was acknowledged stays.
func TestAtomicWriteFaults(t *testing.T) {
	for _, way := range []struct {
		name           string
		forgo, always  bool
		power, several bool
	}{
		{name: "power failure", forgo: true, power: true},
		{name: "power failure, several writes", forgo: true, power: true, several: true},
		{name: "the process is killed", forgo: true},
		{name: "an access fails", power: true},
		{name: "an access fails, and goes on", several: true},
		{name: "the medium fails", always: true},
		{name: "the medium fails, then the power", always: true, power: true, several: true},
	} {
		t.Run(way.name, func(t *testing.T) {
			for seed := range uint64(2) {
				for at := 1; ; at++ {
					m := newMachine(seed, oldContents())
					m.forgo, m.always = way.forgo, way.always
					if !m.fault(t, way.several, way.power, at) {
						if at < 6 {
							t.Fatalf("an atomic write has only %d accesses", at)
						}
						break
					}
				}
			}
		})
	}
}

// fault writes with a fault at an access, restarts, and checks. False: the fault came
// too late for the writes.
func (m *machine) fault(t *testing.T, several, power bool, at int) bool {
	t.Helper()
	r, err := m.open(t, dirtymap.Held, 1)
	if err != nil {
		t.Fatal(err)
	}
	cases := atomicCases[m.rand.IntN(len(atomicCases)):][:1]
	if several {
		cases = atomicCases
	}
	m.count, m.at = 0, at
	acked := make([]bool, len(cases))
	var running sync.WaitGroup
	for i, c := range cases {
		running.Go(func() { acked[i] = r.WriteAtomic(c.data, c.off) == nil })
	}
	running.Wait()
	m.mu.Lock()
	hit := m.count >= at
	m.mu.Unlock()
	where := func(i int) string {
		return fmt.Sprintf("fault at access %d, write %d, acknowledged %v", at, i, acked[i])
	}
	r.mu.Lock()
	inService := r.health.fault == nil
	r.mu.Unlock()
	for i, c := range cases {
		got := make([]byte, len(c.data))
		if err := r.Read(got, c.off); err == nil {
			c.check(t, got, acked[i], inService, "before a restart, "+where(i))
		}
	}
	r.Close()
	m.again(power)
	r, err = m.open(t, dirtymap.Held, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i, c := range cases {
		got := make([]byte, len(c.data))
		if err := r.Read(got, c.off); err != nil {
			t.Fatal(err)
		}
		c.check(t, got, acked[i], false, "after a restart, "+where(i))
	}
	return hit
}

// check wants all of a write, or nothing; all if it was acknowledged, and nothing if it
// was not and the replica goes on.
func (c *atomicCase) check(t *testing.T, got []byte, acked, inService bool, where string) {
	t.Helper()
	old := oldContents()[c.off:][:len(c.data)]
	switch whole, none := bytes.Equal(got, c.data), bytes.Equal(got, old); {
	case !whole && !none:
		t.Fatal("half an atomic write: ", where)
	case acked && !whole:
		t.Fatal("an atomic write is lost: ", where)
	case !acked && inService && !none:
		t.Fatal("an atomic write that failed is there: ", where)
	}
}

// TestAtomicWriteIsForgotten: what is written after it stays, also when that crashes.
func TestAtomicWriteIsForgotten(t *testing.T) {
	m := newMachine(1, oldContents())
	r, err := m.open(t, dirtymap.Held, 1)
	if err != nil {
		t.Fatal(err)
	}
	c := atomicCases[1]
	later := bytes.Repeat([]byte{9}, len(c.data))
	if err := errors.Join(r.WriteAtomic(c.data, c.off), r.Write(later, c.off)); err != nil {
		t.Fatal(err)
	}
	m.again(false)
	r2, err := m.open(t, dirtymap.Held, 1)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(later))
	if err := r2.Read(got, c.off); err != nil || !bytes.Equal(got, later) {
		t.Error("a write was overwritten by an older atomic one:", err)
	}
	if err := errors.Join(r.Close(), r2.Close()); err != nil {
		t.Error(err)
	}
}

// TestJournalOfAnotherReplica: what a journal has is not written to a replica that is
// not the one it was of, nor to extents that the peer may have newer.
func TestJournalOfAnotherReplica(t *testing.T) {
	c := atomicCases[1]
	for _, tt := range []struct {
		name    string
		state   dirtymap.State
		history byte
		write   journal.Write
		done    bool
	}{
		{"ours", dirtymap.Held, 1, journal.Write{Off: c.off, Data: c.data}, true},
		{"a new replica", dirtymap.Held, 0, journal.Write{Off: c.off, Data: c.data}, false},
		{"not owned", 0, 1, journal.Write{Off: c.off, Data: c.data}, false},
		{"stale", dirtymap.Stale, 1, journal.Write{Off: c.off, Data: c.data}, false},
		{"beyond the end", dirtymap.Held, 1, journal.Write{Off: testGeometry.Size - 100, Data: c.data}, false},
		{"far beyond the end", dirtymap.Held, 1, journal.Write{Off: 1<<63 - 1 - int64(len(c.data)), Data: c.data}, false},
	} {
		m := newMachine(1, oldContents())
		j, _, err := journal.Open(powerJournal{&m.log}, [16]byte{1})
		if err == nil {
			err = j.Put([]journal.Write{tt.write})
		}
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // it is forgotten either way
			r, err := m.open(t, tt.state, tt.history)
			if err != nil {
				t.Fatal(tt.name, err)
			}
			want := bytes.Clone(oldContents())
			if tt.done {
				copy(want[c.off:], c.data)
			}
			if !bytes.Equal(m.store.cache, want) {
				t.Errorf("%s: the replica holds something else", tt.name)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		if _, left, err := journal.Open(powerJournal{&m.log}, [16]byte{1}); err != nil || len(left) > 0 {
			t.Errorf("%s: %d writes are left, %v", tt.name, len(left), err)
		}
	}
}

// TestBadJournals are refused, with all as it was.
func TestBadJournals(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(m *machine)
		want  error
	}{
		"damaged":        {func(m *machine) { clear(m.log.cache[:1024]); m.log.cache[2000] = 1 }, journal.ErrDamaged},
		"cannot be read": {func(m *machine) { m.at, m.always = 1, true }, errPower},
		"the replica is full": {func(m *machine) {
			j, _, _ := journal.Open(powerJournal{&m.log}, [16]byte{1})
			j.Put([]journal.Write{{Off: 0, Data: []byte("x")}})
			m.count, m.at, m.always = 0, 6, true // after the journal was read
		}, errPower},
	} {
		m := newMachine(1, oldContents())
		c.spoil(m)
		if r, err := m.open(t, dirtymap.Held, 1); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
			if err == nil {
				r.Close()
			}
		}
	}
}

// TestNoJournal: without a journal there are no atomic writes.
func TestNoJournal(t *testing.T) {
	r := mustOpen(t, testConfig(&testMapFile{}))
	if err := r.WriteAtomic(make([]byte, 4096), 0); !errors.Is(err, errNoJournal) {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
