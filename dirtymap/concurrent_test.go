package dirtymap

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// site is a map with hosts that write and an owner that takes extents away from
// them. data is the replica: a version per block, raised by each write.
type site struct {
	t       *testing.T
	m       *Map
	data    [][]atomic.Uint64 // by extent, block
	inside  []atomic.Int32    // writers that believe to be inside
	drained chan struct{}
	quiet   chan struct{}
}

const (
	siteExtents = 5 // neighbours share words, and here all share a chunk
	siteWriters = 8
)

func newSite(t *testing.T) *site {
	s := &site{
		t: t, m: testMap(siteExtents),
		data:    make([][]atomic.Uint64, siteExtents),
		inside:  make([]atomic.Int32, siteExtents),
		drained: make(chan struct{}, 1),
		quiet:   make(chan struct{}, 1),
	}
	for ext := range s.data {
		s.data[ext] = make([]atomic.Uint64, s.m.geo.Blocks(uint64(ext)))
		s.m.Set(uint64(ext), running)
		s.m.Own(uint64(ext))
	}
	return s
}

// write is one host command: gate, extent, data, dirty bits.
func (s *site) write(rnd *rand.Rand) {
	if !s.m.Begin() {
		return
	}
	ext := rnd.Uint64N(siteExtents)
	if s.m.Enter(ext, true) {
		s.inside[ext].Add(1)
		first := rnd.IntN(len(s.data[ext]))
		n := 1 + rnd.IntN(len(s.data[ext])-first)
		for b := first; b < first+n; b++ {
			s.data[ext][b].Add(1)
		}
		s.m.Wrote(ext, first, n)
		s.inside[ext].Add(-1)
		if s.m.Exit(ext) {
			tell(s.drained)
		}
	}
	if s.m.End() {
		tell(s.quiet)
	}
}

func tell(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // told already, and not heard yet
	}
}

// copyDirty takes an extent's dirty blocks to the peer.
func (s *site) copyDirty(ext uint64, peer [][]uint64) {
	for first, n := range s.m.TakeDirty(ext).Runs {
		for b := first; b < first+n; b++ {
			peer[ext][b] = s.data[ext][b].Load()
		}
	}
}

// take keeps writers out of an extent until it is empty, gives it up, and takes
// it back. Nothing may be dirty that the peer does not get.
func (s *site) take(ext uint64, peer [][]uint64) {
	s.m.Change(ext, 0, Closing)
	// A report may be late, from an extent taken before: then this one's follows.
	for s.m.Users(ext) > 0 {
		wait(s.t, s.drained, "extent is closing, users left, nobody told")
	}
	if n := s.inside[ext].Load(); n != 0 || s.m.Users(ext) != 0 {
		s.t.Errorf("%d writers, %d users inside extent %d, which is closed and drained", n, s.m.Users(ext), ext)
	}
	s.copyDirty(ext, peer)
	s.same(ext, peer)
	s.m.Set(ext, Stale)
	s.m.Disown(ext)
	s.m.Own(ext)
	s.m.Set(ext, running)
}

// wait receives; the time is there only to fail with words.
func wait[T any](t *testing.T, c <-chan T, why string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(time.Minute):
		t.Fatal(why)
	}
}

// stop shuts the gate, and compares everything once the last command has ended.
func (s *site) stop(peer [][]uint64) {
	s.m.Shut()
	for !s.m.Quiet() {
		wait(s.t, s.quiet, "gate is shut, commands have ended, nobody told")
	}
	for {
		ext, any := s.m.NextDirty(0)
		if !any {
			break
		}
		s.copyDirty(ext, peer)
	}
	if n := s.m.DirtyBlocks(); n != 0 {
		s.t.Errorf("%d dirty blocks, and no extent has them", n)
	}
	for ext := range uint64(siteExtents) {
		if s.inside[ext].Load() != 0 || s.m.Users(ext) != 0 {
			s.t.Errorf("somebody is inside extent %d, and the gate is shut", ext)
		}
		s.same(ext, peer)
	}
	s.m.Open()
}

