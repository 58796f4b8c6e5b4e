package sim

import (
	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication"
)

// What crashes may take away, and when that is decided.
//
// Without a cluster nobody serves before both have joined again: then it is decided what is
// left of what was written before.
//
// In a cluster a site may serve alone after its own crash, without having joined: for it
// that is the moment. What only the other one has it does not serve then, unless the loss
// policy allows that; then all that the site does not have may be lost in the same moment.
// A site whose replica was destroyed is told to serve alone, too, but does not before it
// has joined (coherence.ErrNoData).

// lossAt is what a crash at one site takes away.
func lossAt(site int, l loss) (both [2]loss) {
	both[site] = l
	return both
}

// crash notes what the end of a site's process takes away.
func (w *world) crash(s *site, l loss) {
	w.lost[s.no] = max(w.lost[s.no], l)
	w.unsure[s.no] = true
}

// noteTakenOver tells the history which extents the other site has as new as this one,
// which crashes. After an earlier crash that says nothing until the sites have joined: a
// join that was cut short may have made the other one an owner of older data. Nor does a
// site that is not to serve know what the other one has written.
func (s *site) noteTakenOver() {
	other := s.w.sites[1-s.no]
	if other.rep == nil || s.w.unsure != [2]bool{} || s.w.fork != nil || s.w.cluster != nil && !s.w.cluster.serves(other) {
		return
	}
	s.w.hasNow(other, other.rep.Map())
}

// hasNow notes what a site has the newest data of.
func (w *world) hasNow(s *site, m planes) {
	for i := range s.hist().registers {
		if hasAt(m, int64(i)*sectorSize) {
			s.hist().has(s.no, i)
		}
	}
}

// planes are the states of a replica's extents: its map, or what that was.
type planes interface {
	Geometry() dirtymap.Geometry
	State(ext uint64) dirtymap.State
}

// snapshot is a map as it was.
type snapshot struct {
	geo    dirtymap.Geometry
	states []dirtymap.State
}

func (s *snapshot) Geometry() dirtymap.Geometry     { return s.geo }
func (s *snapshot) State(ext uint64) dirtymap.State { return s.states[ext] }

func (s *snapshot) take(m *dirtymap.Map) {
	s.geo, s.states = m.Geometry(), s.states[:0]
	for ext := range s.geo.Extents() {
		s.states = append(s.states, m.State(ext))
	}
}

// has tells whether the site's replica has the newest data at off.
func (s *site) has(off int64) bool { return hasAt(s.rep.Map(), off) }

// hasAt: where a map has not grown to nobody can have written.
func hasAt(m planes, off int64) bool {
	return off >= m.Geometry().Size || m.State(uint64(off/m.Geometry().ExtentSize))&dirtymap.Stale == 0
}

// joined decides what is lost, and which version stays, when the sites have joined: s is the
// first one to know.
func (w *world) joined(s *site) {
	if w.lost != [2]loss{} {
		w.hists[0].lose(w.lost, 0)
		if w.fork != nil {
			w.hists[1].lose(w.lost, 0)
		}
	}
	if w.fork != nil {
		w.merge(s)
	}
	w.lost, w.unsure, w.forking = [2]loss{}, [2]bool{}, w.forking.next()
}

// goesAlone: a site is about to serve alone, with this replica (nil: it has none open yet).
func (s *site) goesAlone(rep *replication.Replica) {
	if rep != nil {
		s.givesUp(rep.Map())
	}
}

// givesUp: from now on a site may go on without what only the other one has. m says what that
// is.
func (s *site) givesUp(m planes) {
	w := s.w
	lost := w.lost // what the other one's crash has left is seen later
	w.lost[s.no] = lossNone
	if own := lost[s.no]; own != lossNone && w.fork != nil {
		w.hists[1-s.no].lose(lossAt(s.no, own), 1<<(1-s.no)) // it may have to do without that, too
	}
	weak := uint8(1 << (1 - s.no)) // what a crash has left here is on the medium
	if s.agent.loss() == catalog.ServeStale {
		weak = 3
		if w.unsure[s.no] {
			lost[s.no] = max(lost[s.no], lossOS)
		} else {
			w.hasNow(s, m)
		}
		lost[1-s.no] = lossReplica
	} else if lost[s.no] == lossNone {
		return
	}
	s.hist().lose(lost, weak)
}
