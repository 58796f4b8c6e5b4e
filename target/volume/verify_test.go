package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication"
	"github.com/twinlun/twinlun/replication/wire"
)

// verify compares both replicas, asked at a side, and returns what came of it.
func (p *pair) verify(ctx context.Context, t *testing.T, at int, o replication.VerifyOptions) replication.VerifyStatus {
	t.Helper()
	r := p.sides[at].rep
	until(ctx, t, "replicas that can be compared", func() bool { return r.StartVerify(o) == nil })
	var s replication.VerifyStatus
	until(ctx, t, "the end of the comparison", func() bool { s, _ = r.VerifyStatus(); return !s.Running() })
	if s.Err != "" || s.Done != geometry.Size || s.Compared+s.Copying+s.Busy+s.Unread != s.Done {
		t.Fatalf("%+v", s)
	}
	return s
}

// flip changes a byte behind the product's back.
func (s *side) flip(off int64) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	s.store.data[off] ^= 1
}

func (s *side) bytes() []byte {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	return bytes.Clone(s.store.data)
}

// Hosts write at both sites, the link parts now and then, and both sites compare: nothing
// may be found.
func TestVerifyRaisesNoFalseAlarm(t *testing.T) {
	p := newPair(t)
	ctx, stop := context.WithTimeout(context.Background(), 5*time.Minute)
	defer stop()
	load, quiet := context.WithCancel(ctx)
	defer quiet()
	var hosts sync.WaitGroup
	for i := range uint64(6) {
		hosts.Go(func() { writeUntil(load, p.sides[i%2].vol, i) })
	}
	var compared, busy int64
	for round := range 40 {
		if round%20 == 19 {
			p.cut()
			p.connect(t)
		}
		s := p.verify(ctx, t, round%2, replication.VerifyOptions{})
		if s.Differing != 0 || s.Unread != 0 {
			t.Fatalf("false alarm: %+v", s)
		}
		compared, busy = compared+s.Compared, busy+s.Busy
	}
	quiet()
	hosts.Wait()
	t.Logf("%d blocks compared under load, %d busy", compared/dirtymap.BlockSize, busy/dirtymap.BlockSize)
	if compared < 10*geometry.Size {
		t.Errorf("only %d bytes were compared", compared)
	}
}

// writeUntil writes blocks here and there, and reads others.
func writeUntil(ctx context.Context, v *Volume, id uint64) {
	rnd := rand.New(rand.NewPCG(id, 7))
	buf := make([]byte, 8<<10)
	for n := byte(0); ctx.Err() == nil; n++ {
		off := rnd.Int64N((geometry.Size-int64(len(buf)))/512) * 512
		if rnd.IntN(3) == 0 {
			_ = v.ReadAt(ctx, buf, off)
		} else {
			_ = v.WriteAt(ctx, pattern(len(buf), n), off, false)
		}
		// Hosts think now and then, or no extent would ever be of one mind.
		select {
		case <-time.After(time.Duration(rnd.IntN(2000)) * time.Microsecond):
		case <-ctx.Done():
		}
	}
}

// A byte that has changed in either replica is found where it is, whatever the extent's
// state and whoever looks, and mended.
func TestVerifyFindsAndMends(t *testing.T) {
	const off = 3*64<<10 + 5*4096 + 7
	for _, c := range []struct {
		name  string
		state func(ctx context.Context, t *testing.T, p *pair) // brings the extent there
		right int                                              // the side that is to stay
	}{
		{"shared", func(ctx context.Context, t *testing.T, p *pair) {}, 0},
		{"owned by the preferred node", func(ctx context.Context, t *testing.T, p *pair) { p.owned(ctx, t, 0, off) }, 0},
		{"owned by the other one", func(ctx context.Context, t *testing.T, p *pair) { p.owned(ctx, t, 1, off) }, 1},
	} {
		for flipped := range 2 {
			for asked := range 2 {
				t.Run(c.name, func(t *testing.T) {
					p, ctx := newPair(t), limited(t)
					must(t, p.sides[0].vol.ReadAt(ctx, make([]byte, 1), 0)) // joined
					c.state(ctx, t, p)
					p.sides[flipped].flip(off)
					s := p.verify(ctx, t, asked, replication.VerifyOptions{})
					want := replication.VerifyDifference{Off: off &^ 4095, Length: 4096, Here: asked == c.right}
					if s.Differing != 4096 || s.Repaired != 0 || len(s.Differences) != 1 || s.Differences[0] != want {
						t.Fatalf("flipped at %d, asked at %d: %+v", flipped, asked, s)
					}
					right := p.sides[c.right].bytes()
					if s = p.verify(ctx, t, asked, replication.VerifyOptions{Repair: true}); s.Differing != 4096 || s.Repaired != 4096 {
						t.Fatalf("flipped at %d, asked at %d: not mended: %+v", flipped, asked, s)
					}
					if !bytes.Equal(p.sides[0].bytes(), right) || !bytes.Equal(p.sides[1].bytes(), right) {
						t.Fatal("mended in another way than told")
					}
					if s = p.verify(ctx, t, 1-asked, replication.VerifyOptions{}); s.Differing != 0 || s.Compared != geometry.Size {
						t.Fatalf("still not clean: %+v", s)
					}
				})
			}
		}
	}
}

