package cluster

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// Whoever leads asks, right before it gives a vote, whether the node may have it.
func TestMayVote(t *testing.T) {
	var may atomic.Bool
	may.Store(true)
	w := newWorld(t, func(cfg *Config) {
		cfg.Voter = func(node string) bool { return node != "c" || may.Load() }
	}, abc...)
	w.startAll("a", "b")
	may.Store(false)
	w.nodes["c"].start(false)
	for _, at := range []string{"a", "b"} {
		ctx, cancel := context.WithCancel(w.ctx())
		asked := make(chan error, 1)
		go func() { asked <- w.nodes[at].SetMember(ctx, Member{"c", true}) }()
		w.propose("b", "x") // so that time has passed, and with it some attempts
		cancel()
		if err := <-asked; err == nil || !errors.Is(err, context.Canceled) {
			t.Errorf("asked at %s: %v", at, err)
		}
	}
	if got, err := w.nodes["a"].Members(); err != nil || len(got) != 2 {
		t.Errorf("members: %v, %v", got, err)
	}
	if err := w.nodes["a"].SetMember(w.ctx(), Member{"c", false}); err != nil {
		t.Errorf("without a vote: %v", err)
	}
	err := w.nodes["a"].changeMember([]byte{memberVoter, 'c'})
	if err == nil || !strings.Contains(err.Error(), "not to have a vote") && !errors.Is(err, errNotHere) {
		t.Errorf("at the leader: %v", err)
	}
	may.Store(true)
	if err := w.nodes["b"].SetMember(w.ctx(), Member{"c", true}); err != nil {
		t.Fatal(err)
	}
	w.propose("c", "y")
}

// Who leads loses its vote, and goes on as a member; another one leads without a pause
// that anybody would have to wait for.
func TestLeaderLosesVote(t *testing.T) {
	w := newWorld(t, nil, abc...)
	w.startAll(abc...)
	leader := w.leader(abc...)
	for range 2 {
		if err := w.nodes[leader].SetMember(w.ctx(), Member{leader, false}); err != nil {
			t.Fatal(err)
		}
	}
	rest := others(leader)
	w.until("another one leads", func() bool { return slices.Contains(rest, w.nodes[rest[0]].Leader()) })
	w.propose(leader, "x")
	if err := w.nodes[leader].SetMember(w.ctx(), Member{leader, true}); err != nil {
		t.Fatal(err)
	}
	w.propose(leader, "y")
	w.check([]string{"x", "y"}, abc...)
}
