package chaos

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/twinlun/twinlun/test/failover"
	"github.com/twinlun/twinlun/test/history"
	"github.com/twinlun/twinlun/test/initiator"
	"github.com/twinlun/twinlun/test/multipath"
)

// round is how long things are broken before what hosts have seen is checked.
const round = 30 * time.Second

// TestChaos: whatever breaks, in whatever order, every block behaves like one copy.
func TestChaos(t *testing.T) {
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	r := newRealm(t, nil)
	end := time.Now().Add(*chaosTime)
	for n := int64(0); n == 0 || time.Now().Add(round/2).Before(end); n++ {
		r.round(t, seed+uint64(n), n)
		if t.Failed() {
			return
		}
	}
	r.same(t)
}

// round breaks things while hosts work on blocks that nobody has used before.
func (r *realm) round(t *testing.T, seed uint64, n int64) {
	var clients []history.Client
	var hosts []*multipath.Client
	for i := range 4 {
		paths := []failover.Role{failover.SiteA, failover.SiteB}
		if i%2 == 1 {
			slices.Reverse(paths)
		}
		c := r.host(fmt.Sprintf("round%d-host%d", n, i), paths...)
		defer c.Close() // or a target has no room for those of later rounds
		clients, hosts = append(clients, c), append(hosts, c)
	}
	base := n * 256 // 16 blocks are an extent: few blocks, in one extent, across two, and alone
	w := history.Workload{
		Seed: seed, Pause: 20 * time.Millisecond, SwapPercent: 20, Timeout: 20 * time.Second,
		Areas: []history.Area{{First: base, Blocks: 3}, {First: base + 14, Blocks: 4}, {First: base + 200, Blocks: 1}},
	}
	ctx, cancel := context.WithTimeout(t.Context(), round)
	defer cancel()
	broken := make(chan map[string]int)
	go func() { broken <- r.havoc(ctx, rand.New(rand.NewPCG(seed, 2))) }()
	rec := history.NewRecorder(time.Now)
	if err := history.Run(ctx, rec, w, clients); err != nil {
		t.Error(err)
	}
	faults := <-broken
	settle, done := context.WithTimeout(t.Context(), patience)
	defer done()
	if err := r.Mend(settle); err != nil {
		t.Fatalf("round %d: after %v the cluster does not come back: %v", n, faults, err)
	}
	w.Ops, w.WritePercent, w.FirstClient = 30, -1, len(clients)
	a, b := r.host("last-a", failover.SiteA), r.host("last-b", failover.SiteB)
	defer a.Close()
	defer b.Close()
	if err := history.Run(settle, rec, w, []history.Client{a, b}); err != nil {
		t.Error(err)
	}
	moves, failed := 0, 0
	for _, h := range hosts {
		moves += h.Moves()
	}
	for _, op := range rec.Ops() {
		if op.Maybe {
			failed++
		}
	}
	t.Logf("round %d, seed %d: %d operations, %d of which may have happened, %d moves, %v", n, seed, len(rec.Ops()), failed, moves, faults)
	if err := history.Check(rec, patience, ""); err != nil {
		t.Errorf("round %d, seed %d: %v", n, seed, err)
	}
	if len(rec.Ops()) < 200 {
		t.Errorf("round %d: too little has happened to prove anything", n)
	}
}

// host is one with paths to some sites; it ends with the test.
func (r *realm) host(name string, to ...failover.Role) *multipath.Client {
	r.t.Helper()
	var paths []initiator.Options
	for _, role := range to {
		paths = append(paths, r.options(name, role))
	}
	c, err := multipath.New(multipath.Options{Paths: paths, Timeout: 3 * time.Second, Check: checkPaths})
	r.must(err)
	r.t.Cleanup(func() { c.Close() })
	return c
}

// havoc breaks one thing after the other, some of them while others are broken, and mends
// them, until ctx ends. It returns what it has done.
func (r *realm) havoc(ctx context.Context, rnd *rand.Rand) map[string]int {
	done := map[string]int{}
	for ctx.Err() == nil {
		for range 1 + rnd.IntN(2) {
			what, err := r.harm(rnd)
			if err != nil {
				r.t.Errorf("%s: %v", what, err)
			}
			done[what]++
			pause(ctx, upTo(rnd, time.Second))
		}
		pause(ctx, upTo(rnd, 5*time.Second))
		if err := r.lab.HealAll(); err != nil {
			r.t.Error(err)
		}
		for _, i := range rnd.Perm(len(roles)) {
			pause(ctx, upTo(rnd, time.Second))
			if err := r.Resume(roles[i]); err != nil {
				r.t.Error(err)
			}
		}
		pause(ctx, upTo(rnd, 4*time.Second))
	}
	return done
}

func upTo(rnd *rand.Rand, d time.Duration) time.Duration { return time.Duration(rnd.Int64N(int64(d))) }

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// harm breaks one thing.
func (r *realm) harm(rnd *rand.Rand) (what string, err error) {
	i := rnd.Perm(len(roles))
	x, y := roles[i[0]], roles[i[1]]
	harms := map[string]func() error{
		"kill " + string(x):                    func() error { return r.Kill(x) },
		"halt " + string(x):                    func() error { return r.Halt(x) },
		"isolate " + string(x):                 func() error { return r.Isolate(x) },
		"cut":                                  func() error { return r.Cut(failover.SiteA, failover.SiteB) },
		fmt.Sprintf("cut from %s to %s", x, y): func() error { return r.CutOneWay(x, y) },
		"kill all": func() error {
			for _, role := range roles {
				if err := r.Kill(role); err != nil {
					return err
				}
			}
			return nil
		},
	}
	names := slices.Sorted(maps.Keys(harms))
	what = names[rnd.IntN(len(names))]
	return what, harms[what]()
}

// same compares the two replicas, when nothing is under way.
func (r *realm) same(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r.must(r.Mend(ctx))
	var all [2][]byte
	for i, role := range roles[:2] {
		var err error
		if all[i], err = os.ReadFile(filepath.Join(r.nodes[role].dir, "disk.img")); err != nil {
			t.Fatal(err)
		}
	}
	if string(all[0]) != string(all[1]) {
		t.Error("the replicas differ")
	}
}
