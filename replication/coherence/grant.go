package coherence

import (
	"cmp"
	"errors"
	"slices"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/wire"
)

// ErrPeerRead ends a host command when the peer owns an extent and cannot read
// its replica.
var ErrPeerRead = errors.New("the peer, which has the newest data, cannot read its replica; see its log")

// ack and reply are answers that a step gathers.
type ack struct {
	id, ext uint64
	busy    bool
	turn    uint8
}

type reply struct {
	id   uint64
	item wire.FetchItem
}

// peerAsks takes a request of the peer's for an extent.
func (e *Engine) peerAsks(r request, id, ext uint64) bool {
	en := e.at(ext)
	state := e.m.State(ext)
	switch {
	case en.peer != none:
		e.violation("two requests at once for extent %d", ext)
		return false
	case r == mark && state&dirtymap.Held != 0:
		e.violation("MARK for extent %d, which is owned here", ext)
		return false
	case r == mark && en.pend == mark && e.cfg.Preferred && e.mut != noTieBreak:
		e.acks = append(e.acks, ack{id: id, ext: ext, busy: true})
		return true
	}
	en.peer, en.peerID, en.phase = r, id, aside
	e.kick(ext)
	return true
}

// servePeer begins to serve the peer's request if nothing of ours is in its way:
// a MARK under way (its answer decides who has the extent; but for the tie-break
// a MARK of the peer's goes ahead), a fetch being stored, a tenure being logged.
func (e *Engine) servePeer(ext uint64, en *entry) {
	if en.phase != aside || en.reply != nil || en.logged != 0 || en.pend == mark && en.peer != mark {
		return
	}
	state := e.m.State(ext)
	switch {
	case en.peer == mark:
		e.grant(ext, en)
	case state&dirtymap.Stale != 0:
		e.violation("FETCH for extent %d, which is not here", ext)
		en.peer, en.phase = none, idle
	case state&dirtymap.Held != 0:
		e.m.Change(ext, 0, dirtymap.Closing)
		en.phase = draining
		e.drained(ext)
	case en.peer == fetchOwn:
		en.data = wire.Blocks{Extent: ext}
		e.grant(ext, en)
	default:
		e.answer(en, wire.FetchItem{Outcome: wire.FetchedShared, Blocks: wire.Blocks{Extent: ext}})
	}
}

// drained: no local command is inside. What the peer lacks is collected.
func (e *Engine) drained(ext uint64) {
	if en := e.entries[ext]; en != nil && en.watch != nil && en.watch.draining && e.m.Users(ext) == 0 {
		e.judge(ext, en)
	}
	en := e.entries[ext]
	if en == nil || en.phase != draining || e.m.Users(ext) > 0 {
		return
	}
	en.phase = collecting
	blocks := e.m.Dirty(ext).Or(en.copyMask)
	if blocks.Empty() {
		if _, written := e.m.Touched(ext); !written {
			e.cfg.Predictor.TooWide(ext)
		}
		en.data = wire.Blocks{Extent: ext}
		e.handOver(ext, en)
		return
	}
	e.do(Collect{Token: e.begin(work{kind: workCollect, extents: []uint64{ext}}), Extent: ext, Blocks: blocks})
}

func (e *Engine) collected(ev Collected) {
	w, current := e.take(ev.Token, workCollect)
	if !current {
		return
	}
	ext := w.extents[0]
	en := e.entries[ext]
	if ev.Err != nil {
		e.do(Alarm{Text: "cannot read the replica for the peer: " + ev.Err.Error()})
		e.reopen(ext, en, wire.FetchItem{Outcome: wire.FetchedFailed, Blocks: wire.Blocks{Extent: ext}})
		return
	}
	en.data = ev.Blocks
	e.handOver(ext, en)
}

// handOver answers a FETCH with what was collected.
func (e *Engine) handOver(ext uint64, en *entry) {
	switch {
	case en.peer == fetchOwn:
		e.grant(ext, en)
	case e.busyWriting(ext, en):
		e.stats.Kept++
		e.reopen(ext, en, wire.FetchItem{Outcome: wire.FetchedKept, Blocks: en.data})
	default:
		e.share(ext, en)
		e.answer(en, wire.FetchItem{Outcome: wire.FetchedShared, Blocks: en.data})
		e.kick(ext)
	}
}

// busyWriting tells whether giving the extent up would cost a MARK at once.
func (e *Engine) busyWriting(ext uint64, en *entry) bool {
	if e.keep != nil {
		return e.keep(ext)
	}
	at, written := e.m.Touched(ext)
	return written && e.now-at <= 1 || writes(en)
}

