package history

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// store is a LUN in memory, and what may be wrong with it. It takes (virtual) time
// for everything, so that operations overlap.
type store struct {
	// Whether writes are acknowledged first and carried out later.
	behind bool
	// Whether a write is forgotten.
	lose func() bool
	// Whether the halves of a block are written one after another.
	tear bool
	// Whether a compare-and-write has a gap between the two.
	split bool
	// Whether an operation ends with an error, carried out or not.
	fail func() bool

	mu     sync.Mutex
	rand   *rand.Rand
	blocks map[int64][BlockSize]byte
}

func newStore(seed uint64) *store {
	return &store{
		rand: rand.New(rand.NewPCG(seed, 1)), blocks: map[int64][BlockSize]byte{},
		lose: func() bool { return false }, fail: func() bool { return false },
	}
}

// one tells "yes" once in n times.
func (s *store) one(n int) func() bool {
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.rand.IntN(n) == 0
	}
}

func (s *store) delay() { time.Sleep(s.while()) }

// while is up to a millisecond.
func (s *store) while() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Duration(s.rand.IntN(1000)) * time.Microsecond
}

func (s *store) put(p []byte, off int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := 0; i < len(p); {
		at := off + int64(i)
		b := s.blocks[at/BlockSize]
		i += copy(b[at%BlockSize:], p[i:])
		s.blocks[at/BlockSize] = b
	}
}

// client is a Client of a store.
type client struct{ *store }

var errBroken = errors.New("broken on purpose")

func (c client) ReadAt(_ context.Context, p []byte, off int64) error {
	c.delay()
	c.mu.Lock()
	for i := 0; i < len(p); i += BlockSize {
		b := c.blocks[(off+int64(i))/BlockSize]
		copy(p[i:], b[:])
	}
	c.mu.Unlock()
	c.delay()
	if c.fail() {
		return errBroken
	}
	return nil
}

func (c client) WriteAt(_ context.Context, p []byte, off int64) error {
	failed := c.fail()
	if failed && c.one(2)() {
		return errBroken
	}
	c.delay()
	if c.lose() {
		return nil
	}
	if c.behind {
		time.AfterFunc(3*c.while(), func() { c.put(p, off) })
		return nil
	}
	for i := 0; i < len(p); i += BlockSize {
		c.putBlock(p[i:i+BlockSize], off+int64(i))
	}
	c.delay()
	if failed {
		return errBroken
	}
	return nil
}

func (c client) putBlock(p []byte, off int64) {
	if !c.tear {
		c.put(p, off)
		return
	}
	c.put(p[:BlockSize/2], off)
	c.delay()
	c.put(p[BlockSize/2:], off+BlockSize/2)
}

// cached is a Client of a site that keeps what it has read, and does not hear of
// the other site's writes.
type cached struct {
	client
	cache *store
}

func (c cached) ReadAt(ctx context.Context, p []byte, off int64) error {
	if _, ok := c.cache.blocks[off/BlockSize]; ok && len(p) == BlockSize {
		return client{c.cache}.ReadAt(ctx, p, off)
	}
	err := c.client.ReadAt(ctx, p, off)
	if err == nil {
		c.cache.put(p, off)
	}
	return err
}

func (c cached) WriteAt(ctx context.Context, p []byte, off int64) error {
	err := c.client.WriteAt(ctx, p, off)
	c.cache.put(p, off)
	return err
}

// CompareAndWriteTries is atomic, unless the store puts the halves of blocks one after
// another: then others come in between.
func (c client) CompareAndWriteTries(_ context.Context, old, put []byte, off int64, _ func()) (bool, error) {
	failed := c.fail()
	if failed && c.one(2)() {
		return false, errBroken
	}
	c.delay()
	done := c.compareAndPut(old, put, off)
	c.delay()
	if failed {
		return false, errBroken
	}
	return done, nil
}

