package coherence

import (
	"fmt"
	"slices"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/wire"
)

// copyID names a COPY on its way.
type copyID struct {
	stream int
	seq    uint64
}

// copyTries bounds how many extents one CopyRoom looks at; busy ones are passed.
const copyTries = 256

// copyRoom picks dirty blocks for a COPY, in ascending order from where the last
// one ended. What it takes is not dirty any more, but belongs to the COPY until
// that is acknowledged; a block that is written again meanwhile is dirty again.
func (e *Engine) copyRoom(stream, room int) {
	if e.join.phase != joined || stream >= len(e.txSeq) || e.m.DirtyBlocks() == 0 || e.now < e.copyPause {
		return
	}
	if e.copySingly > 0 {
		e.copySingly--
		room = 1
	}
	var items []wire.Blocks
	token := e.token + 1
	from, wrapped := e.copyFrom, false
	for tries := 0; room > 0 && tries < copyTries; tries++ {
		ext, ok := e.m.NextDirty(from)
		if !ok {
			if wrapped || len(items) > 0 {
				from = 0
				break
			}
			from, wrapped = 0, true
			continue
		}
		from = ext + 1
		if blocks := e.takeForCopy(ext, token); !blocks.Empty() {
			items = append(items, wire.Blocks{Extent: ext, Present: blocks})
			room -= blocks.Count()
		}
	}
	e.copyFrom = from
	if len(items) > 0 {
		w := work{kind: workCopyRead, stream: stream}
		for _, item := range items {
			w.extents = append(w.extents, item.Extent)
		}
		e.do(ReadCopy{Token: e.begin(w), Stream: stream, Items: items})
	}
}

// takeForCopy takes the extent's dirty blocks, unless a COPY or a request is
// under way for it.
func (e *Engine) takeForCopy(ext, token uint64) (blocks dirtymap.Mask) {
	if e.m.State(ext)&(dirtymap.Held|dirtymap.Closing) != dirtymap.Held {
		return blocks
	}
	if en := e.entries[ext]; en != nil && (en.copyJob != 0 || en.peer != none) {
		return blocks
	}
	if blocks = e.m.TakeDirty(ext); !blocks.Empty() {
		en := e.at(ext)
		en.copyJob, en.copyMask = token, blocks
		if en.watch != nil {
			en.watch.copied = en.watch.copied.Or(blocks)
		}
		e.stats.CopyingBlocks += int64(blocks.Count())
	}
	return blocks
}

// copyRead: the blocks are there. Extents whose tenure has ended since are left
// out; the others are sent, and numbered, now.
func (e *Engine) copyRead(ev CopyRead) {
	w, current := e.take(ev.Token, workCopyRead)
	if !current {
		e.do(CopyEnded{Token: ev.Token})
		return
	}
	if ev.Err != nil {
		e.copyFailed(w, ev.Err)
		e.endCopy(ev.Token, w.extents, false)
		return
	}
	items := slices.DeleteFunc(ev.Items, func(b wire.Blocks) bool { return !e.copying(b.Extent, ev.Token) })
	if len(items) == 0 {
		e.endCopy(ev.Token, nil, false)
		return
	}
	e.txSeq[w.stream]++
	w.kind, w.seq = workCopySent, e.txSeq[w.stream]
	e.work[ev.Token] = w
	e.jobs[copyID{w.stream, w.seq}] = ev.Token
	e.do(SendBulk{Stream: w.stream, Msg: &wire.Copy{Seq: w.seq, Atomics: e.m.Atomics(), Items: items}})
}

// copyFailed: the replica cannot be read. Its extents are tried one by one, so that
// the others are copied; when one alone fails, there is a pause.
func (e *Engine) copyFailed(w work, err error) {
	e.copySingly = len(w.extents)
	if len(w.extents) == 1 {
		e.copyPause = e.now + copyPauseTicks
		e.do(Alarm{Text: fmt.Sprintf("cannot read the replica to copy extent %d: %v", w.extents[0], err)})
	}
}

// copyPauseTicks is how long copying pauses after an extent that cannot be read.
const copyPauseTicks = 2 * TicksPerSecond

// copying tells whether a COPY still speaks for the extent: it is of the present
// tenure.
func (e *Engine) copying(ext, token uint64) bool {
	en := e.entries[ext]
	return en != nil && en.copyJob == token
}

// endCopy lets go of a COPY's extents; what was not confirmed is dirty again.
func (e *Engine) endCopy(token uint64, extents []uint64, confirmed bool) {
	for _, ext := range extents {
		if !e.copying(ext, token) {
			continue
		}
		en := e.entries[ext]
		n := en.copyMask.Count()
		e.stats.CopyingBlocks -= int64(n)
		if confirmed {
			e.stats.CopiedBlocks += uint64(n)
		} else {
			e.m.SetDirty(ext, en.copyMask)
		}
		en.copyJob, en.copyMask = 0, dirtymap.Mask{}
		e.kick(ext)
	}
	e.do(CopyEnded{Token: token})
}