// reopen answers a FETCH, and the tenure goes on.
func (e *Engine) reopen(ext uint64, en *entry, item wire.FetchItem) {
	e.m.Change(ext, dirtymap.Closing, 0)
	e.answer(en, item)
	e.kick(ext)
}

func (e *Engine) answer(en *entry, item wire.FetchItem) {
	e.replies = append(e.replies, reply{en.peerID, item})
	en.peer, en.phase, en.data = none, idle, wire.Blocks{}
}

// share ends a tenure: both replicas hold the same bytes, or will when the peer
// has our answer.
func (e *Engine) share(ext uint64, en *entry) {
	state := e.endTenure(ext, en)
	volatile := state & dirtymap.Volatile
	if state&dirtymap.Logged != 0 && e.mut != noVolatile {
		volatile = dirtymap.Volatile // something may have been written since the last flush
	}
	e.m.Set(ext, volatile.WithTurn(state.Turn()))
	e.relax(ext)
}

// endTenure forgets what is dirty, and a COPY under way.
func (e *Engine) endTenure(ext uint64, en *entry) dirtymap.State {
	state := e.m.State(ext)
	if state&dirtymap.Held != 0 {
		e.m.Disown(ext)
	}
	if en != nil {
		en.breakWatch(e.mut)
		e.stats.CopyingBlocks -= int64(en.copyMask.Count())
		en.copyJob, en.copyMask = 0, dirtymap.Mask{}
	}
	return state
}

// grant makes the extent the peer's, once what this replica holds of it is
// flushed. So the site that grants can always stand in for the one that is
// granted to, until that has flushed in its turn; without it, both operating
// systems going down could cost what a host had flushed.
func (e *Engine) grant(ext uint64, en *entry) {
	if e.m.State(ext)&dirtymap.Volatile != 0 {
		en.phase = cleaning
		e.cleaning++
		e.startFlush()
		return
	}
	state := e.endTenure(ext, en)
	next := dirtymap.Stale.WithTurn(e.turnFor(state.Turn()))
	e.m.Set(ext, next)
	en.phase = logging
	e.log(ext, next)
}

// turnFor is the turn after a grant to the peer. Odd turns are the preferred node's.
func (e *Engine) turnFor(turn uint8) uint8 {
	if e.mut == noTurns {
		return turn
	}
	return turnOf(turn, !e.cfg.Preferred)
}

// turnOf makes a turn the preferred node's, or the other's.
func turnOf(turn uint8, preferred bool) uint8 {
	if turn&1 == 1 != preferred {
		turn++
	}
	return turn & 3
}

// granted: the grant is durable and can be answered.
func (e *Engine) granted(ext uint64, en *entry) {
	turn := e.m.State(ext).Turn()
	if en.peer == mark {
		e.acks = append(e.acks, ack{id: en.peerID, ext: ext, turn: turn})
		en.peer, en.phase = none, idle
	} else {
		e.answer(en, wire.FetchItem{Outcome: wire.FetchedOwned, Turn: turn, Blocks: en.data})
	}
	e.kick(ext)
}

func (e *Engine) sendAcks() {
	if len(e.acks) == 0 {
		return
	}
	slices.SortFunc(e.acks, func(a, b ack) int { return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.ext, b.ext)) })
	for i := 0; i < len(e.acks); {
		m := &wire.MarkAck{ID: e.acks[i].id}
		for ; i < len(e.acks) && e.acks[i].id == m.ID && len(m.Grants) < maxList; i++ {
			a := e.acks[i]
			if n := len(m.Grants); n > 0 {
				g := &m.Grants[n-1]
				if g.Range.End() == a.ext && g.Busy == a.busy && g.Turn == a.turn {
					g.Range.Count++
					continue
				}
			}
			m.Grants = append(m.Grants, wire.Grant{Range: dirtymap.Range{First: a.ext, Count: 1}, Busy: a.busy, Turn: a.turn})
		}
		e.do(Send{m})
	}
	e.acks = e.acks[:0]
}

func (e *Engine) sendReplies() {
	for i := 0; i < len(e.replies); {
		m := &wire.FetchReply{ID: e.replies[i].id, Atomics: e.m.Atomics(), Floors: slices.Clone(e.txSeq)}
		for bytes := 0; i < len(e.replies) && e.replies[i].id == m.ID && bytes < maxReply && len(m.Items) < maxList; i++ {
			m.Items = append(m.Items, e.replies[i].item)
			bytes += len(e.replies[i].item.Data)
		}
		e.do(Send{m})
	}
	e.replies = nil
}

// maxReply is how many bytes of data a FETCH_REPLY has before another is begun:
// small enough that other messages are not held up for long.
const maxReply = 1 << 20