func (c client) compareAndPut(old, put []byte, off int64) bool {
	c.mu.Lock()
	now := c.blocks[off/BlockSize]
	same := bytes.Equal(now[:], old)
	if same && !c.split {
		copy(now[:], put)
		c.blocks[off/BlockSize] = now
	}
	c.mu.Unlock()
	if c.split {
		c.delay()
		if same || c.one(4)() {
			c.put(put, off)
		}
	}
	return same
}

// repeating is a Client that repeats failed writes; with zombie, a try that failed
// is carried out once more after the next one.
type repeating struct {
	client
	zombie bool
}

func (c repeating) WriteAtTries(ctx context.Context, p []byte, off int64, again func()) error {
	for c.WriteAt(ctx, p, off) != nil {
		again()
		if c.zombie {
			time.AfterFunc(20*time.Millisecond, func() { c.put(p, off) })
		}
	}
	return nil
}

func (c repeating) CompareAndWriteTries(ctx context.Context, old, put []byte, off int64, again func()) (bool, error) {
	for {
		done, err := c.client.CompareAndWriteTries(ctx, old, put, off, nil)
		if err == nil {
			return done, nil
		}
		again()
		if c.zombie {
			time.AfterFunc(20*time.Millisecond, func() { c.compareAndPut(old, put, off) })
		}
	}
}

// straggling is a Client that repeats failed writes, which may be carried out once more
// when the next one was answered. It says that they are over when they are, or with
// hasty, before.
type straggling struct {
	client
	hasty bool
}

func (c straggling) WriteAtStraggling(ctx context.Context, p []byte, off int64, sent func() func()) error {
	for {
		over := sent()
		if c.one(4)() {
			c.straggle(over, func() { c.put(p, off) })
			continue
		}
		if err := c.WriteAt(ctx, p, off); err == nil {
			return nil
		}
		over()
	}
}

func (c straggling) CompareAndWriteStraggling(ctx context.Context, old, put []byte, off int64, sent func() func()) (bool, error) {
	for {
		over := sent()
		if c.one(4)() {
			c.straggle(over, func() { c.compareAndPut(old, put, off) })
			continue
		}
		if done, err := c.CompareAndWriteTries(ctx, old, put, off, nil); err == nil {
			return done, nil
		}
		over()
	}
}

func (c straggling) straggle(over, f func()) {
	if c.hasty {
		over()
	}
	time.AfterFunc(10*c.while(), func() { f(); over() })
}

// play runs a workload on clients in virtual time.
func play(t *testing.T, seed uint64, clients func(s *store) []Client) *Recorder {
	t.Helper()
	var rec *Recorder
	synctest.Test(t, func(t *testing.T) {
		rec = NewRecorder(time.Now)
		err := Run(t.Context(), rec, Workload{
			Seed: seed, Ops: 150, Areas: []Area{{First: 14, Blocks: 4}, {First: 100, Blocks: 1}},
			Pause: time.Millisecond, SwapPercent: 25,
		}, clients(newStore(seed)))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // what the store still has to do
	})
	return rec
}

// same makes n clients of one store.
func same(n int, change func(*store)) func(*store) []Client {
	return func(s *store) []Client {
		change(s)
		var cs []Client
		for range n {
			cs = append(cs, client{s})
		}
		return cs
	}
}

func TestSoundStoresPass(t *testing.T) {
	for name, clients := range map[string]func(*store) []Client{
		"nothing fails": same(5, func(*store) {}),
		"one fails of 5, done or not": same(5, func(s *store) {
			s.fail = s.one(5)
		}),
		"repeated, done or not": func(s *store) []Client {
			s.fail = s.one(4)
			return []Client{repeating{client: client{s}}, repeating{client: client{s}}, client{s}, client{s}}
		},
		"carried out after the repetition": func(s *store) []Client {
			return []Client{straggling{client: client{s}}, straggling{client: client{s}}, client{s}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(3) {
				rec := play(t, seed, clients)
				if err := Check(rec, limit, t.TempDir()); err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
				counts(t, rec)
			}
		})
	}
}

