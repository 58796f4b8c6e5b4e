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

// crash notes what the end of a site's process takes away.
func (w *world) crash(s *site, l loss) {
	w.lost[s.no] = max(w.lost[s.no], l)
	w.unsure[s.no] = true
	for i, s := range w.sites {
		w.joinsAt[i] = 0
		if s.rep != nil {
			w.joinsAt[i] = s.rep.Status().Joins
		}
	}
}

// noteTakenOver tells the history which extents the other site has as new as this one,
// which crashes. After an earlier crash that says nothing until the sites have joined: a
// join that was cut short may have made the other one an owner of older data. Nor does a
// site that is not to serve know what the other one has written.
func (s *site) noteTakenOver() {
	other := s.w.sites[1-s.no]
	if other.rep == nil || s.w.unsure != [2]bool{} || s.w.cluster != nil && !s.w.cluster.serves(other) {
		return
	}
	s.w.hasNow(other, other.rep)
}

// hasNow notes what a site has the newest data of.
func (w *world) hasNow(s *site, rep *replication.Replica) {
	for i := range w.hist.registers {
		if hasAt(rep.Map(), int64(i)*sectorSize) {
			w.hist.has(s.no, i)
		}
	}
}

// has tells whether the site's replica has the newest data at off.
func (s *site) has(off int64) bool { return hasAt(s.rep.Map(), off) }

// hasAt: where a map has not grown to nobody can have written.
func hasAt(m *dirtymap.Map, off int64) bool {
	return off >= m.Geometry().Size || m.State(uint64(off/m.Geometry().ExtentSize))&dirtymap.Stale == 0
}

// joined decides what is lost, when the sites have joined after a crash.
func (w *world) joined() {
	if w.lost != [2]loss{} {
		w.hist.lose(w.lost)
	}
	w.lost, w.unsure = [2]loss{}, [2]bool{}
}

// goesAlone: a site is about to serve alone, with this replica (nil: it has none open yet).
func (s *site) goesAlone(rep *replication.Replica) {
	if rep == nil {
		return
	}
	w := s.w
	lost := w.lost // what the other one's crash has left is seen later
	w.lost[s.no] = lossNone
	if s.agent.lun().Loss == catalog.ServeStale {
		if w.unsure[s.no] {
			lost[s.no] = max(lost[s.no], lossOS)
		} else {
			w.hasNow(s, rep)
		}
		lost[1-s.no] = lossReplica
	} else if lost[s.no] == lossNone {
		return
	}
	w.hist.lose(lost)
}
