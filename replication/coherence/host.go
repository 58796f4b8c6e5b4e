package coherence

import (
	"cmp"
	"maps"
	"slices"

	"github.com/twinlun/twinlun/dirtymap"
)

func (e *Engine) want(ev Want) {
	if err := e.refusal(); err != nil {
		for ext := ev.Extents.First; ext < ev.Extents.End(); ext++ {
			e.do(Admit{Op: ev.Op, Extent: ext, Err: err})
		}
		return
	}
	e.ops[ev.Op] = op{extents: ev.Extents, left: ev.Extents.Count}
	for ext := ev.Extents.First; ext < ev.Extents.End(); ext++ {
		en := e.at(ext)
		en.waiters = append(en.waiters, waiter{op: ev.Op, write: ev.Write})
		e.kick(ext)
	}
}

func (e *Engine) cancel(id uint64) {
	e.cancelAs(id, nil)
	e.syncs = slices.DeleteFunc(e.syncs, func(s uint64) bool { return s == id })
	e.flush.syncs = slices.DeleteFunc(e.flush.syncs, func(s uint64) bool { return s == id })
}

// cancelAs takes a command out of all it waits for; with err it is told.
func (e *Engine) cancelAs(id uint64, err error) {
	o, ok := e.ops[id]
	if !ok {
		return
	}
	delete(e.ops, id)
	for ext := o.extents.First; ext < o.extents.End(); ext++ {
		en := e.entries[ext]
		if en == nil {
			continue
		}
		en.waiters = slices.DeleteFunc(en.waiters, func(w waiter) bool {
			if w.op == id && err != nil {
				e.do(Admit{Op: id, Extent: ext, Err: err})
			}
			return w.op == id
		})
		e.kick(ext)
	}
}

// admit lets in those that wait for the extent and whose access its state allows.
func (e *Engine) admit(ext uint64, en *entry) {
	state := e.m.State(ext)
	en.waiters = slices.DeleteFunc(en.waiters, func(w waiter) bool {
		if !state.Allows(w.write) || !e.m.Pin(ext) {
			return false
		}
		e.letIn(Admit{Op: w.op, Extent: ext})
		return true
	})
}

// letIn gives one of an operation's extents to it, and begins for it.
func (e *Engine) letIn(a Admit) {
	if !e.m.Begin() {
		panic("coherence: a command is let in while the gate is shut")
	}
	e.served(a)
}

// served ends the wait of an operation for one extent.
func (e *Engine) served(a Admit) {
	e.do(a)
	o := e.ops[a.Op]
	if o.left--; o.left == 0 {
		delete(e.ops, a.Op)
	} else {
		e.ops[a.Op] = o
	}
}

// ask sends a request to the peer for those that still wait.
func (e *Engine) ask(ext uint64, en *entry) {
	if len(en.waiters) == 0 || en.pend != none || en.peer != none || en.logged != 0 {
		return
	}
	writes := writes(en)
	switch s := e.m.State(ext); {
	case s&dirtymap.Stale != 0 && e.fetching >= e.fetchWindow():
		if !en.hungry {
			en.hungry = true
			e.hungry = append(e.hungry, ext)
		}
	case s&dirtymap.Stale != 0:
		e.fetching++
		en.pend = fetchRead
		if writes {
			en.pend = fetchOwn
		}
		for i := range en.waiters {
			en.waiters[i].asked = true
		}
		e.toFetch[en.pend-fetchRead] = append(e.toFetch[en.pend-fetchRead], ext)
	case s.Shared() && writes:
		en.pend = mark
		e.toMark = append(e.toMark, ext)
	}
	// Else the extent is crowded (Pin refused); the next tick tries again.
}

func (e *Engine) tick(now uint32) {
	e.now = now
	e.m.Tick(now)
	if !e.working() {
		return
	}
	for _, ext := range sortedKeys(e.entries) {
		en := e.entries[ext]
		if e.pastFloors(en) {
			en.floors = nil
		}
		e.kick(ext)
	}
	if s := now / TicksPerSecond; s != e.second && len(e.relaxed) > 0 {
		e.second = s
		e.startFlush()
	}
	if e.join.phase == joined {
		e.giveBackCold()
	}
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// rangesOf joins ascending extents to ranges.
func rangesOf(extents []uint64) (ranges []dirtymap.Range) {
	for _, ext := range extents {
		if n := len(ranges); n > 0 && ranges[n-1].End() == ext {
			ranges[n-1].Count++
		} else {
			ranges = append(ranges, dirtymap.Range{First: ext, Count: 1})
		}
	}
	return ranges
}
