package coherence

import (
	"slices"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/wire"
)

// Comparing an extent of both replicas while both serve. A watch is kept by a node where
// the extent is not STALE: there nothing can be written at the other site. Why a verdict
// is right is told in DESIGN.md.

// watch is a comparison that this node asked for, or makes for the peer.
type watch struct {
	id       uint64 // of our message
	op       uint64 // of the Verify event; for the peer: its message's
	peer     bool   // the peer asked, as the extent is STALE there
	away     bool   // the peer makes it, as the extent is STALE here
	broken   bool   // the extent has changed hands meanwhile
	failed   bool   // a replica cannot be read
	draining bool   // those inside leave, so that their writes are known
	copied   dirtymap.Mask
	here     []wire.Digest // nil: not there yet
	there    []wire.Digest
}

// maxPeerVerifies bounds what the peer may have asked for and was not answered: several
// times what package replication lets be under way.
const maxPeerVerifies = 4096

// verify compares an extent, or has the peer compare it.
func (e *Engine) verify(ext uint64, v *watch) {
	en := e.at(ext)
	stale := e.m.State(ext)&dirtymap.Stale != 0
	switch {
	case e.join.phase != joined, en.watch != nil, stale && v.peer:
		e.tellVerified(v, &wire.Verified{Extent: ext, Outcome: wire.VerifyBusy})
	case stale:
		v.away, en.watch = true, v
		e.askVerify(ext, v)
	case e.nothingToCompare(ext, en) && e.mut != compareDirty:
		e.tellVerified(v, &wire.Verified{Extent: ext, Outcome: wire.VerifyCompared, Owned: true, Skipped: e.geo.Full(ext)})
	default:
		v.copied, en.watch = en.copyMask, v
		e.askVerify(ext, v)
		e.do(Digest{Token: e.begin(work{kind: workDigest, extents: []uint64{ext}}), Extent: ext})
	}
	if en.atRest() {
		delete(e.entries, ext)
	}
}

// nothingToCompare: every block is to be copied anyway.
func (e *Engine) nothingToCompare(ext uint64, en *entry) bool {
	return e.m.State(ext)&dirtymap.Held != 0 && e.m.Dirty(ext).Or(en.copyMask) == e.geo.Full(ext)
}

func (e *Engine) askVerify(ext uint64, v *watch) {
	e.request++
	v.id = e.request
	e.later = append(e.later, &wire.Verify{ID: v.id, Extent: ext, Compare: v.away})
}

// tellVerified tells who asked.
func (e *Engine) tellVerified(v *watch, m *wire.Verified) {
	if v.peer {
		e.peerVerifying--
		m.ID = v.op
		e.later = append(e.later, m)
		return
	}
	e.do(Verified{
		Op: v.op, Extent: m.Extent, Outcome: m.Outcome, Differ: m.Differ, Skipped: m.Skipped,
		Here: m.Owned && !v.away || !m.Owned && e.cfg.Preferred,
	})
}

// sendLater sends what must not overtake the answers of this step: that the extent is
// SHARED here must be known there before the peer's digests are made.
func (e *Engine) sendLater() {
	for _, m := range e.later {
		e.do(Send{m})
	}
	e.later = nil
}

// peerVerifies answers the peer's Verify.
func (e *Engine) peerVerifies(m *wire.Verify) {
	en := e.entries[m.Extent]
	switch {
	case e.peerVerifying == maxPeerVerifies:
		e.violation("more than %d extents to verify", maxPeerVerifies)
	case m.Compare:
		e.peerVerifying++
		e.verify(m.Extent, &watch{op: m.ID, peer: true})
	case en != nil && en.reply != nil && e.mut != digestEarly:
		// What came with a FETCH_REPLY is not here yet.
		e.later = append(e.later, &wire.Verified{ID: m.ID, Extent: m.Extent, Outcome: wire.VerifyBusy})
	default:
		e.peerVerifying++
		e.do(Digest{Token: e.begin(work{kind: workPeerDigest, extents: []uint64{m.Extent}, id: m.ID}), Extent: m.Extent})
	}
}

