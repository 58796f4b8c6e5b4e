package volume

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication"
	"github.com/twinlun/twinlun/replication/coherence"
	"github.com/twinlun/twinlun/replication/wire"
)

// limited is a context for commands that must end.
func limited(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i)*7 + seed
	}
	return p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhatOneSiteWritesTheOtherReads(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	a, b := p.sides[0].vol, p.sides[1].vol
	for _, c := range []struct {
		name   string
		off, n int
	}{
		{"a block", 4096, 4096},
		{"a sector", 512 * 3, 512},
		{"across extents", 60 << 10, 200 << 10},
		{"the end of the LUN, in a short extent", int(geometry.Size) - 70000, 70000},
		{"everything", 0, int(geometry.Size)},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i, v := range []*Volume{a, b} {
				want, got := pattern(c.n, byte(i+1)), make([]byte, c.n)
				must(t, v.WriteAt(ctx, want, int64(c.off), i == 1))
				for _, r := range []*Volume{a, b} {
					must(t, r.ReadAt(ctx, got, int64(c.off)))
					if !bytes.Equal(got, want) {
						t.Fatal("read something else than was written")
					}
				}
			}
		})
	}
}

func TestZero(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	a, b := p.sides[0].vol, p.sides[1].vol
	want := pattern(300<<10, 1)
	must(t, a.WriteAt(ctx, want, 0, false))
	must(t, b.Zero(ctx, 70000, 150000, true))
	clear(want[70000:220000])
	got := make([]byte, len(want))
	must(t, a.ReadAt(ctx, got, 0))
	if !bytes.Equal(got, want) {
		t.Fatal("the zeros are not where they should be")
	}
}

func TestSyncFlushesTheReplica(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	v := p.sides[0]
	must(t, v.vol.WriteAt(ctx, pattern(4096, 1), 0, false))
	v.store.mu.Lock()
	before := v.store.syncs
	v.store.mu.Unlock()
	must(t, v.vol.Sync(ctx))
	v.store.mu.Lock()
	defer v.store.mu.Unlock()
	if v.store.syncs == before {
		t.Fatal("no flush")
	}
}

func TestOutsideTheLUN(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	v, buf := p.sides[0].vol, make([]byte, 8192)
	for _, off := range []int64{-1, v.Size() - 4096, v.Size(), 1 << 62} {
		if v.ReadAt(ctx, buf, off) == nil || v.WriteAt(ctx, buf, off, false) == nil || v.Zero(ctx, off, 8192, false) == nil {
			t.Error("access at", off)
		}
	}
	must(t, v.ReadAt(ctx, nil, v.Size()))
}

// Commands wait while the link is down, and go on after the next join.
func TestCommandsWaitForThePeer(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	v := p.sides[0].vol
	must(t, v.WriteAt(ctx, pattern(4096, 1), 0, false))
	p.cut()
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if err := v.ReadAt(short, make([]byte, 4096), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal("a read while the link is down:", err)
	}
	done := make(chan error)
	go func() { done <- v.WriteAt(ctx, pattern(200<<10, 2), 0, true) }()
	p.connect(t)
	must(t, <-done)
}

func TestClosingEndsCommands(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	s := p.sides[0]
	p.cut()
	done := make(chan error)
	go func() { done <- s.vol.WriteAt(ctx, pattern(4096, 1), 0, false) }()
	s.node.Remove(s.rep)
	must(t, s.rep.Close())
	if err := <-done; !errors.Is(err, replication.ErrReplicaClosed) {
		t.Fatal(err)
	}
	if err := s.vol.Sync(ctx); !errors.Is(err, replication.ErrReplicaClosed) {
		t.Fatal(err)
	}
}

func TestErrorsOfTheMediumReachTheHost(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	s := p.sides[0]
	must(t, s.vol.WriteAt(ctx, pattern(4096, 1), 0, false))
	broken := errors.New("medium error")
	s.store.setFail(broken)
	if err := s.vol.ReadAt(ctx, make([]byte, 4096), 0); !errors.Is(err, broken) {
		t.Error("read:", err)
	}
	if err := s.vol.WriteAt(ctx, pattern(4096, 2), 0, false); !errors.Is(err, broken) {
		t.Error("write:", err)
	}
	if err := s.vol.Sync(ctx); !errors.Is(err, broken) {
		t.Error("sync:", err)
	}
	// A flush that failed takes the replica out of service.
	if err := s.vol.WriteAt(ctx, pattern(4096, 2), 1<<19, false); !errors.Is(err, coherence.ErrFaulted) {
		t.Error("write after the fault:", err)
	}
	if st := s.rep.Status(); st.Serving || st.Why == "" {
		t.Error("status:", st)
	}
}

