package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/twinlun/twinlun/test/history"
	"github.com/twinlun/twinlun/test/initiator"
)

// faults does harm to a running pair: it cuts the link in every way the line can,
// and kills daemons, until ctx ends. Then everything is whole again.
type faults struct {
	r    *running
	rand *rand.Rand
	done map[string]int // how often each was done
}

// harms are what can go wrong, and what makes it good again.
var harms = []struct {
	name, order, heal string
	kill              []int // sites
}{
	{name: "cut", order: `{"cut":"both"}`, heal: `{"cut":"none"}`},
	{name: "cut to b", order: `{"cut":"a-to-b"}`, heal: `{"cut":"none"}`},
	{name: "cut to a", order: `{"cut":"b-to-a"}`, heal: `{"cut":"none"}`},
	{name: "reset", order: `{"reset":true}`},
	{name: "freeze", order: `{"freeze":true}`},
	{name: "flip a bit", order: `{"flip":"a-to-b"}`},
	{name: "long line", order: `{"delay":"60ms"}`, heal: `{"delay":"0ms"}`},
	{name: "kill a", kill: []int{0}},
	{name: "kill b", kill: []int{1}},
	{name: "kill both", kill: []int{0, 1}},
	{name: "cut and kill a", order: `{"cut":"both"}`, heal: `{"cut":"none"}`, kill: []int{0}},
	{name: "cut and kill b", order: `{"cut":"both"}`, heal: `{"cut":"none"}`, kill: []int{1}},
}

// run owns the line and the daemons' lives until it returns. The pauses decide only
// how much happens between two faults.
func (f *faults) run(ctx context.Context) {
	f.done = map[string]int{}
	for ctx.Err() == nil {
		h := &harms[f.rand.IntN(len(harms))]
		pause(ctx, 300*time.Millisecond+time.Duration(f.rand.Int64N(int64(1500*time.Millisecond))))
		if ctx.Err() != nil {
			return
		}
		f.done[h.name]++
		if h.order != "" {
			f.r.link(h.order)
		}
		pause(ctx, time.Duration(f.rand.Int64N(int64(400*time.Millisecond))))
		for _, site := range h.kill {
			f.r.kill(site)
		}
		if h.heal != "" {
			pause(ctx, time.Duration(f.rand.Int64N(int64(4*time.Second))))
			f.r.link(h.heal)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// resilient makes an initiator that logs in again when its session is lost, at a
// site of the pair.
func (r *running) resilient(site int, name string) *initiator.Resilient {
	r.t.Helper()
	info := r.info()
	c, err := initiator.NewResilient(initiator.Options{
		Address: info.Sites[site].Portal, TargetIQN: info.IQN, LUN: uint16(info.LUN),
		InitiatorIQN: "iqn.2026-01.org.example:" + name,
	}, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

// round is how long one round of the test of linearizability lasts. Its histories
// are checked before the next begins, on other blocks.
const round = 40 * time.Second

// TestLinearizable: every block behaves like one copy at both sites, while links are
// cut and daemons killed.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	soak := round
	if text := os.Getenv("TWINLUN_SOAK"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatalf("TWINLUN_SOAK: %v", err)
		}
		soak = d
	}
	r := start(t, "--size", "1GiB")
	end := time.Now().Add(soak)
	for n := range int64(1 << 10) {
		if n > 0 && time.Now().Add(round/2).After(end) {
			break
		}
		linearizable(t, r, n)
	}
	r.waitClean()
	sameBytes(t, r)
}

// linearizable is one round, on blocks that nobody has used before.
func linearizable(t *testing.T, r *running, n int64) {
	seed := rand.Uint64()
	var clients []history.Client
	for i := range 6 {
		clients = append(clients, r.resilient(i%2, fmt.Sprintf("round%d-client%d", n, i)))
	}
	// 16 blocks are an extent: few blocks, in one extent, across two, and alone.
	base := n * 256
	w := history.Workload{
		Seed: seed, Pause: 20 * time.Millisecond, SwapPercent: 20,
		Areas: []history.Area{{First: base, Blocks: 3}, {First: base + 14, Blocks: 4}, {First: base + 200, Blocks: 1}},
	}
	ctx, cancel := context.WithTimeout(context.Background(), round)
	defer cancel()
	f := &faults{r: r, rand: rand.New(rand.NewPCG(seed, 1))}
	harmed := make(chan struct{})
	go func() {
		defer close(harmed)
		f.run(ctx)
	}()
	rec := history.NewRecorder(time.Now)
	if err := history.Run(ctx, rec, w, clients); err != nil {
		t.Error(err)
	}
	<-harmed
	r.link(`{"cut":"none","delay":"0ms"}`)
	// What the blocks hold in the end, as one more client at each site reads it.
	settle, done := context.WithTimeout(context.Background(), patience)
	defer done()
	w.Ops, w.WritePercent, w.FirstClient = 30, -1, len(clients)
	last := []history.Client{r.resilient(0, "last-a"), r.resilient(1, "last-b")}
	if err := history.Run(settle, rec, w, last); err != nil {
		t.Error(err)
	}
	logins, swaps, misses := 0, 0, 0
	for _, c := range clients {
		logins += c.(*initiator.Resilient).Logins()
	}
	for _, op := range rec.Ops() {
		if op.Swap && op.Write && !op.Maybe {
			swaps++
		} else if op.Swap && !op.Write {
			misses++
		}
	}
	t.Logf("round %d, seed %d: %d operations, %d swaps and %d that found something else, %d logins, faults %v", n, seed, len(rec.Ops()), swaps, misses, logins, f.done)
	if err := history.Check(rec, patience, ""); err != nil {
		t.Errorf("round %d, seed %d: %v", n, seed, err)
	}
	if len(rec.Ops()) < 100 || swaps < 10 || misses < 10 || logins <= len(clients) {
		t.Errorf("round %d: too little has happened to prove anything", n)
	}
}
