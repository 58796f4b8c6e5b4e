package coherence

import (
	"slices"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/wire"
)

// received applies a control message after checking that it is in place.
func (e *Engine) received(m wire.Message) {
	if e.join.phase <= alone && e.join.warm == 0 {
		return // refused; the peer may not know yet
	}
	switch m := m.(type) {
	case *wire.JoinRefuse:
		if m.Reason != wire.ReasonAbsent && m.Reason != wire.ReasonForced {
			e.do(Alarm{Text: "the peer does not join: " + m.Reason})
		}
		e.disconnected()
	case *wire.JoinHello:
		if e.join.peer == nil {
			e.join.peer = m
			e.hurry(m)
			e.greet()
		}
	case *wire.JoinPrepared:
		if e.joinIs(m.Join) {
			e.join.ready = true
			e.maybeCommit()
		}
	case *wire.JoinDone:
		if e.joinIs(m.Join) {
			e.join.finished = true
			e.serve()
		}
	default:
		if e.join.phase == joined && e.inPlace(m) {
			e.requested(m)
		}
	}
}

// joinIs checks that the peer speaks of the join that is under way.
func (e *Engine) joinIs(number uint64) bool {
	if e.join.outcome == nil || number != e.join.outcome.Join {
		e.violation("join %d, which is not under way", number)
		return false
	}
	return true
}

func (e *Engine) requested(m wire.Message) {
	switch m := m.(type) {
	case *wire.Mark:
		e.peerAsksAll(mark, m.ID, m.Ranges)
	case *wire.MarkAck:
		e.markAck(m)
	case *wire.Fetch:
		r := fetchRead
		if m.Own {
			r = fetchOwn
		}
		e.peerAsksAll(r, m.ID, m.Ranges)
	case *wire.FetchReply:
		e.fetchReply(m)
	case *wire.Clear:
		e.clear(m)
	case *wire.Verify:
		e.peerVerifies(m)
	case *wire.Verified:
		e.peerVerified(m)
	}
}

func (e *Engine) peerAsksAll(r request, id uint64, ranges []dirtymap.Range) {
	for _, run := range ranges {
		for ext := run.First; ext < run.End(); ext++ {
			if !e.peerAsks(r, id, ext) {
				return
			}
		}
	}
}

// receivedBulk applies a message of a bulk stream. The peer's first COPY may
// overtake its JOIN_DONE, which is on the control stream.
func (e *Engine) receivedBulk(stream int, m wire.Message) {
	if e.join.phase < done || stream >= len(e.rxSeq) || !e.inPlace(m) {
		return
	}
	switch m := m.(type) {
	case *wire.Copy:
		e.copyIn(stream, m)
	case *wire.CopyAck:
		e.copyAck(stream, m)
	}
}

// inPlace checks what the codec cannot: that extents, blocks and streams exist.
func (e *Engine) inPlace(m wire.Message) bool {
	ok := true
	switch m := m.(type) {
	case *wire.Mark:
		ok = e.rangesExist(m.Ranges)
	case *wire.Fetch:
		ok = e.rangesExist(m.Ranges)
	case *wire.Clear:
		ok = e.rangesExist(m.Ranges)
	case *wire.Verify:
		ok = m.Extent < e.geo.Extents()
	case *wire.Verified:
		ok = m.Extent < e.geo.Extents() && m.Differ.Or(m.Skipped).Minus(e.geo.Full(m.Extent)).Empty()
	case *wire.MarkAck:
		ok = !slices.ContainsFunc(m.Grants, func(g wire.Grant) bool { return g.Range.End() > e.geo.Extents() })
	case *wire.FetchReply:
		ok = len(m.Floors) == len(e.txSeq) &&
			!slices.ContainsFunc(m.Items, func(i wire.FetchItem) bool { return !e.blocksExist(i.Blocks) })
	case *wire.Copy:
		ok = !slices.ContainsFunc(m.Items, func(b wire.Blocks) bool { return !e.blocksExist(b) })
	}
	if !ok {
		e.violation("%T beyond the LUN's end", m)
	}
	return ok
}

func (e *Engine) rangesExist(ranges []dirtymap.Range) bool {
	return !slices.ContainsFunc(ranges, func(r dirtymap.Range) bool {
		return r.End() > e.geo.Extents() || r.End() < r.First
	})
}

func (e *Engine) blocksExist(b wire.Blocks) bool {
	return b.Extent < e.geo.Extents() && b.Present.Minus(e.geo.Full(b.Extent)).Empty()
}