// One link serves several LUNs; one that only one node has is no trouble for the
// others, and is joined when the other node has it too.
func TestSeveralLUNs(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	must(t, p.sides[0].vol.WriteAt(ctx, pattern(4096, 1), 0, false))
	a := newLUN(t, 0, p.sides[0].node, 1, 0) // closes the connection
	p.cut()
	p.connect(t)
	got := make([]byte, 4096)
	must(t, p.sides[1].vol.ReadAt(ctx, got, 0))
	b := newLUN(t, 1, p.sides[1].node, 1, 0)
	p.cut()
	p.connect(t)
	must(t, a.vol.WriteAt(ctx, pattern(4096, 2), 0, false))
	must(t, b.vol.ReadAt(ctx, got, 0))
	if !bytes.Equal(got, pattern(4096, 2)) {
		t.Error("LUN 1 has something else at the other site")
	}
	must(t, p.sides[1].vol.ReadAt(ctx, got, 0))
	if !bytes.Equal(got, pattern(4096, 1)) {
		t.Error("LUN 0 has something else at the other site")
	}
}

// The two short ways of architecture.md. The copier, which allocates for its
// messages in the background, is all but stopped.
func TestShortWaysAllocateNothing(t *testing.T) {
	p, ctx := newPairRate(t, 1), limited(t)
	v, buf := p.sides[0].vol, pattern(80<<10, 1)
	must(t, v.WriteAt(ctx, buf, 0, false))
	before := p.sides[0].rep.Status().Stats
	for name, f := range map[string]func() error{
		"read":  func() error { return v.ReadAt(ctx, buf, 0) },
		"write": func() error { return v.WriteAt(ctx, buf, 0, false) },
		"zero":  func() error { return v.Zero(ctx, 4096, 70<<10, false) },
	} {
		if n := testing.AllocsPerRun(1000, func() { must(t, f()) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if after := p.sides[0].rep.Status().Stats; after.Marks != before.Marks || after.Fetches != before.Fetches {
		t.Error("messages were sent")
	}
}

func TestKeptBlocksGoOverLocalOnes(t *testing.T) {
	v := &Volume{geo: geometry}
	kept := &wire.Blocks{Extent: 1, Present: dirtymap.MaskOf(2, 3), Zero: dirtymap.MaskOf(3, 1), Data: append(pattern(4096, 5), pattern(4096, 9)...)}
	base := int64(64 << 10)
	whole := bytes.Repeat([]byte{0xee}, 64<<10)
	copy(whole[2*4096:], pattern(4096, 5))
	clear(whole[3*4096 : 4*4096])
	copy(whole[4*4096:], pattern(4096, 9))
	for _, c := range []struct{ off, n int64 }{{0, 64 << 10}, {0, 4096}, {2*4096 + 512, 1024}, {3*4096 - 512, 4096}, {4 * 4096, 512}, {5*4096 - 1, 4097}} {
		a := access{kind: read, p: bytes.Repeat([]byte{0xee}, int(c.n)), off: base + c.off, n: c.n}
		v.overlay(a, kept)
		if !bytes.Equal(a.p, whole[c.off:c.off+c.n]) {
			t.Errorf("%d bytes at %d of the extent", c.n, c.off)
		}
	}
}

// Many commands at both sites: blocks are whole, and both replicas end up the same.
func TestManyCommands(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	var hosts sync.WaitGroup
	for i := range 8 {
		hosts.Go(func() { host(ctx, t, p.sides[i%2].vol, uint64(i)) })
	}
	hosts.Wait()
	one, two := make([]byte, geometry.Size), make([]byte, geometry.Size)
	must(t, p.sides[0].vol.ReadAt(ctx, one, 0))
	must(t, p.sides[1].vol.ReadAt(ctx, two, 0))
	if !bytes.Equal(one, two) {
		t.Fatal("the sites read different bytes")
	}
}

func host(ctx context.Context, t *testing.T, v *Volume, id uint64) {
	r := rand.New(rand.NewPCG(id, 0))
	blocks := int(geometry.Size / 4096)
	for range 150 {
		first := r.IntN(blocks)
		n := 1 + r.IntN(min(20, blocks-first))
		buf := bytes.Repeat([]byte{byte(1 + r.IntN(255))}, n*4096)
		var err error
		switch r.IntN(8) {
		case 0, 1, 2:
			err = v.WriteAt(ctx, buf, int64(first)*4096, r.IntN(8) == 0)
		case 3:
			err = v.Sync(ctx)
		default:
			err = v.ReadAt(ctx, buf, int64(first)*4096)
		}
		if err != nil {
			t.Error(err)
			return
		}
		for b := range n {
			block := buf[b*4096 : (b+1)*4096]
			if !bytes.Equal(block[1:], block[:4095]) {
				t.Errorf("block %d is torn", first+b)
			}
		}
	}
}
