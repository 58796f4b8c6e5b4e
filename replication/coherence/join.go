package coherence

import (
	"fmt"
	"slices"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/wire"
)

// A join takes these steps at each node, in parallel with the other one:
//
//	quiescing  the gate is shut; host commands, stores and log entries end
//	flushing   the replica is flushed, then JOIN_HELLO goes out
//	greeting   until the peer's JOIN_HELLO is here and fits
//	settling   a join that the peer has committed, and we only prepared, takes effect
//	comparing  planes go both ways; every extent is resolved
//	salvaging  what this replica loses for good is copied
//	preparing  the outcome is made durable, not in effect; then JOIN_PREPARED
//	prepared   until the peer has prepared too
//	committing the outcome takes effect, durably; then JOIN_DONE
//	done       until the peer's JOIN_DONE is here
//	joined     host commands are served
//
// Without the peer a replica is down, or serves alone by the word of the cluster:
//
//	parting    what was under way for the peer ends
//	entering   it is made durable that the replica serves alone
//	alone      host commands are served, also while a flush runs when the link is up
//
// An outcome takes effect at one node only when it is durable at both. So when the
// link or a node fails in the middle, the next join finds either that nobody has
// committed, and starts over, or that one has, and the other one follows first.
type phase uint8

const (
	down phase = iota
	parting
	entering
	alone
	quiescing
	flushing
	greeting
	settling
	comparing
	salvaging
	preparing
	prepared
	committing
	done
	joined
)

// join is the state of joining with the peer.
type join struct {
	phase     phase
	restarted bool // this process has not joined yet

	streams int    // of the link
	warm    uint64 // token of the flush for which quiescing waits while hosts are served; 0: none

	token    uint64 // of the action that the phase waits for
	term     uint64 // that is being made durable as one of serving alone
	least    uint64 // as this node's greeting has it
	peer     *wire.JoinHello
	early    []PeerStates // that came while we were settling
	next     uint64       // the first extent not resolved yet
	unlogged []uint64     // extents from there on that the outcome must name: the log has another state than the map
	outcome  *Outcome
	full     []dirtymap.Range // extents of outcome whose blocks are all dirty
	gone     uint64           // extents whose newest data the peer had, and has lost
	salvage  salvage
	ready    bool // the peer has prepared
	finished bool // the peer has committed
}

// connected begins to join. Hosts that are served alone are kept waiting through the join,
// and for the flush in it. So what they have written is flushed first, and they are served
// meanwhile: little is left for the one that counts.
func (e *Engine) connected(streams int) {
	e.join.streams = streams
	if e.join.phase == alone {
		e.join.warm = e.begin(work{kind: workWarm})
		e.do(Flush{Token: e.join.warm})
		return
	}
	e.quiesce()
}

func (e *Engine) quiesce() {
	e.join.warm = 0
	if e.fault != nil {
		e.refuse("the replica failed: " + e.fault.Error())
		return
	}
	if e.role.Forced && e.mut != joinsForced {
		e.do(Send{&wire.JoinRefuse{Reason: wire.ReasonForced}})
		return
	}
	e.setGate(false)
	e.link++
	e.txSeq, e.rxSeq, e.mixed = make([]uint64, e.join.streams), make([]uint64, e.join.streams), 0
	e.join = join{phase: quiescing, restarted: e.join.restarted, peer: e.join.peer}
	if e.relaxing > 0 { // do not wait until the lazy ones are due
		e.relaxing++
		e.do(Log{Token: e.begin(work{kind: workRelax})})
	}
	e.tryJoin()
}

// disconnected: host commands wait from now on. What was asked and not answered
// is forgotten; the next join finds out what became of it.
func (e *Engine) disconnected() {
	e.setGate(false)
	e.link++
	e.join = join{restarted: e.join.restarted}
	clear(e.jobs)
	for _, token := range sortedKeys(e.work) {
		if e.work[token].kind == workCopySent {
			delete(e.work, token)
			e.do(CopyEnded{Token: token})
		}
	}
	for _, ext := range sortedKeys(e.entries) {
		e.forget(ext, e.entries[ext])
		e.kick(ext)
	}
	e.acks, e.replies, e.clears, e.toMark, e.later = nil, nil, nil, nil, nil
	e.peerVerifying = 0
	e.toFetch = [2][]uint64{}
	e.cleaning, e.fetching, e.hungry = 0, 0, nil
	e.regate()
}

