package reserving

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/target/reservation"
	"github.com/twinlun/twinlun/target/sam"
)

// preempting has a1 hold the LUN, and begins a command of b2 that preempts it, while site 1
// applies nothing.
func preempting(w *world, action reservation.Action) *started {
	w.want(w.out("a1", reservation.RegisterAndIgnore, 0, 1, 0), "good")
	w.want(w.out("b2", reservation.RegisterAndIgnore, 0, 2, 0), "good")
	w.want(w.out("a1", reservation.Reserve, 1, 0, reservation.WriteExclusive), "good")
	w.sites[0].hold(true)
	p := start(w.host("b2"), reserveOut(action, reservation.WriteExclusive, 24), list(2, 1, 0))
	synctest.Wait()
	return p
}

// TestPeerApplies answers PREEMPT when the other site has applied it, and not before.
func TestPeerApplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := preempting(w, reservation.Preempt)
		w.want(run(w.host("a1"), write, nil), "good") // nobody was told anything yet
		keys := start(w.host("c2"), readKeys, nil)
		synctest.Wait()
		if p.ended() || keys.ended() {
			t.Fatal("it was answered while the preempted host may write")
		}
		w.sites[0].step(true)
		synctest.Wait()
		if !p.ended() || !keys.ended() {
			t.Fatal("it is not answered")
		}
		w.want(p.c, "good")
		w.want(keys.c, "good")
		if n := keys.c.InLen; n != 16 {
			t.Errorf("READ KEYS has %d bytes", n)
		}
		w.want(run(w.host("a1"), write, nil), "6 2a05")
		w.want(run(w.host("a1"), write, nil), "conflict")
	})
}

// TestPeerLeaves: who does not serve need not apply anything.
func TestPeerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := preempting(w, reservation.Preempt)
		time.Sleep(time.Hour)
		synctest.Wait()
		if p.ended() {
			t.Fatal("it was answered while the other site serves")
		}
		w.serve("b")
		synctest.Wait()
		if !p.ended() {
			t.Fatal("it waits for a site that does not serve")
		}
		w.want(p.c, "good")
		w.want(w.out("b2", reservation.Clear, 2, 0, 0), "good")
	})
}

// TestThisSiteLeaves: hosts are sent to the other one, whatever a command waits for, and
// whatever comes later.
func TestThisSiteLeaves(t *testing.T) {
	const away = "2 040c"
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := preempting(w, reservation.Preempt) // waits for the other one
		w.serve("a")
		synctest.Wait()
		if !p.ended() {
			t.Fatal("it waits at a site that does not serve")
		}
		w.want(p.c, away)
		w.want(w.out("b2", reservation.Clear, 2, 0, 0), away)
		w.want(run(w.host("b2"), readKeys, nil), away)
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.sites[0].hold(true)
		p := start(w.host("a1"), reserveOut(reservation.RegisterAndIgnore, 0, 24), list(0, 1, 0)) // waits for this one
		synctest.Wait()
		w.serve("b")
		synctest.Wait()
		if p.ended() {
			t.Fatal("nothing was applied")
		}
		w.sites[0].hold(false)
		synctest.Wait()
		if !p.ended() { // with either: it may have been told before the second entry came
			t.Fatal("it still waits")
		}
	})
}

// mute is a Cluster with which nothing is agreed on.
type mute struct{ Cluster }

func (mute) Do(ctx context.Context, _ string, _ catalog.Body) (catalog.Result, error) {
	<-ctx.Done()
	return catalog.Result{}, context.Cause(ctx)
}

// TestNoMajority: a command that nobody agrees on ends when this site stops to serve.
func TestNoMajority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := w.sites[0]
		s.hub.cluster = mute{s}
		p := start(w.host("a1"), reserveOut(reservation.RegisterAndIgnore, 0, 24), list(0, 1, 0))
		synctest.Wait()
		if p.ended() {
			t.Fatal("nobody has agreed")
		}
		w.serve("b")
		synctest.Wait()
		w.want(p.c, "2 040c")
	})
}

