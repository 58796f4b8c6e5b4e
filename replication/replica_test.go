package replication

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/dirtymap/mapfile"
	"github.com/twinlun/twinlun/replication/wire"
	"github.com/twinlun/twinlun/task"
	"github.com/twinlun/twinlun/task/simtask"
)

// testFile is a mapfile.File and, with a size, a backing.Store.
type testFile struct{ data []byte }

func (f *testFile) Sync() error  { return nil }
func (f *testFile) Close() error { return nil }

func (f *testFile) Truncate(n int64) error {
	f.data = append(f.data, make([]byte, max(0, n-int64(len(f.data))))...)[:n]
	return nil
}

type testMapFile struct{ testFile }

func (f *testMapFile) Size() (int64, error) { return int64(len(f.data)), nil }

func (f *testMapFile) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	if n := copy(p, f.data[off:]); n < len(p) {
		return n, io.EOF
	}
	return len(p), nil
}

func (f *testMapFile) WriteAt(p []byte, off int64) (int, error) {
	if end := off + int64(len(p)); end > int64(len(f.data)) {
		f.Truncate(end)
	}
	return copy(f.data[off:], p), nil
}

type testStore struct{ testFile }

func (f *testStore) ReadAt(p []byte, off int64) error  { copy(p, f.data[off:]); return nil }
func (f *testStore) WriteAt(p []byte, off int64) error { copy(f.data[off:], p); return nil }
func (f *testStore) Zero(off, n int64) error           { clear(f.data[off : off+n]); return nil }
func (f *testStore) Size() int64                       { return int64(len(f.data)) }

var testGeometry = dirtymap.Geometry{Size: 1 << 20, ExtentSize: 64 << 10}

func testConfig(file *testMapFile) ReplicaConfig {
	return ReplicaConfig{
		Number: 3, UUID: [16]byte{1}, Geometry: testGeometry,
		Store: &testStore{testFile{make([]byte, testGeometry.Size)}}, MapFile: file,
		Boot: [16]byte{9}, Proposal: [16]byte{2}, Runtime: task.System, Log: slog.New(slog.DiscardHandler),
	}
}