func (e *Engine) digested(ev Digested) {
	w, current := e.take(ev.Token, workDigest, workPeerDigest)
	if !current {
		return
	}
	ext := w.extents[0]
	if w.kind == workPeerDigest {
		e.peerVerifying--
		m := &wire.Verified{ID: w.id, Extent: ext, Outcome: wire.VerifyDigests, Digests: ev.Digests}
		if ev.Err != nil {
			m.Outcome, m.Digests = wire.VerifyFailed, nil
		}
		e.later = append(e.later, m)
		return
	}
	en := e.entries[ext]
	if en.watch.here = ev.Digests; ev.Err != nil {
		en.watch.failed, en.watch.here = true, []wire.Digest{}
	}
	e.judge(ext, en)
}

// peerVerified takes the peer's answer.
func (e *Engine) peerVerified(m *wire.Verified) {
	ext, en := m.Extent, e.entries[m.Extent]
	switch {
	case en == nil || en.watch == nil || en.watch.id != m.ID || en.watch.there != nil:
		e.violation("VERIFIED for extent %d without a VERIFY", ext)
	case en.watch.away == (m.Outcome == wire.VerifyDigests) && m.Outcome >= wire.VerifyDigests:
		e.violation("VERIFY of extent %d answered with %d", ext, m.Outcome)
	case en.watch.away:
		e.endWatch(ext, en, m)
	default:
		v := en.watch
		v.there = append([]wire.Digest{}, m.Digests...)
		v.failed = v.failed || m.Outcome == wire.VerifyFailed
		v.broken = v.broken || m.Outcome == wire.VerifyBusy
		e.judge(ext, en)
	}
}

// judge gives the verdict when both have made their digests, and no write is inside of
// which the map does not know yet.
func (e *Engine) judge(ext uint64, en *entry) {
	v := en.watch
	m := &wire.Verified{Extent: ext, Outcome: wire.VerifyBusy}
	switch {
	case v.here == nil || v.there == nil:
		return
	case v.failed:
		m.Outcome = wire.VerifyFailed
	case v.broken:
	case !e.written(ext, v):
		return
	case len(v.here) != len(v.there):
		e.violation("%d digests of extent %d, which has %d blocks", len(v.there), ext, len(v.here))
		return
	default:
		e.compareDigests(ext, v, m)
	}
	e.endWatch(ext, en, m)
}

// written tells whether the map knows of every write that may have changed the extent
// before now; if not, those inside are waited for.
func (e *Engine) written(ext uint64, v *watch) bool {
	if e.m.State(ext)&dirtymap.Logged == 0 || e.m.Users(ext) == 0 || e.mut == verdictInWrite {
		return true
	}
	v.draining = true
	e.m.Change(ext, 0, dirtymap.Closing)
	return e.m.Users(ext) == 0
}

func (e *Engine) compareDigests(ext uint64, v *watch, m *wire.Verified) {
	m.Outcome = wire.VerifyCompared
	if e.m.State(ext)&dirtymap.Held != 0 {
		m.Owned = true
		m.Skipped = e.m.Dirty(ext)
		if e.mut != copiesUnseen {
			m.Skipped = m.Skipped.Or(v.copied)
		}
	}
	for b := range v.here {
		if v.here[b] != v.there[b] && !m.Skipped.Has(b) {
			m.Differ[b/64] |= 1 << (b % 64)
		}
	}
}

// endWatch ends a comparison.
func (e *Engine) endWatch(ext uint64, en *entry, m *wire.Verified) {
	v := en.watch
	en.watch = nil
	if v.draining && !en.phase.closed() {
		e.m.Change(ext, dirtymap.Closing, 0)
	}
	e.tellVerified(v, m)
	e.kick(ext)
}

// breakWatch: the extent changes hands.
func (en *entry) breakWatch(mut mutation) {
	if en.watch != nil && mut != watchUnbroken {
		en.watch.broken = true
	}
}

// closed tells whether a request of the peer's keeps an owned extent closed.
func (s serving) closed() bool { return slices.Contains([]serving{draining, collecting, cleaning}, s) }
