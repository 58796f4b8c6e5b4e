package sim

import (
	"bytes"
	"fmt"
	"time"
)

// trouble makes trouble. It is a task of the world.
func (w *world) trouble() {
	for {
		w.sleep(upTo(w.rand, 2*w.shape.trouble))
		if w.resting {
			return
		}
		w.someTrouble()
	}
}

func (w *world) someTrouble() {
	s := w.sites[w.rand.IntN(2)]
	if s.want < w.shape.geo.Size && chance(w.rand, 30) {
		w.tracef("TROUBLE: site %s gets room for a larger LUN", s.name)
		s.makeRoom()
		return
	}
	if chance(w.rand, 20) {
		w.tracef("site %s compares the replicas", s.name)
		s.compareSites()
		return
	}
	if w.cluster != nil && w.cluster.someTrouble(s) {
		return
	}
	switch n := w.rand.IntN(100); {
	case n < 35:
		w.tracef("TROUBLE: the link is cut")
		w.cutLink()
	case n < 55:
		w.tracef("TROUBLE: the process at site %s is killed", s.name)
		s.whenRunning(s.kill)
	case n < 65 && w.shape.osCrashes:
		w.tracef("TROUBLE: the operating system at site %s crashes", s.name)
		s.whenRunning(s.crashOS)
	case n < 72 && w.shape.osCrashes:
		w.tracef("TROUBLE: both operating systems crash")
		for _, s := range w.sites {
			s.whenRunning(s.crashOS)
		}
	case n < 76:
		w.tracef("TROUBLE: both processes are killed")
		for _, s := range w.sites {
			s.whenRunning(s.kill)
		}
	case n < 86:
		w.tracef("TROUBLE: site %s is stopped in order", s.name)
		s.stop()
	case n < 89 && w.shape.destroy:
		w.tracef("TROUBLE: the replica at site %s is lost", s.name)
		if w.lost == [2]loss{} {
			s.whenRunning(s.destroy)
		}
	default:
		w.tracef("TROUBLE: a disk at site %s is slow", s.name)
		w.slowDisk(s)
	}
}

// later ends a trouble that has begun.
func (w *world) later(most time.Duration, end func()) {
	d := upTo(w.rand, most)
	w.group.Go("mend", func() {
		w.sleep(d)
		end()
	})
}

// cutLink cuts the link for a while.
func (w *world) cutLink() {
	w.link.sever(fmt.Errorf("the link was cut"))
	w.link.cut = true
	w.later(2*time.Second, func() { w.link.cut = false })
}

// whenRunning crashes a site, and starts it again later.
func (s *site) whenRunning(crash func()) {
	if !s.wanted {
		return
	}
	crash()
	s.startLater()
}

func (s *site) startLater() {
	d := upTo(s.w.rand, time.Second)
	s.w.group.Go("restart", func() {
		s.w.sleep(d)
		s.start()
	})
}

// stop stops the site in order, then starts it again; under the same or under a
// new operating system, with nothing lost: everything was flushed.
func (s *site) stop() {
	if !s.wanted || s.rep == nil || s.stopped || s.growing {
		return
	}
	s.stopped = true
	s.group.Go("stop", func() {
		s.node.Remove(s.rep)
		if err := s.rep.Close(); err != nil {
			s.w.fail("site %s: %v", s.name, err)
			return
		}
		if s.agent != nil {
			s.agent.keeper.Detach(lunUUID, s.rep)
		}
		s.w.tracef("site %s has stopped", s.name)
		s.w.group.Go("stopped", s.afterStop)
	})
}

func (s *site) afterStop() {
	if !s.stopped || s.rep == nil {
		return // it was killed at the end
	}
	s.kill()
	if chance(s.w.rand, 50) {
		s.replica.crash()
		s.mapFile.crash()
		s.journal.crash()
		s.seat.memos.crash()
		s.boot++
		s.reboot()
	}
	s.startLater()
}

func (w *world) slowDisk(s *site) {
	slow := []*time.Duration{&s.replica.slow, &s.replica.slow, &s.mapFile.slow, &s.journal.slow, &s.seat.memos.slow}[w.rand.IntN(5)]
	*slow = upTo(w.rand, 300*time.Millisecond)
	w.later(2*time.Second, func() { *slow = 0 })
}

// severEnd lets one side of a connection notice, later, that the other is gone.
func (l *link) severEnd(c *conn, why error) {
	d := upTo(l.w.rand, noticing)
	if chance(l.w.rand, 50) {
		d = 0 // the operating system of a killed process tells at once
	}
	c.mute = true
	l.w.group.Go("notice", func() {
		l.w.sleep(d)
		c.cancel(why)
	})
}

// reunion is how long it may take until both sites of a cluster serve again: what has begun
// ends within half of it.
const reunion = time.Minute

// heal ends all trouble and lets the hosts rest; then a task waits until nothing
// is under way, and compares the replicas.
func (w *world) heal() {
	w.tracef("HEALING")
	w.resting = true
	began := w.sched.Elapsed()
	w.group.Go("end", func() {
		for again := false; !w.atRest(); w.sleep(200 * time.Millisecond) {
			again = again || w.cluster == nil || w.cluster.together()
			if !again && w.sched.Elapsed()-began > reunion {
				w.fail("the sites do not serve together %v after the end of all trouble\n%s", reunion, w.describe())
			}
		}
		w.totals.Healed = w.sched.Elapsed() - began
		w.compareAtRest()
		w.compare()
		w.readAll()
		w.finished = true
	})
}

// atRest tells whether the sites are joined, no command is under way, nothing is dirty,
// and both know the same of the unit.
func (w *world) atRest() bool {
	for _, s := range w.sites {
		if s.rep == nil || s.hosts > 0 || s.stopped {
			return false
		}
		if st := s.rep.Status(); !st.Serving || st.Dirty > 0 || st.Waiting > 0 {
			return false
		}
	}
	if w.cluster != nil && (w.drains || !w.cluster.together()) {
		return false
	}
	return w.oneConnection() && w.sites[0].twin.number == w.sites[1].twin.number
}

// compare compares the replicas: I3, and what I1 says of a pair at rest.
func (w *world) compare() {
	for ext := range w.sites[0].rep.Map().Geometry().Extents() {
		if off := w.shape.geo.Offset(ext); !w.sites[0].has(off) && !w.sites[1].has(off) {
			w.fail("I1: extent %d is stale at both sites", ext)
		}
	}
	a, b := w.sites[0].replica.cache, w.sites[1].replica.cache
	for at := 0; at < len(a); at += sectorSize {
		if x, y := a[at:at+sectorSize], b[at:at+sectorSize]; !bytes.Equal(x, y) {
			ext := uint64(at) / uint64(w.shape.geo.ExtentSize)
			w.fail("I3: sector %d (extent %d, %v at a, %v at b) is write %d at a and %d at b", at/sectorSize, ext,
				w.sites[0].rep.Map().State(ext), w.sites[1].rep.Map().State(ext), value8(x), value8(y))
			return
		}
	}
}

// readAll reads everything at both sites, in the sites' own tasks.
func (w *world) readAll() {
	left := len(w.sites)
	done := w.group.NewSignal()
	for _, s := range w.sites {
		s.group.Go("last read", func() {
			s.read(background, span{0, int(s.vol.Size() / sectorSize)})
			left--
			done.Set()
		})
	}
	for left > 0 {
		done.Wait(background)
	}
}