// same compares a quiet extent with the peer's.
func (s *site) same(ext uint64, peer [][]uint64) {
	for b := range s.data[ext] {
		if got := s.data[ext][b].Load(); got != peer[ext][b] {
			s.t.Errorf("extent %d, block %d: version %d here, %d at the peer, and not dirty", ext, b, got, peer[ext][b])
		}
	}
}

// TestNoDirtyBlockIsLost has many hosts write while the owner copies extents
// under them, closes and reopens them, and shuts the gate and opens it.
func TestNoDirtyBlockIsLost(t *testing.T) {
	s := newSite(t)
	var over atomic.Bool
	var writers sync.WaitGroup
	for i := range uint64(siteWriters) {
		writers.Go(func() {
			for rnd := rand.New(rand.NewPCG(1, i)); !over.Load(); {
				s.write(rnd)
			}
		})
	}
	defer writers.Wait()
	defer over.Store(true)

	peer := make([][]uint64, siteExtents)
	for ext := range peer {
		peer[ext] = make([]uint64, len(s.data[ext]))
	}
	rnd := rand.New(rand.NewPCG(2, 3))
	for range 5_000 {
		switch ext := rnd.Uint64N(siteExtents); rnd.IntN(3) {
		case 0:
			s.copyDirty(ext, peer)
		case 1:
			s.take(ext, peer)
		case 2:
			s.stop(peer)
		}
		if t.Failed() {
			return
		}
	}
}

// TestWritersOfOneWord has writers set neighbouring bits while a copy takes them.
// Each block is written again only once it was taken, so that a lost one shows.
func TestWritersOfOneWord(t *testing.T) {
	const writers, writes, tries = 4, 20_000, 1_000_000
	for _, size := range []int64{64 << 10, 1 << 20} {
		m := New(Geometry{Size: 4 << 20, ExtentSize: size})
		m.Own(1)
		var taken [maskBlocks]atomic.Int64
		take := func() {
			for first, n := range m.TakeDirty(1).Runs {
				for b := first; b < first+n; b++ {
					taken[b].Add(1)
				}
			}
		}
		var left atomic.Int64
		left.Store(writers)
		var written [maskBlocks]int64
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				defer left.Add(-1)
				for i, n := 0, 0; i < tries && n < writes; i++ {
					b := (i*writers + w) % m.geo.Blocks(1)
					if taken[b].Load() == written[b] {
						written[b]++
						m.Wrote(1, b, 1)
						n++
					}
				}
			})
		}
		for left.Load() > 0 {
			take()
		}
		wg.Wait()
		take()
		for b := range written {
			if written[b] != taken[b].Load() {
				t.Fatalf("extents of %d: block %d was written %d times, and taken %d times", size, b, written[b], taken[b].Load())
			}
		}
		if m.DirtyBlocks() != 0 {
			t.Fatalf("extents of %d: %d dirty blocks at the end", size, m.DirtyBlocks())
		}
	}
}

// TestLastCommandIsTold has a command try a shut gate all the time: it must not
// hide the end of the only one inside.
func TestLastCommandIsTold(t *testing.T) {
	m := testMap(1)
	var over atomic.Bool
	var tried atomic.Int64
	var refused sync.WaitGroup
	refused.Go(func() {
		for !over.Load() {
			if m.Begin() {
				m.End()
			}
			tried.Add(1)
		}
	})
	defer refused.Wait()
	defer over.Store(true)
	for range 200 {
		if !m.Begin() {
			t.Fatal("kept out of an open gate")
		}
		m.Shut()
		for before := tried.Load(); tried.Load() < before+3; { // it has ended, and tries again
			runtime.Gosched()
		}
		if !m.End() || !m.Quiet() {
			t.Fatal("the gate is shut, the last command has ended, nobody told")
		}
		m.Open()
	}
}
