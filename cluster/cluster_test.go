package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cluster/transport"
	"github.com/twinlun/twinlun/replication/emulator"
)

var abc = []string{"a", "b", "c"}

// others are all but one.
func others(name string) []string {
	return slices.DeleteFunc(slices.Clone(abc), func(n string) bool { return n == name })
}

// Commands are proposed anywhere, and applied everywhere, in one order; a proposer has
// its own result, and sees what it has proposed.
func TestPropose(t *testing.T) {
	w := newWorld(t, nil, abc...)
	w.startAll(abc...)
	var want []string
	for i := range 10 {
		for _, at := range abc {
			cmd := fmt.Sprintf("%s%d", at, i)
			w.propose(at, cmd)
			want = append(want, cmd)
		}
	}
	w.check(want, abc...)
	if _, err := w.nodes["b"].Propose(w.ctx(), make([]byte, MaxCommand+1)); !errors.Is(err, ErrTooLong) {
		t.Errorf("a long command: %v", err)
	}
	if _, err := w.nodes["b"].Propose(w.ctx(), make([]byte, MaxCommand)); err != nil {
		t.Errorf("the longest command: %v", err)
	}
	leader := w.leader(abc...)
	w.check(w.nodes[leader].fsm.all(), abc...)
	for _, name := range abc {
		s := w.nodes[name].Stats()
		if s.Leader == "" || s.Applied < 30 || s.Committed < s.Applied || s.LastIndex < s.Committed || s.Term == 0 || name != leader && s.LastContact.IsZero() {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// Many proposals at once, at all nodes: each is applied once, and gets its own result.
func TestProposeAtOnce(t *testing.T) {
	w := newWorld(t, nil, abc...)
	w.startAll(abc...)
	var all sync.WaitGroup
	for _, at := range abc {
		for i := range 40 {
			all.Go(func() { w.propose(at, fmt.Sprintf("%s%d", at, i)) })
		}
	}
	all.Wait()
	if err := w.nodes["a"].Sync(w.ctx()); err != nil {
		t.Fatal(err)
	}
	got := w.nodes["a"].fsm.all()
	w.check(got, abc...)
	want := slices.Concat(numbered("a", 0, 40), numbered("b", 0, 40), numbered("c", 0, 40))
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("applied: %q", got)
	}
}

// Whoever leads may die: the others go on, and he catches up.
func TestLeaderDies(t *testing.T) {
	w := newWorld(t, nil, abc...)
	w.startAll(abc...)
	var want []string
	for round := range 3 {
		leader := w.leader(abc...)
		rest := others(leader)
		w.nodes[leader].stop()
		began := time.Now()
		for i, at := range rest {
			cmd := fmt.Sprintf("%d-%d", round, i)
			w.propose(at, cmd)
			want = append(want, cmd)
			if i == 0 {
				t.Logf("%s is replaced, and a command applied, after %v", leader, time.Since(began))
			}
		}
		w.check(want, rest...)
		w.nodes[leader].start(false)
		w.check(want, abc...)
	}
}

// Nobody has to notice that a leader stops in order.
func TestHandOver(t *testing.T) {
	w := newWorld(t, nil, abc...)
	w.startAll(abc...)
	w.propose("b", "x")
	if err := w.nodes["a"].HandOver(); err != nil {
		t.Fatal(err)
	}
	w.until("another node leads", func() bool { l := w.nodes["b"].Leader(); return l == "b" || l == "c" })
	w.nodes["a"].stop()
	w.propose("b", "y")
	w.check([]string{"x", "y"}, "b", "c")
}

// All nodes stop, and start again; and a node that is alone knows, without anybody to
// ask, all that it had applied.
func TestRestart(t *testing.T) {
	w := newWorld(t, nil, abc...)
	w.startAll(abc...)
	want := numbered("x", 0, 20)
	for i, cmd := range want {
		w.propose(abc[i%3], cmd)
	}
	w.check(want, abc...)
	for _, name := range abc {
		w.nodes[name].stop()
	}
	w.nodes["b"].start(false)
	if got := w.nodes["b"].fsm.all(); !slices.Equal(got, want) {
		t.Errorf("b, alone, has %q", got)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if err := w.nodes["b"].Sync(ctx); err == nil || !strings.Contains(err.Error(), "nobody leads") {
		t.Errorf("b, alone, is up to date: %v", err)
	}
	if _, err := w.nodes["b"].Propose(ctx, []byte("y")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("b, alone, proposes: %v", err)
	}
	w.nodes["a"].start(true) // Found does nothing where a group is
	w.nodes["c"].start(false)
	w.propose("c", "z")
	w.check(append(want, "z"), abc...)
}

// What was applied last is noted, too, when nothing comes behind it: a node may be killed,
// and started alone.
func TestNote(t *testing.T) {
	w := newWorld(t, nil, abc...)
	w.startAll(abc...)
	w.propose("a", "x")
	w.check([]string{"x"}, abc...)
	b := w.nodes["b"]
	w.until("it is noted", func() bool {
		at, err := b.store.committed()
		return err == nil && at == b.Applied()
	})
}

// A node that was away for long gets the state as a whole; and so does one that comes
// new, and one that restarts with a snapshot.
func TestSnapshot(t *testing.T) {
	w := newWorld(t, func(cfg *Config) { cfg.SnapshotEvery, cfg.TrailingLogs = 1, 1 }, abc...)
	w.startAll(abc...)
	w.propose("c", "x")
	w.check([]string{"x"}, abc...)
	w.nodes["c"].stop()
	want := append([]string{"x"}, numbered("y", 0, 100)...)
	for _, cmd := range want[1:] {
		w.propose("b", cmd)
	}
	for _, name := range []string{"a", "b"} {
		if err := w.nodes[name].raft().Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
	}
	if first, err := w.nodes["a"].store.FirstIndex(); err != nil || first < 50 {
		t.Fatalf("the log begins at %d: %v; the test shows nothing", first, err)
	}
	w.nodes["c"].start(false)
	w.check(want, abc...)
	for _, name := range abc {
		w.nodes[name].stop()
	}
	for _, name := range abc {
		w.nodes[name].start(false)
	}
	w.propose("c", "z")
	w.check(append(want, "z"), abc...)
	if n := len(w.nodes["c"].machine.order); n != 102 {
		t.Errorf("c knows of %d proposals", n)
	}
}

// A leader that is parted from the others is replaced; what it was proposed meanwhile
// is applied once, after it is healed.
func TestPartition(t *testing.T) {
	w := newWorld(t, nil, abc...)
	w.startAll(abc...)
	w.propose("b", "before")
	leader := w.leader(abc...)
	rest := others(leader)
	w.cut(leader, emulator.State{Cut: emulator.CutBoth})
	late := make(chan error, 1)
	go func() {
		_, err := w.nodes[leader].Propose(w.ctx(), []byte("late"))
		late <- err
	}()
	w.until("the others have another leader", func() bool {
		l := w.nodes[rest[0]].Leader()
		return l != leader && slices.Contains(rest, l)
	})
	w.propose(rest[0], "during")
	w.propose(rest[1], "during too")
	w.until("the old leader gives up", func() bool { return w.nodes[leader].Leader() != leader })
	if got := w.nodes[leader].fsm.all(); !slices.Equal(got, []string{"before"}) {
		t.Errorf("the parted node has applied %q", got)
	}
	w.cut(leader, emulator.State{})
	if err := <-late; err != nil {
		t.Error(err)
	}
	w.check([]string{"before", "during", "during too", "late"}, abc...)
}

// A node that was parted does not disturb the others when it comes back (pre-vote).
func TestReturnIsQuiet(t *testing.T) {
	// Long enough that a busy machine does not unseat the leader for us.
	w := newWorld(t, func(cfg *Config) { cfg.Heartbeat = 2 * time.Second }, abc...)
	w.startAll(abc...)
	leader := w.leader(abc...)
	parted := others(leader)[0]
	term := w.nodes[leader].Stats().Term
	w.cut(parted, emulator.State{Cut: emulator.CutBoth})
	w.until("it stands for election", func() bool { return w.nodes[parted].Stats().State != "Follower" })
	time.Sleep(5 * time.Second) // some elections; a shorter time would only test less
	w.cut(parted, emulator.State{})
	w.propose(parted, "back")
	w.check([]string{"back"}, abc...)
	if now := w.nodes[leader].Stats(); now.State == "Leader" && now.Term != term {
		t.Errorf("the term went from %d to %d, with the same leader", term, now.Term)
	}
}

// A line of 50 ms one way makes commands slow, and no elections.
func TestFarNodes(t *testing.T) {
	w := newWorld(t, nil, abc...)
	w.startAll(abc...)
	leader := w.leader(abc...)
	term := w.nodes[leader].Stats().Term
	for _, line := range w.lines {
		line.Set(emulator.State{Delay: 50 * time.Millisecond})
	}
	want := numbered("x", 0, 20)
	for i, cmd := range want {
		w.propose(abc[i%3], cmd)
	}
	w.check(want, abc...)
	t.Logf("the term was %d, and is %d", term, w.nodes[leader].Stats().Term)
}

// An entry that is committed twice is applied once, also behind a restart.
func TestOnce(t *testing.T) {
	w := newWorld(t, nil, "a")
	w.startAll("a")
	a := w.nodes["a"]
	w.until("a leads", func() bool { return a.Leader() == "a" })
	entry := append(make([]byte, 16), "x"...)
	for round := range 2 {
		for range 3 {
			if _, err := a.commit(entry); err != nil {
				t.Fatal(err)
			}
		}
		w.check([]string{"x"}, "a")
		if round == 0 {
			if err := a.raft().Snapshot().Error(); err != nil {
				t.Fatal(err)
			}
			a.stop()
			a.start(false)
			w.until("a leads", func() bool { return a.Leader() == "a" })
		}
	}
}

// Members come, get and lose their vote, and go; from any node, and again.
func TestMembers(t *testing.T) {
	w := newWorld(t, nil, abc...)
	w.startAll("a", "b")
	c := w.nodes["c"]
	c.start(false)
	check := func(want ...Member) {
		t.Helper()
		w.until(fmt.Sprintf("the members are %v", want), func() bool {
			for _, m := range []*member{w.nodes["a"], w.nodes["b"]} {
				if got, err := m.Members(); err != nil || !slices.Equal(got, want) {
					return false
				}
			}
			return true
		})
	}
	check(Member{"a", true}, Member{"b", true})
	for range 2 {
		for _, voter := range []bool{false, true, false} {
			for range 2 {
				if err := w.nodes["b"].SetMember(w.ctx(), Member{"c", voter}); err != nil {
					t.Fatal(err)
				}
			}
			check(Member{"a", true}, Member{"b", true}, Member{"c", voter})
		}
		w.propose("c", "x")
		for range 2 {
			if err := w.nodes["b"].RemoveMember(w.ctx(), "c"); err != nil {
				t.Fatal(err)
			}
		}
		check(Member{"a", true}, Member{"b", true})
		c.stop()
		c.dir = t.TempDir()
		c.start(false)
	}
	if err := w.nodes["b"].SetMember(w.ctx(), Member{"no name", true}); err == nil {
		t.Error("a bad name is taken")
	}
}

// A state that is damaged is not gone on with.
func TestResumeDamaged(t *testing.T) {
	for what, damage := range map[string]func(dir string) error{
		"snapshot": func(dir string) error {
			states, err := filepath.Glob(filepath.Join(dir, "snapshots", "*", "state.bin"))
			if err != nil || len(states) != 1 {
				return fmt.Errorf("snapshots: %q, %v", states, err)
			}
			return os.Truncate(states[0], 25)
		},
		"no snapshot": func(dir string) error { return os.RemoveAll(filepath.Join(dir, "snapshots")) },
	} {
		w := newWorld(t, func(cfg *Config) { cfg.SnapshotEvery, cfg.TrailingLogs = 1, 1 }, "a")
		w.startAll("a")
		a := w.nodes["a"]
		for _, cmd := range numbered("x", 0, 10) {
			w.propose("a", cmd)
		}
		if err := a.raft().Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		a.stop()
		if err := damage(a.dir); err != nil {
			t.Fatal(err)
		}
		_, err := Start(Config{Dir: a.dir, Identity: a.id, Port: a.port, FSM: new(list)})
		if err == nil || !strings.Contains(err.Error(), "join it anew") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Leader is told of every change, at every node.
func TestLeaderIsTold(t *testing.T) {
	told := make(chan string, 1000)
	w := newWorld(t, func(cfg *Config) {
		name := cfg.Identity.Name()
		cfg.Leader = func(node string) { told <- name + "<" + node }
	}, "a", "b")
	w.startAll("a", "b")
	seen := map[string]bool{}
	for !seen["a<a"] || !seen["b<a"] {
		select {
		case s := <-told:
			seen[s] = true
		case <-time.After(patience):
			t.Fatalf("told: %v", seen)
		}
	}
}

// A node that issues no certificates gets one from another member.
func TestAskCertificate(t *testing.T) {
	w := newWorld(t, nil, "a", "b")
	w.startAll("a", "b")
	w.propose("b", "x") // b has heard of a
	der, err := w.nodes["b"].AskCertificate(w.ctx())
	if err != nil {
		t.Fatal(err)
	}
	b := w.nodes["b"].id
	if err := b.Replace(der, time.Now()); err != nil || b.Check(time.Now().Add(24*time.Hour)) != nil {
		t.Errorf("b's new certificate: %v", err)
	}
	if _, err := w.nodes["a"].AskCertificate(w.ctx()); err == nil || !strings.Contains(err.Error(), "does not issue") {
		t.Errorf("nobody else issues: %v", err)
	}
}

// What does not fit is refused, and the node goes on.
func TestBadRequests(t *testing.T) {
	w := newWorld(t, nil, "a", "b")
	w.startAll("a", "b")
	for kind, says := range map[byte]string{0: "kind 0", 99: "kind 99", askMember: "without a node", askPropose: "without an id", askApplied: "index of 0 bytes"} {
		if _, err := w.nodes["b"].peers.ask(w.ctx(), "a", kind, nil); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("kind %d: %v", kind, err)
		}
	}
	c, err := w.nodes["b"].port.Dial(w.ctx(), "a", transport.Cluster)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	c.Write([]byte{askPropose, 0xff, 0xff, 0xff, 0xff})
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a request of 4 GiB is waited for")
	}
	w.propose("b", "x")
}

// A node that is closed does nothing more, and says so.
func TestClosed(t *testing.T) {
	w := newWorld(t, nil, "a")
	w.startAll("a")
	n := w.nodes["a"].Node
	w.nodes["a"].stop()
	if _, err := n.Propose(w.ctx(), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Propose: %v", err)
	}
	if err := n.Sync(w.ctx()); !errors.Is(err, ErrClosed) {
		t.Errorf("Sync: %v", err)
	}
	if _, err := Start(Config{}); err == nil {
		t.Error("an empty configuration is taken")
	}
}