// forget takes off an entry what belongs to the connection.
func (e *Engine) forget(ext uint64, en *entry) {
	en.pend, en.reply, en.storing, en.hungry = none, nil, false, false
	if en.phase.closed() || en.watch != nil && en.watch.draining {
		e.m.Change(ext, dirtymap.Closing, 0)
	}
	en.peer, en.phase, en.data = none, idle, wire.Blocks{}
	if v := en.watch; v != nil {
		en.watch = nil
		e.tellVerified(v, &wire.Verified{Extent: ext, Outcome: wire.VerifyBusy})
	}
	en.copies, en.floors = 0, nil
	if en.copyJob != 0 {
		e.m.SetDirty(ext, en.copyMask)
		e.stats.CopyingBlocks -= int64(en.copyMask.Count())
		en.copyJob, en.copyMask = 0, dirtymap.Mask{}
	}
	for i := range en.waiters {
		en.waiters[i].asked = false
	}
}

// tryJoin goes on with a join when nothing changes the replica or the log any more.
func (e *Engine) tryJoin() {
	e.tryAlone()
	if e.join.phase != quiescing || !e.m.Quiet() {
		return
	}
	for _, w := range e.work {
		if w.holdsJoin() {
			return
		}
	}
	e.join.phase = flushing
	e.join.token = e.begin(work{kind: workJoin})
	e.do(Flush{Token: e.join.token})
}

// joinStep: the action that the phase waits for has ended.
func (e *Engine) joinStep(token uint64) {
	if token != e.join.token {
		return
	}
	switch e.join.phase {
	case flushing:
		e.join.phase = greeting
		e.join.least = e.role.Least
		e.do(Send{e.hello()})
		e.greet()
	case entering:
		e.entered()
	case salvaging:
		e.prepare()
	case preparing:
		e.join.phase = prepared
		e.cfg.Prepared = e.join.outcome
		e.do(Send{&wire.JoinPrepared{Join: e.cfg.Prepared.Join}})
		e.maybeCommit()
	}
}

// compare sends the planes, and resolves those of the peer that are here.
func (e *Engine) compare() {
	e.join.phase = comparing
	e.join.outcome = &Outcome{
		Join:      max(e.cfg.Committed, e.join.peer.Committed, e.join.least, e.join.peer.Least) + 1,
		RoleState: RoleState{History: e.history(), Term: e.role.Term, ID: e.role.ID},
	}
	e.join.unlogged = sortedKeys(e.relaxed)
	e.do(SendPlanes{})
	early := e.join.early
	e.join.early = nil
	for _, p := range early {
		e.peerStates(p)
	}
}

// peerStates resolves the next extents.
func (e *Engine) peerStates(ev PeerStates) {
	j := &e.join
	if j.phase == greeting || j.phase == settling {
		j.early = append(j.early, PeerStates{ev.Extents, slices.Clone(ev.States)})
		return
	}
	if j.phase != comparing {
		return
	}
	if ev.Extents.First != j.next || ev.Extents.End() > e.geo.Extents() {
		e.violation("planes from extent %d where %d is next", ev.Extents.First, j.next)
		return
	}
	mine, theirs := e.sides()
	quick := len(j.unlogged) == 0 && !mine.fresh && !theirs.fresh
	for run, s := range ev.runs {
		if quick && run.Count == 1 && s.WithTurn(0) == 0 && s == e.m.State(run.First) {
			continue // in sync, as nearly all are whose neighbours differ
		}
		if err := e.resolveRun(run, s, mine, theirs); err != nil {
			e.refuse(err.Error())
			return
		}
	}
	if j.next = ev.Extents.End(); j.next == e.geo.Extents() {
		e.resolved()
	}
}

// runs yields neighbours with the same state.
func (p PeerStates) runs(yield func(dirtymap.Range, dirtymap.State) bool) {
	if uint64(len(p.States)) != p.Extents.Count {
		yield(p.Extents, p.States[0])
		return
	}
	for i := 0; i < len(p.States); {
		n := 1
		for i+n < len(p.States) && p.States[i+n] == p.States[i] {
			n++
		}
		if !yield(dirtymap.Range{First: p.Extents.First + uint64(i), Count: uint64(n)}, p.States[i]) {
			return
		}
		i += n
	}
}

