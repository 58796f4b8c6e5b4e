package coherence

import (
	"slices"

	"github.com/twinlun/twinlun/dirtymap"
)

// flush is the flush of the replica that is under way.
type flush struct {
	token   uint64
	extents map[uint64]struct{}
	syncs   []uint64
}

// relax notes an extent whose state in the log may be relaxed after a flush that
// begins from now on: it became SHARED, or it is volatile.
func (e *Engine) relax(ext uint64) { e.relaxed[ext] = struct{}{} }

// sync is a host's SYNCHRONIZE CACHE.
func (e *Engine) sync(id uint64) {
	if err := e.refusal(); err != nil {
		e.do(Admit{Op: id, Sync: true, Err: err})
		return
	}
	e.syncs = append(e.syncs, id)
	e.startFlush()
}

func (e *Engine) startFlush() {
	if e.flush.token != 0 || !e.working() {
		return // the next one begins when this one has ended, or after the join
	}
	e.flush = flush{extents: e.relaxed, syncs: e.syncs}
	e.relaxed, e.syncs = map[uint64]struct{}{}, nil
	e.flush.token = e.begin(work{kind: workFlush})
	e.do(Flush{Token: e.flush.token})
}

// flushed: what was written before the flush began is durable. An extent that
// was relaxed again since is left for the next one.
func (e *Engine) flushed() {
	f := e.flush
	e.flush = flush{}
	for _, ext := range sortedKeys(f.extents) {
		if _, again := e.relaxed[ext]; !again {
			e.m.Change(ext, dirtymap.Volatile, 0)
			e.toRelax = append(e.toRelax, Change{dirtymap.Range{First: ext, Count: 1}, e.m.State(ext) & dirtymap.Durable})
		}
	}
	e.logRelaxed(f.syncs)
	for _, ext := range sortedKeys(f.extents) {
		if en := e.entries[ext]; en != nil && en.phase == cleaning && e.m.State(ext)&dirtymap.Volatile == 0 {
			e.cleaning--
			e.grant(ext, en)
		} else if e.join.phase == alone {
			e.kick(ext) // a write may wait for it
		}
	}
	if len(e.syncs) > 0 || e.cleaning > 0 {
		e.startFlush()
	}
}

// logRelaxed logs what the flush has relaxed. A host's SYNC must wait for it, and
// for what is still under way: an extent that the log calls volatile is lost with
// all its writes when the operating system goes down.
func (e *Engine) logRelaxed(syncs []uint64) {
	changes := mergeChanges(e.toRelax)
	e.toRelax = nil
	if len(changes) == 0 && (len(syncs) == 0 || e.relaxing == 0) {
		e.admitSyncs(syncs)
		return
	}
	e.relaxing++
	e.do(Log{Token: e.begin(work{kind: workRelax, syncs: syncs}), Lazy: len(syncs) == 0, Changes: changes})
}

func (e *Engine) admitSyncs(syncs []uint64) {
	for _, id := range syncs {
		e.do(Admit{Op: id, Sync: true})
	}
}

// unwritten stands for the token of a log entry until the end of the step.
const unwritten = ^uint64(0)

// log makes an extent's state durable; its entry waits for that.
func (e *Engine) log(ext uint64, s dirtymap.State) {
	e.toLog = append(e.toLog, Change{dirtymap.Range{First: ext, Count: 1}, s & dirtymap.Durable})
	e.waitLog = append(e.waitLog, ext)
	e.entries[ext].logged = unwritten
}

func (e *Engine) writeLog() {
	if len(e.toLog) == 0 {
		return
	}
	slices.Sort(e.waitLog)
	token := e.begin(work{kind: workLog, extents: e.waitLog})
	for _, ext := range e.waitLog {
		e.entries[ext].logged = token
	}
	e.do(Log{Token: token, Changes: mergeChanges(e.toLog)})
	e.toLog, e.waitLog = nil, nil
}

func (e *Engine) logDone(token uint64, w work) {
	for _, ext := range w.extents {
		en := e.entries[ext]
		if en == nil || en.logged != token {
			continue
		}
		en.logged = 0
		if en.phase == logging {
			e.granted(ext, en)
			continue
		}
		if e.m.State(ext)&dirtymap.Held != 0 {
			e.m.Change(ext, dirtymap.Closing, dirtymap.Logged)
		}
		e.kick(ext)
	}
}

// mergeChanges sorts changes of different extents and joins neighbours.
func mergeChanges(changes []Change) (merged []Change) {
	slices.SortFunc(changes, func(a, b Change) int {
		if a.Extents.First < b.Extents.First {
			return -1
		}
		return 1
	})
	for _, c := range changes {
		if n := len(merged); n > 0 && merged[n-1].Extents.End() == c.Extents.First && merged[n-1].State == c.State {
			merged[n-1].Extents.Count += c.Extents.Count
		} else {
			merged = append(merged, c)
		}
	}
	return merged
}
