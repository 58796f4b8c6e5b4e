package multipath

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinlun/twinlun/target/scsi"
	"github.com/twinlun/twinlun/test/history"
	"github.com/twinlun/twinlun/test/initiator"
)

// write writes a block, with patience.
func write(t *testing.T, c *Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.WriteAt(ctx, make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
}

// by writes until it is done by one site.
func by(t *testing.T, c *Client, s *site) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		before := s.count()
		if write(t, c); s.count() > before {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the host does not come to site %d", s.group)
		}
	}
}

var troubles = map[string]struct{ begin, end func(t *testing.T, s *site) }{
	"dies": {
		func(_ *testing.T, s *site) { s.die() },
		func(_ *testing.T, s *site) { s.set(func(s *site) { s.deaf = false }) },
	},
	"hangs": {
		func(_ *testing.T, s *site) { s.set(func(s *site) { s.hangs = make(chan struct{}) }) },
		func(_ *testing.T, s *site) { s.set(func(s *site) { close(s.hangs); s.hangs = nil }) },
	},
	"is not ready": {
		func(_ *testing.T, s *site) { s.set(func(s *site) { s.notReady = true }) },
		func(_ *testing.T, s *site) { s.set(func(s *site) { s.notReady = false }) },
	},
	"is unavailable":   {setState(scsi.Unavailable), setState(scsi.ActiveOptimized)},
	"is transitioning": {setState(scsi.Transitioning), setState(scsi.ActiveOptimized)},
	"stands by":        {setState(scsi.Standby), setState(scsi.ActiveOptimized)},
}

func setState(state scsi.AccessState) func(*testing.T, *site) {
	return func(t *testing.T, s *site) {
		t.Helper()
		if err := s.device.SetAccessState(0, s.group, state); err != nil {
			t.Error(err)
		}
	}
}

// TestFailover: to the other site when the preferred one has a trouble, and back.
func TestFailover(t *testing.T) {
	for name, trouble := range troubles {
		t.Run(name, func(t *testing.T) {
			sites := sharedSites(t)
			c := host(t, sites)
			by(t, c, sites[0])
			before := sites[1].count()
			for range 20 {
				write(t, c)
			}
			if n := sites[1].count(); n != before {
				t.Errorf("%d commands go to the site that is not preferred", n-before)
			}
			trouble.begin(t, sites[0])
			before = sites[1].count()
			write(t, c)
			if sites[1].count() == before {
				t.Error("a command is answered, and not by the other site")
			}
			trouble.end(t, sites[0])
			by(t, c, sites[0])
			if c.Moves() < 2 {
				t.Errorf("%d moves", c.Moves())
			}
		})
	}
}

// TestQueueIfNoPath: without a path a command waits, and is answered when there is one.
func TestQueueIfNoPath(t *testing.T) {
	sites := sharedSites(t)
	c := host(t, sites)
	by(t, c, sites[0])
	for _, s := range sites {
		s.die()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.WriteAt(ctx, make([]byte, 512), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no path: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- c.WriteAt(t.Context(), make([]byte, 512), 0) }()
	sites[1].set(func(s *site) { s.deaf = false })
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("a path is there, and the command waits on")
	}
	c.Close()
	if err := c.WriteAt(t.Context(), make([]byte, 512), 0); !errors.Is(err, initiator.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// TestStraggler: a try without an answer is over with the next login to its own site, and
// not with the answer of the other one.
func TestStraggler(t *testing.T) {
	sites := sharedSites(t)
	c := host(t, sites)
	by(t, c, sites[0])
	sites[0].set(func(s *site) { s.hangs = make(chan struct{}); s.deaf = true })
	var tries, over atomic.Int32
	first := make(chan struct{})
	err := c.WriteAtStraggling(t.Context(), make([]byte, 512), 0, func() func() {
		n := tries.Add(1)
		return func() {
			if over.Add(1); n == 1 {
				close(first)
			}
		}
	})
	if err != nil || tries.Load() < 2 {
		t.Fatalf("%d tries: %v", tries.Load(), err)
	}
	select {
	case <-first:
		t.Error("over, without a login")
	default:
	}
	sites[0].set(func(s *site) { s.deaf = false })
	select {
	case <-first:
	case <-time.After(patience):
		t.Error("a new login, and the old try is not over")
	}
}

// TestHistories: hosts that fail over, while one site after the other has troubles, see
// one disk.
func TestHistories(t *testing.T) {
	sites := sharedSites(t)
	rec := record(t, sites, 4, func(ctx context.Context, r *rand.Rand) {
		var names []string
		for name := range troubles {
			names = append(names, name)
		}
		for ctx.Err() == nil {
			s, trouble := sites[r.IntN(2)], troubles[names[r.IntN(len(names))]]
			trouble.begin(t, s)
			pause(ctx, 100*time.Millisecond)
			trouble.end(t, s)
			pause(ctx, 100*time.Millisecond)
		}
	})
	if err := history.Check(rec, patience, ""); err != nil {
		t.Error(err)
	}
	if n := len(rec.Ops()); n < 500 {
		t.Errorf("%d operations only", n)
	}
}

// TestTwoDisks: two sites that are not one disk are found out by the same histories.
func TestTwoDisks(t *testing.T) {
	sites := twoSites(t, [2]*memory{new(memory), new(memory)})
	rec := record(t, sites, 4, func(ctx context.Context, _ *rand.Rand) {
		for ctx.Err() == nil {
			sites[0].set(func(s *site) { s.notReady = !s.notReady })
			pause(ctx, 50*time.Millisecond)
		}
		sites[0].set(func(s *site) { s.notReady = false })
	})
	var violation *history.Violation
	if err := history.Check(rec, patience, ""); !errors.As(err, &violation) {
		t.Errorf("nobody notices: %v", err)
	}
}

// record has hosts read, write, and compare and write, until each has done its share,
// while a trouble goes on.
func record(t *testing.T, sites [2]*site, hosts int, trouble func(context.Context, *rand.Rand)) *history.Recorder {
	t.Helper()
	var clients []history.Client
	for range hosts {
		clients = append(clients, host(t, sites))
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	troubled, end := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		trouble(troubled, rand.New(rand.NewPCG(1, 2)))
	}()
	rec := history.NewRecorder(time.Now)
	w := history.Workload{Seed: 7, Areas: []history.Area{{First: 0, Blocks: 6}}, Ops: 250, SwapPercent: 20, Pause: 20 * time.Millisecond}
	err := history.Run(ctx, rec, w, clients)
	end()
	<-done
	if err != nil {
		t.Fatal(err)
	}
	return rec
}