// sides tells what matters of the replicas. A peer whose prepared join is in effect
// here has, by the time it compares, settled it: its greeting is read like that.
func (e *Engine) sides() (mine, theirs side) {
	var zero [16]byte
	p := e.join.peer
	settled := p.Prepared != 0 && p.Prepared == e.cfg.Committed
	mine = side{e.cfg.History == zero, e.cfg.Blank, e.cfg.Crashed, e.join.restarted, e.aloneTerm, e.fork}
	theirs = side{p.History == zero && !settled, p.Blank, p.Crashed, p.Restarted, p.AloneTerm, p.Fork}
	if e.mut == olderTerm {
		mine.aloneTerm, theirs.aloneTerm = theirs.aloneTerm, mine.aloneTerm
	}
	return mine, theirs
}

// resolveRun adds extents that have one state at the peer to the outcome: those together
// that have one state here, too.
func (e *Engine) resolveRun(r dirtymap.Range, theirs dirtymap.State, ms, ts side) error {
	for run, mine := range e.m.Runs(r, dirtymap.Durable) {
		for run.Count > 0 {
			part, unlogged := e.nextUnlogged(run)
			if err := e.resolvePart(part, unlogged, mine, theirs, ms, ts); err != nil {
				return err
			}
			run = dirtymap.Range{First: part.End(), Count: run.Count - part.Count}
		}
	}
	return nil
}

// nextUnlogged is the front part of a run: one extent that is unlogged, or those before it.
func (e *Engine) nextUnlogged(run dirtymap.Range) (part dirtymap.Range, unlogged bool) {
	switch list := e.join.unlogged; {
	case len(list) == 0 || !run.Has(list[0]):
		return run, false
	case list[0] > run.First:
		return dirtymap.Range{First: run.First, Count: list[0] - run.First}, false
	}
	e.join.unlogged = e.join.unlogged[1:]
	return one(run.First), true
}

// resolvePart adds extents that are all alike to the outcome.
func (e *Engine) resolvePart(r dirtymap.Range, unlogged bool, mine, theirs dirtymap.State, ms, ts side) error {
	if mine == theirs && mine.WithTurn(0) == 0 && !unlogged && !ms.fresh && !ts.fresh {
		return nil // in sync, as nearly all are
	}
	if ms.fresh && ts.fresh && ms.blank && ts.blank {
		return nil // both are all zeros, and SHARED from the beginning
	}
	x, y, xs, ys := mine, theirs, ms, ts
	if !e.cfg.Preferred {
		x, y, xs, ys = theirs, mine, ts, ms
	}
	if e.mut == aloneIgnored {
		x, y = x&^dirtymap.Alone, y&^dirtymap.Alone
	}
	v, err := resolve(x, y, xs, ys)
	if err != nil {
		return fmt.Errorf("extent %d cannot be joined: %w: the replicas' maps contradict each other; keep both replicas and map files, and report this", r.First, err)
	}
	if ts.fresh && mine&dirtymap.Stale != 0 {
		e.join.gone += r.Count
	}
	if v.salvage && v.first != e.cfg.Preferred || ms.fork && mine&dirtymap.Alone != 0 && e.mut != forkUnkept {
		for ext := r.First; ext < r.End(); ext++ {
			e.join.salvage.add(ext, mine, e.m.Dirty(ext), ms.restarted)
		}
	}
	next := mine & dirtymap.Durable &^ dirtymap.Volatile
	if !v.sync {
		next = dirtymap.Stale
		if v.first == e.cfg.Preferred {
			next = dirtymap.Held
			if !v.tracked {
				e.join.full = appendRange(e.join.full, r)
			}
		}
		next = next.WithTurn(v.turn)
	}
	if unlogged || next != mine&dirtymap.Durable || !v.sync && !v.tracked {
		e.join.outcome.Changes = appendChange(e.join.outcome.Changes, r, next)
	}
	return nil
}

func one(ext uint64) dirtymap.Range { return dirtymap.Range{First: ext, Count: 1} }

func appendRange(ranges []dirtymap.Range, r dirtymap.Range) []dirtymap.Range {
	if n := len(ranges); n > 0 && ranges[n-1].End() == r.First {
		ranges[n-1].Count += r.Count
		return ranges
	}
	return append(ranges, r)
}