// TestAborted: a command that its host gives up waits for nothing.
func TestAborted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := preempting(w, reservation.Preempt)
		p.stop()
		synctest.Wait()
		if !p.ended() {
			t.Fatal("it still waits")
		}
		again := start(w.host("b2"), reserveOut(reservation.Preempt, reservation.WriteExclusive, 24), list(2, 1, 0))
		synctest.Wait()
		if again.ended() {
			t.Fatal("a conflict tells that the first one was carried out, and it is not everywhere")
		}
		w.sites[0].hold(false)
		synctest.Wait()
		w.want(again.c, "conflict")
	})
}

// slow are the commands of a nexus that end when the test says so.
type slow struct {
	mu      sync.Mutex
	aborted int
	end     chan struct{}
}

func (s *slow) Abort(_ [8]byte, by *sam.Command, _ bool) int {
	s.mu.Lock()
	s.aborted++
	s.mu.Unlock()
	select {
	case <-s.end:
	case <-by.Ctx.Done():
	}
	return 1
}

func (s *slow) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.aborted
}

// aborting is preempting with PREEMPT AND ABORT, while commands run.
func aborting(w *world) (p *started, victim, other *slow) {
	victim, other = &slow{end: make(chan struct{})}, &slow{end: make(chan struct{})}
	w.host("a1").(sam.TaskUser).UseTasks(victim)
	w.host("b1").(sam.TaskUser).UseTasks(other)
	return preempting(w, reservation.PreemptAndAbort), victim, other
}

// TestAbortThere answers PREEMPT AND ABORT when the commands of the preempted host have
// ended at the other site, however long that takes.
func TestAbortThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p, victim, other := aborting(w)
		if victim.count() != 0 {
			t.Error("commands end before it is applied there")
		}
		w.sites[0].hold(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if p.ended() || victim.count() != 1 || other.count() != 0 {
			t.Fatalf("ended %v, the victim's commands were aborted %d times, others' %d times", p.ended(), victim.count(), other.count())
		}
		close(victim.end)
		time.Sleep(time.Minute)
		synctest.Wait()
		if !p.ended() {
			t.Fatal("it is not answered")
		}
		w.want(p.c, "good")
	})
}

// TestAbortWithoutLink: the commands end, and while nobody can say that they have, it is
// not answered; unless that site does not serve any more.
func TestAbortWithoutLink(t *testing.T) {
	for _, mended := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.sites[1].cut = true
			p, victim, _ := aborting(w)
			w.sites[0].hold(false)
			close(victim.end)
			time.Sleep(time.Minute)
			synctest.Wait()
			if p.ended() || victim.count() != 1 {
				t.Fatalf("ended %v, aborted %d times", p.ended(), victim.count())
			}
			if mended {
				w.mu.Lock()
				w.sites[1].cut = false
				w.mu.Unlock()
			} else {
				w.serve("b")
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if !p.ended() {
				t.Fatal("it is not answered")
			}
			w.want(p.c, "good")
		})
	}
}

// TestAbortWithoutAnswer: also if the site that was asked dies, what it preempted ends.
func TestAbortWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p, victim, _ := aborting(w)
		p.stop()
		close(victim.end)
		synctest.Wait()
		w.sites[0].hold(false)
		synctest.Wait()
		if victim.count() != 1 {
			t.Errorf("aborted %d times", victim.count())
		}
	})
}