func (e *Engine) copyAck(stream int, m *wire.CopyAck) {
	id := copyID{stream, m.Seq}
	token, ok := e.jobs[id]
	if !ok {
		e.violation("COPY_ACK %d on stream %d without a COPY", m.Seq, stream)
		return
	}
	delete(e.jobs, id)
	if w, current := e.take(token, workCopySent); current {
		e.stats.Copies++
		e.endCopy(token, w.extents, true)
	}
}

// copyIn: a COPY of the peer's. Only what is STALE here and newer than the last
// FETCH_REPLY for its extent is stored; it is acknowledged when that is durable.
func (e *Engine) copyIn(stream int, m *wire.Copy) {
	if m.Seq != e.rxSeq[stream]+1 {
		e.violation("COPY %d on stream %d after %d", m.Seq, stream, e.rxSeq[stream])
		return
	}
	e.rxSeq[stream] = m.Seq
	e.mix(m.Atomics)
	w := work{kind: workCopyStore, stream: stream, seq: m.Seq}
	items := slices.DeleteFunc(slices.Clone(m.Items), func(b wire.Blocks) bool { return !e.accepts(b.Extent, stream, m.Seq) })
	if len(items) == 0 {
		e.do(SendBulk{Stream: stream, Msg: &wire.CopyAck{Seq: m.Seq}})
		return
	}
	for _, item := range items {
		e.at(item.Extent).copies++
		w.extents = append(w.extents, item.Extent)
	}
	e.do(StoreCopy{Token: e.begin(w), Items: items})
}

func (e *Engine) accepts(ext uint64, stream int, seq uint64) bool {
	if e.m.State(ext)&dirtymap.Stale == 0 {
		return false
	}
	en := e.entries[ext]
	return en == nil || en.reply == nil && (en.floors == nil || seq > en.floors[stream])
}

// copyStored: a COPY of the peer's is written; a fetched reply may have waited
// for it.
func (e *Engine) copyStored(token uint64, err error) {
	w, current := e.take(token, workCopyStore, workCopyFlush)
	if err != nil {
		e.fail(fmt.Errorf("%s: %w", w.kind, err))
		return
	}
	if current {
		for _, ext := range w.extents {
			en := e.entries[ext]
			en.copies--
			if en.reply != nil {
				e.storeReply(ext, en)
			}
			e.kick(ext)
		}
	}
	w.kind = workCopyFlush
	e.work[token] = w
	e.tryJoin()
}

func (e *Engine) copyDurable(token uint64) {
	if w, current := e.take(token, workCopyFlush); current {
		e.do(SendBulk{Stream: w.stream, Msg: &wire.CopyAck{Seq: w.seq}})
	}
}

// coldPerTick bounds how many owned extents a tick looks at: 4 GiB of 64 KiB
// extents a second.
const coldPerTick = 8192

// giveBackCold gives ownership of clean extents back that nobody has written for
// a while, so that they cost nothing after a crash.
func (e *Engine) giveBackCold() {
	for range coldPerTick {
		ext, ok := e.m.NextOwned(e.coldFrom)
		if !ok {
			e.coldFrom = 0
			return
		}
		e.coldFrom = ext + 1
		if at, _ := e.m.Touched(ext); e.now-at >= e.cfg.ColdAfter {
			e.giveBackOne(ext)
		}
	}
}

func (e *Engine) giveBack(r dirtymap.Range) {
	if e.join.phase != joined {
		return
	}
	for ext := r.First; ext < r.End(); ext++ {
		e.giveBackOne(ext)
	}
}

// giveBackOne ends a tenure if the peer has everything of it and nobody is
// inside. A command that Enter refuses meanwhile says Want, and is let in then. What is
// dirty is only looked at: that may be the whole LUN after a join, which takes no memory as
// long as nobody changes its map.
func (e *Engine) giveBackOne(ext uint64) {
	if e.m.State(ext)&dirtymap.Held == 0 || e.entries[ext] != nil || !e.m.Dirty(ext).Empty() {
		return
	}
	e.m.Change(ext, 0, dirtymap.Closing)
	if e.m.Users(ext) > 0 || !e.m.Dirty(ext).Empty() {
		e.m.Change(ext, dirtymap.Closing, 0)
		return
	}
	e.share(ext, nil)
	e.clears = append(e.clears, ext)
	e.stats.Clears++
}

func (e *Engine) sendClears() {
	if len(e.clears) == 0 {
		return
	}
	slices.Sort(e.clears)
	for ranges := range slices.Chunk(rangesOf(e.clears), maxList) {
		e.do(Send{&wire.Clear{Ranges: ranges}})
	}
	e.clears = e.clears[:0]
}