// counts makes sure that a history is worth checking.
func counts(t *testing.T, rec *Recorder) {
	t.Helper()
	reads, writes, ahead := 0, 0, int64(0)
	overlaps, swaps, misses := 0, 0, 0
	for _, op := range rec.Ops() {
		if op.Write {
			writes++
		} else if op.Value != (Value{}) {
			reads++
		}
		if op.Swap && op.Write && !op.Maybe {
			swaps++
		} else if op.Swap && !op.Write {
			misses++
		}
		if op.Call < ahead {
			overlaps++
		}
		if op.Return != Open {
			ahead = max(ahead, op.Return)
		}
	}
	if reads < 100 || writes < 100 || overlaps < 100 || swaps < 20 || misses < 20 {
		t.Errorf("%d reads of data, %d writes, %d swaps, %d of others, %d overlaps: that proves nothing", reads, writes, swaps, misses, overlaps)
	}
}

func TestMutatedStoresAreCaught(t *testing.T) {
	for name, c := range map[string]struct {
		clients func(*store) []Client
		torn    bool
	}{
		"stale read cache": {clients: func(s *store) []Client {
			a, b := cached{client{s}, newStore(1)}, cached{client{s}, newStore(2)}
			return []Client{a, b}
		}},
		"lost write":       {clients: same(4, func(s *store) { s.lose = s.one(40) })},
		"torn block":       {clients: same(4, func(s *store) { s.tear = true }), torn: true},
		"reordered":        {clients: same(4, func(s *store) { s.behind = true })},
		"swaps with a gap": {clients: same(4, func(s *store) { s.split = true })},
		"a failed write done too late": {clients: func(s *store) []Client {
			s.fail = s.one(5)
			return []Client{repeating{client{s}, true}, repeating{client{s}, true}, client{s}}
		}},
		"a straggler later than was said": {clients: func(s *store) []Client {
			return []Client{straggling{client{s}, true}, straggling{client{s}, true}, client{s}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(3) {
				rec := play(t, seed, c.clients)
				err := Check(rec, limit, t.TempDir())
				var v *Violation
				var bad *BadBlock
				switch {
				case c.torn && !(errors.As(err, &bad) && bad.Torn):
					t.Errorf("seed %d: no torn block seen: %v", seed, err)
				case !c.torn && !errors.As(err, &v):
					t.Errorf("seed %d: no violation seen: %v", seed, err)
				}
			}
		})
	}
}

// TestRealTime is the workload without virtual time, for the race detector.
func TestRealTime(t *testing.T) {
	rec := NewRecorder(time.Now)
	s := newStore(1)
	s.fail = s.one(10)
	clients := []Client{client{s}, client{s}, repeating{client: client{s}}}
	w := Workload{Seed: 1, Ops: 100, Areas: []Area{{0, 3}}, Timeout: time.Minute, SwapPercent: 20}
	if err := Run(t.Context(), rec, w, clients); err != nil {
		t.Fatal(err)
	}
	if err := Check(rec, limit, t.TempDir()); err != nil {
		t.Error(err)
	}
}

func TestRunStopsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		rec := NewRecorder(time.Now)
		if err := Run(ctx, rec, Workload{Areas: []Area{{0, 1}}}, []Client{client{newStore(1)}}); err != nil {
			t.Fatal(err)
		}
		if n := len(rec.Ops()); n < 100 {
			t.Errorf("%d operations in a second", n)
		}
	})
}

func TestWorkloadRefused(t *testing.T) {
	one := []Client{client{newStore(1)}}
	for name, err := range map[string]error{
		"no areas":   Run(t.Context(), nil, Workload{}, one),
		"no clients": Run(t.Context(), nil, Workload{Areas: []Area{{0, 1}}}, nil),
		"empty area": Run(t.Context(), nil, Workload{Areas: []Area{{0, 0}}}, one),
		"negative":   Run(t.Context(), nil, Workload{Areas: []Area{{-1, 1}}}, one),
	} {
		if err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