func mustOpen(t *testing.T, cfg ReplicaConfig) *Replica {
	t.Helper()
	r, err := OpenReplica(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What the map file says of the replica as a whole, from one start to the next.
func TestCrashOrCleanStop(t *testing.T) {
	id := mapfile.Identity{LUN: [16]byte{1}, Geometry: testGeometry}
	for _, c := range []struct {
		name    string
		meta    mapfile.Meta
		crashed bool
	}{
		{"process crash", mapfile.Meta{Join: 1, BootID: [16]byte{9}}, false},
		{"operating system crash", mapfile.Meta{Join: 1, BootID: [16]byte{8}}, true},
		{"clean stop, new kernel", mapfile.Meta{Join: 1, BootID: [16]byte{8}, Clean: true}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := &testMapFile{}
			volatile := dirtymap.Stale | dirtymap.Volatile
			if err := mapfile.Create(file, id, volatile, c.meta); err != nil {
				t.Fatal(err)
			}
			r := mustOpen(t, testConfig(file))
			if r.crash != c.crashed || r.m.State(5)&dirtymap.Durable != volatile {
				t.Errorf("crashed %v, extent %v", r.crash, r.m.State(5))
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			log, _, err := mapfile.Open(file, &id)
			if err != nil {
				t.Fatal(err)
			}
			s, err := log.State(5)
			if err != nil {
				t.Fatal(err)
			}
			// After a stop in order nothing is volatile; but what a crash made
			// doubtful stays so until the replicas have joined.
			if got := s&dirtymap.Volatile != 0; got != c.crashed || log.Meta().Clean == c.crashed {
				t.Errorf("closed: extent %v, meta %+v", s, log.Meta())
			}
		})
	}
}

func TestOpenReplicaRefuses(t *testing.T) {
	damaged := &testMapFile{testFile{bytes.Repeat([]byte{1}, 1<<16)}}
	wrongSize := testConfig(&testMapFile{})
	wrongSize.Geometry.Size *= 2
	shrinking, growing := testConfig(&testMapFile{}), testConfig(&testMapFile{})
	shrinking.Want = shrinking.Geometry.Size - 4096
	growing.Want = growing.Geometry.Size + 4096
	wrongGeometry := testConfig(&testMapFile{})
	wrongGeometry.Geometry.ExtentSize = 5000
	for _, c := range []struct {
		cfg  ReplicaConfig
		want string
	}{
		{testConfig(damaged), "move this file away"},
		{wrongSize, "bring the whole replica back"},
		{shrinking, "does not shrink"},
		{growing, "is to grow to"},
		{wrongGeometry, "power of two"},
	} {
		if _, err := OpenReplica(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

func TestStatusSaysWhyItDoesNotServe(t *testing.T) {
	r := mustOpen(t, testConfig(&testMapFile{}))
	if s := r.Status(); s.Serving || s.Why != "the peer has not been reached yet" {
		t.Errorf("%+v", s)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if s := r.Status(); s.Serving || s.Why != "it is being stopped" {
		t.Errorf("%+v", s)
	}
	if err := r.Close(); err != nil {
		t.Error("second Close:", err)
	}
}

func TestNodeTakesALUNOnce(t *testing.T) {
	n := NewNode(slog.New(slog.DiscardHandler))
	r := mustOpen(t, testConfig(&testMapFile{}))
	defer r.Close()
	if err := n.Add(r); err != nil {
		t.Fatal(err)
	}
	if err := n.Add(r); err == nil {
		t.Error("the same LUN number twice")
	}
	if list := n.Replicas(); len(list) != 1 || list[0] != r {
		t.Error(list)
	}
	n.Control(nil, 99, &wire.JoinDone{}) // a LUN that only the peer has: ignored
	n.Remove(r)
	if len(n.Replicas()) != 0 {
		t.Error("still there")
	}
}

func TestShards(t *testing.T) {
	const region = lockRegion
	for _, c := range []struct {
		off, n int64
		want   []int64
	}{
		{0, 1, []int64{0, 1}},
		{region - 1, 2, []int64{0, 2}},
		{5 * region, 3 * region, []int64{5, 8}},
		{(lockShards - 1) * region, region, []int64{lockShards - 1, lockShards}},
		{(lockShards - 2) * region, 3 * region, []int64{0, 1, lockShards - 2, lockShards}},
		{7 * region, (lockShards - 1) * region, []int64{0, 6, 7, lockShards}},
		{7 * region, lockShards * region, []int64{0, lockShards}},
		{512, 10 * lockShards * region, []int64{0, lockShards}},
	} {
		var got []int64
		for a, b := range shards(c.off, c.n) {
			got = append(got, a, b)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%d bytes at %d: %v, want %v", c.n, c.off, got, c.want)
		}
	}
}

// Only ranges that meet are kept from each other, whoever waits beside them.
func TestBlockLocksKeepOutWhatMeets(t *testing.T) {
	const block = dirtymap.BlockSize
	l := &blockLocks{run: task.System}
	try := func(off, n int64, write, want bool) {
		t.Helper()
		if got := l.tryLock(off, n, write); got != want {
			t.Errorf("%d bytes at %d, write %v: locked %v", n, off, write, got)
		}
	}
	l.lock(8*block, 2*block, false)
	var waiting sync.WaitGroup
	waiting.Go(func() { l.lock(9*block, 2*block, true) })
	for l.waiting() == 0 {
		runtime.Gosched()
	}
	try(8*block, block, false, true)                        // a reader beside a reader
	try(10*block+1, 1, false, false)                        // behind the writer that waits
	try(11*block, block, true, true)                        // beside it
	try(9*block+lockShards*lockRegion, block, true, true)   // in the same shard
	try(lockRegion-block, 2*block+lockRegion, true, true)   // more than one shard
	try(2*lockRegion-block, lockRegion, true, false)        // … of which one is free
	try(2*lockRegion+block, lockRegion-2*block, true, true) // … and was left so
	l.unlock(8*block, block, false)
	l.unlock(8*block, 2*block, false)
	waiting.Wait()
	try(10*block, block, false, false)
	l.unlock(9*block, 2*block, true)
	try(10*block, block, false, true)
}

// waiting is how many wait in the first shard.
func (l *blockLocks) waiting() int {
	l.shard[0].mu.Lock()
	defer l.shard[0].mu.Unlock()
	return len(l.shard[0].queue)
}

// Who waits behind more others than are looked at goes on all the same.
func TestBlockLocksManyWait(t *testing.T) {
	l := &blockLocks{run: task.System}
	l.lock(0, 1, true)
	var all sync.WaitGroup
	const n = 3 * lockLook
	for i := range int64(n) {
		all.Go(func() {
			l.lock(i%5*dirtymap.BlockSize, 2*dirtymap.BlockSize, i%3 > 0)
			l.unlock(i%5*dirtymap.BlockSize, 2*dirtymap.BlockSize, i%3 > 0)
		})
	}
	for l.waiting() < lockLook {
		runtime.Gosched()
	}
	l.unlock(0, 1, true)
	all.Wait()
	if !l.tryLock(0, 100*lockRegion, true) {
		t.Error("something is locked still")
	}
}

// Commands that hold block locks over waits, in many orders: writers are alone,
// readers are together, nobody is forgotten.
func TestBlockLocks(t *testing.T) {
	for seed := range uint64(200) {
		s := simtask.New(seed)
		g := s.Group("node")
		l := &blockLocks{run: g}
		left, together := 0, 0
		users := map[int64]int{} // per block: readers, or -1
		for range 12 {
			left++
			g.Go("command", func() {
				for range 8 {
					useBlocks(t, s.Rand(), g, l, users, &together)
				}
				left--
			})
		}
		if err := s.Run(time.Hour, func() bool { return left == 0 }); err != nil || left > 0 {
			t.Fatalf("seed %d: %v, %d commands have not ended\n%s", seed, err, left, s.Dump())
		}
		if together == 0 {
			t.Errorf("seed %d: no two readers at once", seed)
		}
		s.Close()
	}
}

func useBlocks(t *testing.T, r *rand.Rand, g *simtask.Group, l *blockLocks, users map[int64]int, together *int) {
	write := r.IntN(3) == 0
	first, n := int64(r.IntN(6))+lockShards*lockRegion/dirtymap.BlockSize-3, int64(1+r.IntN(4))
	if r.IntN(3) == 0 {
		if !l.tryLock(first*dirtymap.BlockSize, n*dirtymap.BlockSize, write) {
			return
		}
	} else {
		l.lock(first*dirtymap.BlockSize, n*dirtymap.BlockSize, write)
	}
	for b := first; b < first+n; b++ {
		if users[b] < 0 || write && users[b] != 0 {
			t.Errorf("block %d is used by %d when a command (write %v) comes in", b, users[b], write)
		}
		if users[b]++; write {
			users[b] = -1
		} else if users[b] > 1 {
			*together++
		}
	}
	g.Sleep(context.Background(), time.Duration(r.IntN(3))*time.Millisecond)
	for b := first; b < first+n; b++ {
		if users[b]--; write {
			users[b] = 0
		}
	}
	l.unlock(first*dirtymap.BlockSize, n*dirtymap.BlockSize, write)
}

func TestBlockLocksAllocateNothing(t *testing.T) {
	l := &blockLocks{run: task.System}
	if n := testing.AllocsPerRun(100, func() {
		l.lock(0, 1<<20, true)
		l.unlock(0, 1<<20, true)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestPoolDoesEveryJobBeforeItCloses(t *testing.T) {
	var p pool
	p.start(task.System, "job", 3)
	var mu sync.Mutex
	done := 0
	for range 500 {
		p.put(func() {
			mu.Lock()
			defer mu.Unlock()
			done++
		})
	}
	p.close()
	if done != 500 {
		t.Fatal(done)
	}
}

func TestPoolBeginsJobsInOrder(t *testing.T) {
	s := simtask.New(4)
	defer s.Close()
	g := s.Group("node")
	var p pool
	p.start(g, "job", 1)
	var order []int
	for i := range 20 {
		p.put(func() {
			order = append(order, i)
			g.Sleep(context.Background(), time.Millisecond)
		})
	}
	if err := s.Run(time.Minute, func() bool { return len(order) == 20 }); err != nil || !slices.IsSorted(order) {
		t.Fatal(err, order)
	}
}

func TestBucket(t *testing.T) {
	now := time.Unix(0, 0)
	b := newBucket(1000, now)
	total := int64(0)
	for total < 100_000 {
		total += 700
		now = now.Add(b.take(700, now))
	}
	if d := now.Sub(time.Unix(0, 0)); d < 99*time.Second || d > 101*time.Second {
		t.Errorf("%d bytes at 1000 a second took %v", total, d)
	}
	now = now.Add(time.Hour)
	if b.take(100, now) != 0 || b.take(700, now) == 0 {
		t.Error("an hour's rest was saved up, or a tenth of a second's was not")
	}
	if newBucket(0, now).take(1<<40, now) != 0 {
		t.Error("no limit, and yet a wait")
	}
}

// sink is a LinkConn that keeps what is sent.
type sink struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	sent   []wire.Message
}

func newSink() *sink {
	s := &sink{}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s
}

func (s *sink) SendControl(_ uint32, m wire.Message)     { s.sent = append(s.sent, m) }
func (s *sink) SendBulk(_ int, _ uint32, m wire.Message) { s.sent = append(s.sent, m) }
func (s *sink) Streams() int                             { return 1 }
func (s *sink) Peer() string                             { return "peer" }
func (s *sink) Close(reason error)                       { s.cancel(reason) }
func (s *sink) Features() uint32                         { return wire.FeatureTell | wire.FeatureVerify }
func (s *sink) RTT() time.Duration                       { return 0 }
func (s *sink) Context() context.Context                 { return s.ctx }

func TestPlanesAreCutIntoPieces(t *testing.T) {
	s := newSink()
	w := &planesOut{conn: s, lun: 3}
	want := make([]byte, 2*joinPiece+100)
	for i := range want {
		want[i] = byte(i * 31)
	}
	for part := range slices.Chunk(want, 77777) {
		if n, err := w.Write(part); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	w.send(true)
	var got []byte
	for i, m := range s.sent {
		j := m.(*wire.JoinMap)
		if len(j.Data) > joinPiece || j.Last != (i == 2) {
			t.Errorf("piece %d: %d bytes, last %v", i, len(j.Data), j.Last)
		}
		got = append(got, j.Data...)
	}
	if !bytes.Equal(got, want) {
		t.Error("the pieces are something else than the whole")
	}
	s.Close(errors.New("gone"))
	if _, err := w.Write(want); err == nil {
		t.Error("planes go on over a broken connection")
	}
}

// Planes that are damaged, or do not end, break the connection and nothing else.
func TestBadPlanes(t *testing.T) {
	for name, pieces := range map[string][]*wire.JoinMap{
		"rubbish":        {{Data: bytes.Repeat([]byte{7}, 5000), Last: true}},
		"empty":          {{Last: true}},
		"behind the end": {{Last: true}, {Last: true}},
	} {
		t.Run(name, func(t *testing.T) {
			r := mustOpen(t, testConfig(&testMapFile{}))
			s := newSink()
			r.up(s)
			for _, p := range pieces {
				r.control(s, p)
			}
			<-s.ctx.Done()
			r.down(context.Cause(s.ctx))
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
