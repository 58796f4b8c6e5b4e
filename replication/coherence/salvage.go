package coherence

import "github.com/twinlun/twinlun/dirtymap"

// salvage are the extents of this replica that lose acknowledged writes in the join
// that is under way.
type salvage struct {
	whole []dirtymap.Range
	dirty []dirtymap.Range // only what is dirty
}

// add decides how much of an extent is lost: what is dirty, if that is still known and
// anything is; all of it if its newest writes were handed over, and never arrived.
func (s *salvage) add(ext uint64, mine dirtymap.State, dirty dirtymap.Mask, restarted bool) {
	switch {
	case mine&dirtymap.Held == 0 || restarted:
		s.whole = appendRange(s.whole, one(ext))
	case !dirty.Empty():
		s.dirty = appendRange(s.dirty, one(ext))
	}
}

// salvaged begins to keep what is lost. False: nothing is.
func (e *Engine) salvaged() bool {
	s := &e.join.salvage
	if len(s.whole) == 0 && len(s.dirty) == 0 || e.mut == noSalvage {
		return false
	}
	e.join.phase = salvaging
	e.join.token = e.begin(work{kind: workSalvage})
	e.do(Salvage{Token: e.join.token, Join: e.join.outcome.Join, Whole: s.whole, Dirty: s.dirty})
	return true
}

// salvageFailed leaves everything as it is: there will be a next join.
func (e *Engine) salvageFailed(current bool, err error) {
	if current {
		e.refuse("what this replica would lose for good cannot be kept: " + err.Error())
	}
	e.tryJoin()
}