// The operator says whose bytes count, against the owner too; what hosts have written since
// is not touched.
func TestVerifyKeeps(t *testing.T) {
	const off = 5 * 64 << 10
	for asked := range 2 {
		for owner := range 2 {
			p, ctx := newPair(t), limited(t)
			p.owned(ctx, t, owner, off)
			right := 1 - owner
			want := p.sides[right].bytes()
			p.sides[owner].flip(off + 99)
			keep := replication.KeepHere
			if asked != right {
				keep = replication.KeepThere
			}
			s := p.verify(ctx, t, asked, replication.VerifyOptions{Repair: true, Keep: keep})
			if s.Differing != 4096 || s.Repaired != 4096 || s.Differences[0].Here != (asked == right) {
				t.Fatalf("owned by %d, asked at %d: %+v", owner, asked, s)
			}
			if !bytes.Equal(p.sides[0].bytes(), want) || !bytes.Equal(p.sides[1].bytes(), want) {
				t.Errorf("owned by %d, asked at %d: mended in another way than told", owner, asked)
			}
		}
	}
}

// owned has a side own the extent at off, with everything copied.
func (p *pair) owned(ctx context.Context, t *testing.T, i int, off int64) {
	t.Helper()
	must(t, p.sides[i].vol.WriteAt(ctx, pattern(4096, 9), off&^4095, false))
	until(ctx, t, "everything is copied", func() bool { return p.sides[i].rep.Status().Dirty == 0 })
	if s := p.sides[i].rep.Map().State(uint64(off / geometry.ExtentSize)); s&dirtymap.Held == 0 {
		t.Fatalf("the extent is %v", s)
	}
}

// Differences that hosts write over meanwhile, and links that part, do not keep a repair
// from being right.
func TestVerifyMendsUnderLoad(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	load, quiet := context.WithCancel(ctx)
	var hosts sync.WaitGroup
	for i := range uint64(2) {
		hosts.Go(func() { writeUntil(load, p.sides[i].vol, i) })
	}
	for round := range int64(6) {
		p.sides[round%2].flip(round * 100_000)
		p.verify(ctx, t, int(round/2%2), replication.VerifyOptions{Repair: true})
		if round == 3 {
			p.cut()
			p.connect(t)
		}
	}
	quiet()
	hosts.Wait()
	until(ctx, t, "everything is copied", func() bool { return p.sides[0].rep.Status().Dirty+p.sides[1].rep.Status().Dirty == 0 })
	p.verify(ctx, t, 0, replication.VerifyOptions{Repair: true})
	if s := p.verify(ctx, t, 0, replication.VerifyOptions{}); s.Differing != 0 || s.Compared != geometry.Size {
		t.Errorf("%+v", s)
	}
	if !bytes.Equal(p.sides[0].bytes(), p.sides[1].bytes()) {
		t.Error("the replicas are not the same")
	}
}

// One at a time; stopped; through a parted link; not without the peer.
func TestVerifyRuns(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	r := p.sides[0].rep
	if _, any := r.VerifyStatus(); any {
		t.Error("a comparison that nobody began")
	}
	slow := replication.VerifyOptions{Rate: 64 << 10} // 16 s
	until(ctx, t, "joined", func() bool { return r.StartVerify(slow) == nil })
	if err := r.StartVerify(slow); !errors.Is(err, replication.ErrVerifying) {
		t.Error("two at a time:", err)
	}
	until(ctx, t, "progress", func() bool { s, _ := r.VerifyStatus(); return s.Done > 0 })
	p.cut()
	until(ctx, t, "waits for the link", func() bool { s, _ := r.VerifyStatus(); return s.Running() && s.Waiting != "" })
	before, _ := r.VerifyStatus()
	p.connect(t)
	until(ctx, t, "goes on", func() bool { s, _ := r.VerifyStatus(); return s.Done > before.Done && s.Waiting == "" })
	r.StopVerify()
	until(ctx, t, "stops", func() bool { s, _ := r.VerifyStatus(); return !s.Running() && s.Err != "" && s.Done < s.Size })
	p.cut()
	p.lacks = wire.FeatureVerify
	p.connect(t)
	until(ctx, t, "an older peer is noticed", func() bool { return strings.Contains(fmt.Sprint(r.StartVerify(slow)), "older version") })
	p.cut()
	if err := r.StartVerify(slow); !errors.Is(err, replication.ErrNotVerified) {
		t.Error("without the peer:", err)
	}
}

// A replica that cannot be read is no difference, and no agreement either.
func TestVerifyOfAMediumThatFails(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	must(t, p.sides[0].vol.ReadAt(ctx, make([]byte, 1), 0))
	p.sides[1].store.setFail(errors.New("cannot be read"))
	defer p.sides[1].store.setFail(nil)
	if s := p.verify(ctx, t, 0, replication.VerifyOptions{}); s.Unread != geometry.Size || s.Differing+s.Compared != 0 {
		t.Errorf("%+v", s)
	}
}
