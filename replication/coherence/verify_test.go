package coherence

import (
	"slices"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/wire"
)

// digest is a digest of the block that node n has, which a test can read.
func (n *node) digest(ext uint64) (d wire.Digest) {
	if d[0] = n.data[ext]; n.rotten[ext] {
		d[1] = 1
	}
	return d
}

// verify begins a comparison of extent x at node i.
func (w *world) verify(i, x int) {
	w.n[i].verifies--
	w.n[i].verifying++
	w.step(i, Verify{Extent: uint64(x)})
}

// verified: node i has what became of a comparison.
func (w *world) verified(i int, a Verified) {
	n := &w.n[i]
	n.verifying--
	n.found += a.Differ.Count()
	if n.verifying < 0 {
		fail("%c has a verdict that it did not ask for", 'X'+i)
	}
	if a.Outcome == wire.VerifyCompared && !n.told {
		w.checkVerdict(a.Extent, a.Differ, a.Skipped)
	}
}

// checkVerdict compares a verdict with the truth.
func (w *world) checkVerdict(x uint64, differ, skipped dirtymap.Mask) {
	same := w.n[0].digest(x) == w.n[1].digest(x)
	switch {
	case differ.Has(0) && same:
		fail("false alarm: extent %d is the same at both, and said to differ", x)
	case differ.Has(0) && !w.scope.rotten:
		fail("false alarm: extent %d differs because it was not copied yet", x)
	case !differ.Has(0) && !skipped.Has(0) && !same:
		fail("missed: extent %d is %v at X and %v at Y", x, w.n[0].digest(x), w.n[1].digest(x))
	}
}

// verifyScopes are explored beside scopes: the same worlds, with comparisons.
var verifyScopes = []scope{
	{name: "verify", extents: 1, reads: both(1), writes: both(1), verifies: both(1)},
	{name: "verify, slow", extents: 1, writes: both(1), verifies: [2]int{1, 0}, slowDisk: true, slowHost: true},
	{name: "verify, slow reads", extents: 1, reads: both(1), writes: [2]int{1, 0}, verifies: both(1), slowDisk: true, slowHost: true},
	{name: "verify what is owned", extents: 1, owner: 1, reads: [2]int{0, 1}, writes: [2]int{1, 0}, verifies: both(1), slowDisk: true},
	{name: "verify, blocks that are dirty", extents: 1, reads: [2]int{0, 1}, writes: both(1), verifies: both(1), mut: compareDirty, slowDisk: true},
	{name: "verify, slow writes", extents: 1, hosts: 2, reads: [2]int{0, 1}, writes: [2]int{2, 0}, verifies: both(1), slowHost: true, slowWrite: true, mut: compareDirty},
	{name: "verify, link cuts", extents: 1, writes: both(1), verifies: [2]int{1, 1}, cuts: 2, slowDisk: true},
	{name: "verify, crash", extents: 1, writes: both(1), verifies: [2]int{0, 2}, pc: 1},
	{name: "verify, two extents", extents: 2, writes: both(1), wide: true, verifies: both(1)},
	{name: "verify, rotten", extents: 1, rotten: true, reads: both(1), writes: both(1), verifies: both(1), slowDisk: true},
}

// Each of what a comparison looks at is needed.
func TestVerifyMutations(t *testing.T) {
	for _, s := range []scope{
		{name: "a comparison goes on when the extent changes hands", mut: watchUnbroken, extents: 1, writes: both(1), verifies: [2]int{1, 0}, slowDisk: true},
		{name: "what is not stored yet is compared", mut: digestEarly, extents: 1, reads: [2]int{0, 1}, writes: [2]int{1, 0}, verifies: [2]int{1, 0}, slowDisk: true},
		{name: "a verdict while a write is inside", mut: verdictInWrite, extents: 1, hosts: 2, writes: [2]int{2, 0}, verifies: [2]int{1, 0}, slowHost: true, slowWrite: true},
		{name: "copies are not looked at", mut: copiesUnseen, extents: 1, writes: [2]int{2, 0}, verifies: [2]int{1, 0}, slowDisk: true},
	} {
		t.Run(strings.ReplaceAll(s.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			s.max = 300000
			bad, trail, n := explore(&s)
			if !strings.Contains(bad, "false alarm") && !strings.Contains(bad, "missed") {
				t.Fatalf("not found in %d states, but %q", n, bad)
			}
			t.Logf("found after %d states: %s\n  %s", n, bad, strings.Join(trail, "\n  "))
		})
	}
}

// A block that differs is found, whatever the state of its extent, and whoever looks.
func TestVerifyFinds(t *testing.T) {
	for _, c := range []struct {
		name   string
		before []string // moves that bring the extent there
		asks   int
		here   bool // what the asker has is to stay
	}{
		{"shared, asked by the preferred node", nil, 0, true},
		{"shared, asked by the other one", nil, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &scope{extents: 1, rotten: true, verifies: both(1)}
			w := newWorld(s)
			w.deliver(t)
			w.verify(c.asks, 0)
			w.deliver(t)
			if n := w.n[c.asks]; n.found != 1 || n.verifying != 0 {
				t.Errorf("found %d, %d under way", n.found, n.verifying)
			}
		})
	}
}

// deliver lets every message arrive.
func (w *world) deliver(t *testing.T) {
	t.Helper()
	for range 1000 {
		ms := w.moves()
		k := slices.IndexFunc(ms, func(m move) bool { return strings.Contains(m.name, "receives") })
		if k < 0 {
			return
		}
		ms[k].do(w)
	}
	t.Fatal("messages without end")
}

// What a peer must not say closes the link.
func TestVerifyViolations(t *testing.T) {
	digests := []wire.Digest{{1}}
	for name, send := range map[string]func(id uint64) []wire.Message{
		"an answer to nothing": func(id uint64) []wire.Message {
			return []wire.Message{&wire.Verified{ID: id + 1, Outcome: wire.VerifyBusy}}
		},
		"an extent beyond the end": func(uint64) []wire.Message { return []wire.Message{&wire.Verify{Extent: 9}} },
		"an answer for it": func(uint64) []wire.Message {
			return []wire.Message{&wire.Verified{Extent: 9, Outcome: wire.VerifyBusy}}
		},
		"a verdict for digests": func(id uint64) []wire.Message {
			return []wire.Message{&wire.Verified{ID: id, Outcome: wire.VerifyCompared}}
		},
		"two answers": func(id uint64) []wire.Message {
			m := &wire.Verified{ID: id, Outcome: wire.VerifyDigests, Digests: digests}
			return []wire.Message{m, m}
		},
		"too many digests": func(id uint64) []wire.Message {
			return []wire.Message{&wire.Verified{ID: id, Outcome: wire.VerifyDigests, Digests: append(digests, digests...)}}
		},
		"too many questions": func(uint64) (all []wire.Message) {
			for range maxPeerVerifies + 1 {
				all = append(all, &wire.Verify{})
			}
			return all
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(&scope{extents: 1, verifies: both(1)})
			w.deliver(t)
			e := w.n[0].e
			var token, id uint64
			closed := false
			look := func(actions []Action) {
				for _, a := range actions {
					switch a := a.(type) {
					case Digest:
						token = a.Token
					case Send:
						if m, ok := a.Msg.(*wire.Verify); ok {
							id = m.ID
						}
					case Disconnect:
						closed = true
					}
				}
			}
			look(e.Step(Verify{}))
			mine := token
			for _, m := range send(id) {
				look(e.Step(Received{m}))
			}
			look(e.Step(Digested{Token: mine, Digests: digests}))
			if !closed {
				t.Error("the link goes on")
			}
		})
	}
}
