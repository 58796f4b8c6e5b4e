package coherence

import (
	"slices"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/wire"
)

// sendMarks asks for what this step needs marked, and for what the predictor
// expects to be written next.
func (e *Engine) sendMarks() {
	if len(e.toMark) == 0 {
		return
	}
	slices.Sort(e.toMark)
	var all []uint64
	for _, r := range rangesOf(e.toMark) {
		window := e.cfg.Predictor.Window(r)
		for ext := window.First; ext < window.End(); ext++ {
			if r.Has(ext) || e.markable(ext) {
				e.at(ext).pend = mark
				all = append(all, ext)
			}
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	for ranges := range slices.Chunk(rangesOf(all), maxList) {
		e.request++
		e.do(Send{&wire.Mark{ID: e.request, Ranges: ranges}})
		e.stats.Marks++
	}
	e.stats.MarkExtents += uint64(len(all))
	e.toMark = e.toMark[:0]
}

// maxList is how many ranges or items a message has at most.
const maxList = 4096

// fetchBytes bounds the data that FETCHes under way may bring: enough for a long
// line (50 ms at 5 Gbit/s), little beside what the link's queues hold.
const fetchBytes = 32 << 20

// fetchWindow is how many extents may be fetched at once.
func (e *Engine) fetchWindow() int { return int(fetchBytes / e.geo.ExtentSize) }

// fetchEnded: an answer has come, and leaves room for others.
func (e *Engine) fetchEnded(en *entry) {
	en.pend = none
	e.fetching--
	for len(e.hungry) > 0 && e.fetching < e.fetchWindow() {
		ext := e.hungry[0]
		e.hungry = e.hungry[1:]
		if next := e.entries[ext]; next != nil && next.hungry {
			next.hungry = false
			e.kick(ext)
		}
	}
}

// markable tells whether an extent that nobody waits for can go into a MARK.
func (e *Engine) markable(ext uint64) bool {
	if !e.m.State(ext).Shared() {
		return false
	}
	en := e.entries[ext]
	return en == nil || en.pend == none && en.peer == none && en.logged == 0
}

func (e *Engine) sendFetches() {
	for mode, extents := range e.toFetch {
		if len(extents) == 0 {
			continue
		}
		slices.Sort(extents)
		for ranges := range slices.Chunk(rangesOf(extents), maxList) {
			e.request++
			e.do(Send{&wire.Fetch{ID: e.request, Own: mode == 1, Ranges: ranges}})
			e.stats.Fetches++
		}
		e.stats.FetchExtents += uint64(len(extents))
		e.toFetch[mode] = nil
	}
}

// markAck: the peer has put extents into its record, or is marking them itself.
func (e *Engine) markAck(m *wire.MarkAck) {
	for _, g := range m.Grants {
		for ext := g.Range.First; ext < g.Range.End(); ext++ {
			en := e.entries[ext]
			if en == nil || en.pend != mark {
				e.violation("MARK_ACK for extent %d without a MARK", ext)
				return
			}
			if !g.Busy && !e.m.State(ext).Shared() {
				e.violation("MARK of extent %d granted while it is %v", ext, e.m.State(ext))
				return
			}
			en.pend = none
			if !g.Busy {
				e.own(ext, en, g.Turn)
			}
			e.kick(ext)
		}
	}
}

// own begins a tenure: the extent is OWNED, and writes may enter when that is
// logged.
func (e *Engine) own(ext uint64, en *entry, turn uint8) {
	en.breakWatch(e.mut)
	e.m.Own(ext)
	keep := e.m.State(ext) & dirtymap.Volatile
	state := (dirtymap.Held | keep).WithTurn(turn)
	e.m.Set(ext, state)
	e.log(ext, state)
}

// fetchReply: the owner's answer to a FETCH.
func (e *Engine) fetchReply(m *wire.FetchReply) {
	e.mix(m.Atomics)
	for i := range m.Items {
		item := &m.Items[i]
		ext := item.Extent
		en := e.entries[ext]
		if en == nil || en.reply != nil || en.pend != fetchRead && en.pend != fetchOwn {
			e.violation("FETCH_REPLY for extent %d without a FETCH", ext)
			return
		}
		switch item.Outcome {
		case wire.FetchedFailed:
			e.fetchFailed(ext, en)
		case wire.FetchedKept:
			e.fetchKept(ext, en, item)
		default:
			if (item.Outcome == wire.FetchedOwned) != (en.pend == fetchOwn) {
				e.violation("FETCH of extent %d answered with %d", ext, item.Outcome)
				return
			}
			en.reply = item
			en.floors = slices.Clone(m.Floors)
			if e.mut == noFloor {
				en.floors = nil
			}
			e.storeReply(ext, en)
		}
	}
}

// mix is done before data of the peer's is stored or handed out that may be of an
// atomic write which has begun since the last time: commands here may have read what
// some of its blocks were before it (dirtymap.Map.Mixings). What is stored in the same
// moment can be the first that is heard of the write, for its data comes with its
// number.
func (e *Engine) mix(atomics uint64) {
	if atomics != e.mixed {
		e.mixed = atomics
		e.m.Mix()
	}
}

// fetchKept: the owner goes on writing. Its data is as new as the FETCH, so it
// answers only those who waited when that was sent.
func (e *Engine) fetchKept(ext uint64, en *entry, item *wire.FetchItem) {
	e.fetchEnded(en)
	en.waiters = slices.DeleteFunc(en.waiters, func(w waiter) bool {
		if w.write || !w.asked && e.mut != keepForLater {
			return false
		}
		e.letIn(Admit{Op: w.op, Extent: ext, Kept: &item.Blocks})
		return true
	})
	e.kick(ext)
}

// fetchFailed: the owner could not read its replica.
func (e *Engine) fetchFailed(ext uint64, en *entry) {
	e.fetchEnded(en)
	en.waiters = slices.DeleteFunc(en.waiters, func(w waiter) bool {
		if w.asked {
			e.served(Admit{Op: w.op, Extent: ext, Err: ErrPeerRead})
		}
		return w.asked
	})
	e.kick(ext)
}

// storeReply stores fetched blocks as soon as no older COPY is being written.
func (e *Engine) storeReply(ext uint64, en *entry) {
	switch {
	case en.storing || en.copies > 0:
	case en.reply.Present.Empty():
		e.applyReply(ext, en, false)
	default:
		en.storing = true
		a := Store{Token: e.begin(work{kind: workStore, extents: []uint64{ext}}), Items: []wire.Blocks{en.reply.Blocks}}
		if len(en.waiters) > 0 {
			a.For = en.waiters[0].op
		}
		e.do(a)
	}
}

func (e *Engine) fetchStored(extents []uint64) {
	for _, ext := range extents {
		en := e.entries[ext]
		en.storing = false
		e.applyReply(ext, en, true)
	}
}

// applyReply: the extent is as new here as at the owner.
func (e *Engine) applyReply(ext uint64, en *entry, stored bool) {
	item := en.reply
	en.reply = nil
	e.fetchEnded(en)
	state := e.m.State(ext) &^ dirtymap.Stale
	if stored && e.mut != noVolatile {
		state |= dirtymap.Volatile
	}
	e.m.Set(ext, state)
	e.relax(ext)
	if item.Outcome == wire.FetchedOwned {
		e.own(ext, en, item.Turn)
	}
	if e.pastFloors(en) {
		en.floors = nil
	}
	e.kick(ext)
}

// clear: the peer has given extents back; both replicas hold the same bytes.
func (e *Engine) clear(m *wire.Clear) {
	for _, r := range m.Ranges {
		for ext := r.First; ext < r.End(); ext++ {
			if e.m.State(ext)&dirtymap.Stale == 0 {
				continue
			}
			e.m.Change(ext, dirtymap.Stale, 0)
			e.relax(ext)
			e.kick(ext)
		}
	}
}

// pastFloors tells whether every COPY up to the floors has come by.
func (e *Engine) pastFloors(en *entry) bool {
	for s, floor := range en.floors {
		if e.rxSeq[s] < floor {
			return false
		}
	}
	return true
}
