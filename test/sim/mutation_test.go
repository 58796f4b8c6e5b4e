package sim

import (
	"testing"
	"time"

	"github.com/twinlun/twinlun/cluster/failover"
)

// mutationSeeds is how many seeds may pass until a fault has to be found; each is found in
// the first ten or so.
const mutationSeeds = 60

// TestMutations puts faults between the parts of a node, which have to be found: by the
// trouble of the seeds, or, if that takes too many of them, by some that is made for it.
func TestMutations(t *testing.T) {
	for name, c := range map[string]struct {
		mutation
		script func(*world)
	}{
		"alwaysHolds":       {alwaysHolds, staysDeaf},
		"memoEarly":         {memoEarly, restartsIsolated},
		"toldLate":          {toldLate, nil},
		"staleTerm":         {staleTerm, joinsLate},
		"memoEarly, forced": {memoEarly, forcesAndDies},
		"forcedLate":        {forcedLate, forcesLate},
		"lacksBlock":        {lacksBlock, forcesLate},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(mutationSeeds) {
				if _, err := Run(seed+1, Options{mutation: c.mutation, script: c.script}); err != nil {
					t.Logf("found with seed %d: %.200s", seed+1, err)
					return
				}
			}
			t.Error("it was not found")
		})
	}
}

// TestScripts: without a fault nothing is found in what is made for one.
func TestScripts(t *testing.T) {
	for name, script := range map[string]func(*world){
		"restartsIsolated": restartsIsolated, "joinsLate": joinsLate, "drainsParted": drainsParted, "staysDeaf": staysDeaf,
		"forcesLate": forcesLate, "forcesAndDies": forcesAndDies,
	} {
		takes, left, forks, late := 0, 0, 0, 0
		for seed := range uint64(10) {
			r, err := Run(seed+1, Options{mutation: harmless, script: script})
			if err != nil {
				t.Errorf("%s, seed %d: %v", name, seed+1, err)
			}
			takes, left, forks, late = takes+r.Takes, left+r.Left, forks+r.Forks, late+r.Late
		}
		if takes == 0 || name == "drainsParted" && left == 0 || name == "forcesLate" && late == 0 || name == "forcesAndDies" && forks == 0 {
			t.Errorf("%s: one site has served alone %d times, has left %d times, was forced %d times, %d too late", name, takes, left, forks, late)
		}
	}
}

// until waits for something, or until the hosts are to rest.
func (w *world) until(yes func() bool) {
	for !w.resting && !yes() {
		w.sleep(5 * time.Millisecond)
	}
}

// alone is the site that serves alone, free of the other one; nil: there is none.
func (w *world) alone() *site {
	for _, s := range w.sites {
		if s.agent != nil && s.agent.role.Free && s.agent.lease != nil {
			return s
		}
	}
	return nil
}

// takesOver cuts the link until one site serves alone, which is returned; nil: time is up.
func (w *world) takesOver() (s *site) {
	w.until(w.cluster.together)
	w.link.cut = true
	w.link.sever(errParted)
	w.until(func() bool { s = w.alone(); return s != nil })
	return s
}

// staysDeaf: a site hears neither raft nor the other one, which takes over, and does not see
// that the link is gone.
func staysDeaf(w *world) {
	for !w.resting {
		w.until(w.cluster.together)
		deaf, end := w.sites[1], w.link.ends
		deaf.seat.isolated, w.link.cut = true, true
		for _, c := range end {
			c.deaf, c.mute = true, true
		}
		end[0].cancel(errParted)
		w.sleep(away)
		end[1].cancel(errParted)
		deaf.seat.isolated, w.link.cut = false, false
	}
}

// restartsIsolated: a site that has served alone is killed as soon as the other one serves,
// too, before it has the new term on disk: its map file, which has terms too, is slow. It
// starts with an earlier state of the log.
func restartsIsolated(w *world) {
	defer func() { w.link.cut = false }()
	for !w.resting {
		s := w.takesOver()
		w.sleep(memosWithin)
		w.link.cut = false
		if s == nil {
			return
		}
		other := w.sites[1-s.no]
		w.until(func() bool { return w.cluster.serves(other) })
		s.mapFile.slow = time.Second
		w.until(func() bool { return other.agent.Holds() })
		s.mapFile.slow = 0
		s.seat.isolated, w.link.cut = true, true
		s.whenRunning(s.kill)
		w.sleep(away)
		s.seat.isolated, w.link.cut = false, false
	}
}

// drainsParted: the link breaks while a site that is drained gives back what it owns. What
// it says then does not arrive.
func drainsParted(w *world) {
	for !w.resting {
		w.until(w.cluster.together)
		s := w.sites[w.rand.IntN(2)]
		w.cluster.drain(s, func() {
			w.until(func() bool { return s.agent.role.Serve == failover.None })
			w.sleep(upTo(w.rand, 200*time.Millisecond)) // the Keeper looks twice
			w.link.sever(errParted)
			w.sleep(2 * time.Second)
		})
	}
}

// forcesLate: a site is forced when the other one has taken over from it.
func forcesLate(w *world) {
	for !w.resting {
		w.until(w.cluster.together)
		s, other := w.sites[1], w.sites[0]
		s.seat.isolated, w.link.cut = true, true
		w.link.sever(errParted)
		w.until(func() bool { return other.agent.role.Free })
		s.operator()
		w.until(func() bool { return s.agent.role.Forced })
		w.sleep(time.Second)
		s.seat.isolated, w.link.cut = false, false
		w.until(func() bool { return w.fork == nil })
	}
}

// forcesAndDies: a site is forced when nobody else is there, and is killed as soon as hosts
// are answered.
func forcesAndDies(w *world) {
	for !w.resting {
		w.until(w.cluster.together)
		s, other := w.sites[1], w.sites[0]
		s.seat.isolated, other.seat.isolated, w.link.cut = true, true, true
		w.link.sever(errParted)
		w.until(func() bool { return !s.agent.Holds() })
		s.operator()
		w.until(func() bool { return s.agent.role.Forced && s.agent.answers() })
		w.sleep(upTo(w.rand, 500*time.Millisecond))
		s.whenRunning(s.kill)
		w.sleep(2 * time.Second)
		s.seat.isolated, other.seat.isolated, w.link.cut = false, false, false
		w.sleep(time.Second)
	}
}

// joinsLate: it is agreed late that both serve, when the one that proposed it has gone back.
func joinsLate(w *world) {
	defer func() { w.cluster.raft.late, w.link.cut = 0, false }()
	w.cluster.raft.late = 0
	for !w.resting {
		s := w.takesOver()
		if s == nil {
			return
		}
		w.cluster.raft.late = 100
		w.link.cut = false
		w.until(func() bool { return s.agent != nil && s.agent.role.Tied || s.agent == nil })
		w.sleep(upTo(w.rand, time.Second))
		w.cluster.raft.late = 0
		w.link.cut = true
		w.link.sever(errParted)
		w.until(func() bool { return s.agent == nil || s.agent.role.Free || s.agent.role.Serve == failover.Together })
		s.seat.isolated = true
		w.sleep(away)
		s.seat.isolated, w.link.cut = false, false
	}
}