// TestJump gives a site a state as a whole: who may have been preempted is told, and its
// commands end.
func TestJump(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p, victim, other := aborting(w)
		close(victim.end)
		s := w.sites[0]
		s.applying.Lock()
		w.mu.Lock()
		latest := w.sites[1].state
		s.state, s.applied = latest, w.sites[1].applied
		w.mu.Unlock()
		s.hub.Apply(latest, catalog.Result{})
		w.mu.Lock()
		w.movedLocked()
		w.mu.Unlock()
		s.applying.Unlock()
		synctest.Wait()
		if !p.ended() {
			t.Fatal("it is not answered")
		}
		w.want(p.c, "good")
		w.want(run(w.host("a1"), write, nil), "6 2a05")
		w.want(run(w.host("a1"), write, nil), "conflict")
		w.want(run(w.host("b1"), read, nil), "good")
		if victim.count() != 1 || other.count() != 0 {
			t.Errorf("the victim's commands were aborted %d times, others' %d times", victim.count(), other.count())
		}
	})
}

// lost is a Cluster that cannot say what is the latest until it is told to.
type lost struct {
	Cluster
	found chan struct{}
	tries int
}

func (l *lost) Sync(context.Context) error {
	if l.tries++; l.tries == 1 {
		return errors.New("no majority")
	}
	<-l.found
	return nil
}

// restarted gives a site a Hub that finds no majority.
func restarted(s *site) *lost {
	l := &lost{s, make(chan struct{}), 0}
	s.applying.Lock()
	defer s.applying.Unlock()
	s.hub = New("a", l, s.hub.log)
	s.hub.Apply(s.state, catalog.Result{})
	return l
}

// TestStart: what a node finds in its own log may be older than what it has answered
// before it was ended; so hosts wait.
func TestStart(t *testing.T) {
	const wait = "2 0401"
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		preempting(w, reservation.Preempt)
		s := w.sites[0]
		l := restarted(s)
		r := s.hub.LUN(disk)
		reopened(w, s)
		for host, cdb := range map[string]string{"a1": write, "b1": read, "c1": readKeys} {
			w.want(run(w.host(host), cdb, nil), wait)
		}
		w.want(run(w.host("c1"), "16", nil), wait)
		w.want(w.out("a1", reservation.Register, 1, 5, 0), wait)
		w.want(run(w.host("a1"), testUnitReady, nil), "good")
		s.hold(false)
		if r.Load() != nil {
			t.Error("it is known before anybody has said that it is the latest")
		}
		close(l.found)
		time.Sleep(time.Minute)
		synctest.Wait()
		w.want(run(w.host("a1"), write, nil), "conflict")
		w.want(run(w.host("c1"), readKeys, nil), "good")
		s.hub.Close()
	})
}

// TestRely: a node that is forced to serve goes by what it knows.
func TestRely(t *testing.T) {
	const wait = "2 0401"
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.want(w.out("a1", reservation.RegisterAndIgnore, 0, 1, 0), "good")
		w.want(w.out("a1", reservation.Reserve, 1, 0, reservation.WriteExclusive), "good")
		s := w.sites[0]
		l := restarted(s)
		s.hub.LUN(disk)
		reopened(w, s)
		w.want(run(w.host("a1"), write, nil), wait)
		s.hub.Rely(disk)
		w.want(run(w.host("a1"), write, nil), "good")
		w.want(run(w.host("b1"), write, nil), "conflict")
		close(l.found)
		time.Sleep(time.Minute)
		synctest.Wait()
		w.want(run(w.host("b1"), write, nil), "conflict")
		s.hub.Close()
	})
}

// TestRemoved: of a LUN that is gone nothing is left.
func TestRemoved(t *testing.T) {
	w := newWorld(t)
	w.want(w.out("a1", reservation.RegisterAndIgnore, 0, 1, 0), "good")
	r := w.sites[0].hub.LUN(disk)
	w.append(&catalog.RemoveLUN{ID: disk})
	w.pump()
	if r.Load().Registered() || len(w.sites[0].hub.luns) != 0 {
		t.Errorf("left: %+v, %d LUNs", r.Load(), len(w.sites[0].hub.luns))
	}
	w.want(w.out("a1", reservation.RegisterAndIgnore, 0, 1, 0), "6 2a05")
	w.want(w.out("a1", reservation.RegisterAndIgnore, 0, 1, 0), "2 040c")
}
