package cluster

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twinlun/twinlun/replication/emulator"
)

// PeerApplied returns when the other node has an entry, and not before; who waits for it
// keeps no proposal from its way.
func TestPeerApplied(t *testing.T) {
	w := newWorld(t, nil, abc...)
	w.startAll(abc...)
	w.propose("b", "x")
	at := w.nodes["b"].Applied()
	for _, node := range abc {
		if err := w.nodes["b"].PeerApplied(w.ctx(), node, at); err != nil {
			t.Error(err)
		}
		if got := w.nodes[node].Applied(); got < at {
			t.Errorf("%s has applied %d, less than %d", node, got, at)
		}
	}
	leader := w.leader(abc...)
	rest := others(leader)
	ctx, cancel := context.WithCancel(w.ctx())
	waits := make(chan error, 2*asking)
	for range cap(waits) {
		go func() { waits <- w.nodes[rest[0]].PeerApplied(ctx, leader, 1<<40) }()
	}
	for _, cmd := range numbered("y", 0, 10) {
		w.propose(rest[0], cmd)
	}
	cancel()
	for range cap(waits) {
		if err := <-waits; !errors.Is(err, context.Canceled) {
			t.Errorf("an entry that nobody has proposed: %v", err)
		}
	}
}

// A node that is parted is waited for.
func TestPeerAppliedLater(t *testing.T) {
	w := newWorld(t, nil, abc...)
	w.startAll(abc...)
	away := others(w.leader(abc...))[0]
	from := others(away)[0]
	w.cut(away, emulator.State{Cut: emulator.CutBoth})
	w.propose(from, "x")
	at := w.nodes[from].Applied()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if err := w.nodes[from].PeerApplied(ctx, away, at); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a node that is parted has entry %d: %v", at, err)
	}
	waits := make(chan error, 1)
	go func() { waits <- w.nodes[from].PeerApplied(w.ctx(), away, at) }()
	w.cut(away, emulator.State{})
	if err := <-waits; err != nil || w.nodes[away].Applied() < at {
		t.Errorf("%s has applied %d of %d: %v", away, w.nodes[away].Applied(), at, err)
	}
}

// A node that cannot go on says so to everybody, still votes, and goes on when it is
// started with a program that can.
func TestCannotGoOn(t *testing.T) {
	w := newWorld(t, func(cfg *Config) {
		if cfg.Identity.Name() == "b" {
			cfg.FSM.(*list).unknown = "new"
		}
	}, "a", "b")
	w.startAll("a", "b")
	w.propose("a", "x")
	w.propose("a", "new") // by the vote of b
	w.propose("a", "y")
	b, last := w.nodes["b"], w.nodes["a"].Applied()
	if err := b.WaitApplied(w.ctx(), last); !errors.Is(err, errUnknown) {
		t.Errorf("b waits for what it cannot apply: %v", err)
	}
	if err := b.Sync(w.ctx()); !errors.Is(err, errUnknown) {
		t.Errorf("b is up to date: %v", err)
	}
	if _, err := b.Propose(w.ctx(), []byte("z")); !errors.Is(err, errUnknown) {
		t.Errorf("b proposes: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if err := w.nodes["a"].PeerApplied(ctx, "b", last); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("b says that it has applied what it cannot: %v", err)
	}
	if err := b.raft().Snapshot().Error(); err == nil || !strings.Contains(err.Error(), errUnknown.Error()) {
		t.Errorf("b makes a snapshot of it: %v", err)
	}
	b.stop()
	w.change = nil
	b.start(false)
	w.check([]string{"x", "new", "y", "z"}, "a", "b")
}

// A node is closed while much is committed and waits for the FSM: the library forgets
// that, and nobody waits for what never comes.
func TestCloseWhileBusy(t *testing.T) {
	gate := make(chan struct{})
	w := newWorld(t, func(cfg *Config) { cfg.FSM.(*list).gate = gate }, "a")
	w.nodes["a"].start(true)
	n := w.nodes["a"].Node
	w.until("a leads", func() bool { return n.Leader() == "a" })
	const many = 32
	ended := make(chan error, many)
	for range many {
		at := n.Stats().Committed
		go func() {
			_, err := n.Propose(context.Background(), []byte("x"))
			ended <- err
		}()
		w.until("it is committed", func() bool { return n.Stats().Committed > at })
	}
	closed := make(chan struct{})
	go func() {
		w.nodes["a"].stop()
		close(closed)
	}()
	w.until("the library ends", func() bool { return n.Stats().State == "Shutdown" })
	close(gate)
	for range many {
		select {
		case <-ended:
		case <-time.After(patience):
			t.Fatal("a proposal waits for ever")
		}
	}
	<-closed
}