func appendChange(changes []Change, r dirtymap.Range, s dirtymap.State) []Change {
	if n := len(changes); n > 0 && changes[n-1].Extents.End() == r.First && changes[n-1].State == s {
		changes[n-1].Extents.Count += r.Count
		return changes
	}
	return append(changes, Change{r, s})
}

// resolved: every extent is.
func (e *Engine) resolved() {
	if n := e.join.gone; n > 0 {
		text := fmt.Sprintf("the peer comes with a new replica, but had newer data for %d extents that was not copied yet", n)
		if !e.cfg.ServeStale && (e.role.Serve != ServeAlone || e.role.Loss != LossServeStale) {
			e.refuse(text + "; bring its old replica and map file back, or, if they are lost, allow it to be served without that data (setting serve-stale of the LUN, at this node)")
			return
		}
		e.do(Alarm{Text: text + "; their older data is served, as the operator has said"})
	}
	if !e.salvaged() {
		e.prepare()
	}
}

func (e *Engine) prepare() {
	e.join.phase = preparing
	e.join.token = e.begin(work{kind: workJoin})
	e.do(Log{Token: e.join.token, Prepare: e.join.outcome})
}

// maybeCommit goes on when both have prepared the outcome.
func (e *Engine) maybeCommit() {
	if e.join.phase == prepared && e.join.ready {
		e.join.phase = committing
		e.full = e.join.full
		e.commit()
	}
}

// commit makes the prepared outcome take effect.
func (e *Engine) commit() {
	e.do(Log{Token: e.begin(work{kind: workCommit}), Commit: e.cfg.Prepared.Join})
}

// committed: the prepared outcome is in effect, be the link still up or not.
func (e *Engine) committed(current bool) {
	e.apply(e.cfg.Prepared)
	e.cfg.Committed, e.cfg.RoleState = e.cfg.Prepared.Join, e.cfg.Prepared.RoleState
	e.aloneTerm, e.fork = e.cfg.AloneTerm, e.cfg.Fork
	if e.cfg.Term != e.role.Term { // it went on since that was prepared
		e.logRole()
	}
	e.cfg.Prepared, e.cfg.Blank = nil, false
	switch {
	case !current:
	case e.join.phase == settling:
		e.compare()
	default:
		e.join.phase = done
		e.join.restarted, e.cfg.Crashed = false, false
		e.endAlone()
		e.do(Send{&wire.JoinDone{Join: e.cfg.Committed}})
		e.serve()
	}
}

// apply puts an outcome into the map. full has the extents that are dirty as a
// whole; when that is not known any more, since the outcome was prepared on an
// earlier connection, all are that are owned.
func (e *Engine) apply(o *Outcome) {
	for _, c := range o.Changes {
		for run, was := range e.m.Runs(c.Extents, dirtymap.Held) {
			e.applyRun(run, was, c.State)
		}
		if e.full == nil && c.State&dirtymap.Held != 0 {
			e.m.SetDirtyRange(c.Extents)
		}
	}
	for _, r := range e.full {
		e.m.SetDirtyRange(r)
	}
	e.full = nil
	clear(e.relaxed)
}

func (e *Engine) applyRun(r dirtymap.Range, was, s dirtymap.State) {
	switch {
	case s&^was&dirtymap.Held != 0:
		e.m.OwnRange(r)
	case was&^s&dirtymap.Held != 0:
		e.m.DisownRange(r)
	}
	if s&dirtymap.Held != 0 {
		s |= dirtymap.Logged
	}
	e.m.SetRange(r, s)
}

// serve begins when both have committed.
func (e *Engine) serve() {
	j := &e.join
	if j.phase != done || !j.finished {
		return
	}
	j.phase = joined
	e.stats.Joins++
	e.stats.JoinedOwned, e.stats.JoinedStale = e.count()
	j.outcome, j.full, j.peer = nil, nil, nil
	e.regate()
	for _, ext := range sortedKeys(e.entries) {
		e.kick(ext)
	}
}

// count is how many extents the join's outcome makes owned and stale here.
func (e *Engine) count() (owned, stale uint64) {
	for _, c := range e.join.outcome.Changes {
		switch {
		case c.State&dirtymap.Held != 0:
			owned += c.Extents.Count
		case c.State&dirtymap.Stale != 0:
			stale += c.Extents.Count
		}
	}
	return owned, stale
}
