package coherence

import (
	"errors"
	"fmt"
	"slices"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/wire"
)

// Serve says who serves hosts.
type Serve uint8

const (
	ServeBoth  Serve = iota // this node and its peer, while they are joined
	ServeNone               // the peer alone; this one only takes part in the protocol
	ServeAlone              // this node alone, joined or not
)

// String is for people.
func (s Serve) String() string { return [...]string{"both", "the other site", "alone"}[s] }

// Loss says what becomes of an extent whose newest data is at the peer, while this
// node serves alone.
type Loss uint8

const (
	LossHold       Loss = iota // host commands on it wait (Role.Patience), then end with ErrHeld until the peer is back
	LossServeStale             // what is here becomes the truth as soon as a host asks for it
	LossRollback               // the last consistency point; not available yet
)

// Role is the cluster's word on who serves the LUN, as an Event. Words of older terms
// than the last one are ignored. An engine that has never heard one is at term 0, and
// both serve.
//
// What the cluster must see to: Serve says ServeAlone only when the peer cannot answer
// hosts any more; with ServeBoth the owner answers hosts only while it holds a lease.
type Role struct {
	Term  uint64   // one up with each change of who serves
	ID    [16]byte // random: names the change
	Serve Serve
	Loss  Loss
	// Patience is how long host commands wait, with LossHold, for a peer that has the newest
	// data to come back: ticks since this replica began to serve alone.
	Patience uint32
	// Tied keeps a replica that serves alone, and is joined, from going on alone when the
	// link breaks. It must be so before it is proposed that both serve: should the link
	// break then, the peer may learn of the decision first, and not yet of the break.
	Tied bool
	// New says that no replica of this LUN has ever served: this one may begin its
	// history. Without it a new replica, which may stand in for a lost one, never serves
	// before it has joined.
	New bool
	// Forced says that an operator has this node serve alone, and that the cluster has not
	// agreed to that yet. Until it has, or has not, the replica joins with nobody: the
	// greeting would make the other one follow a term that may never be agreed upon.
	Forced bool
	// Fork is the name of a term that an operator has begun too late: others have served
	// meanwhile. A replica that is in that term follows this role all the same, and what it
	// has served alone loses at the next join. Zero: there is none.
	Fork [16]byte
	// Least is the number of a join of which the cluster knows. Whatever joins is numbered
	// above it, even two new replicas: so a lower number tells an older copy.
	Least uint64
}

// Errors that end host commands.
var (
	// ErrUnavailable: only the other site serves this LUN.
	ErrUnavailable error = unavailable("the other site serves this LUN alone")
	// ErrHeld: the newest data of an extent is at the other site, which is lost.
	ErrHeld = errors.New("the newest data is at the other site, which cannot be reached; it is there when that site is back, or allow older data to be served (loss policy serve-stale of the LUN)")
	// ErrNoData: the replica is new, and may stand in for a lost one.
	ErrNoData error = unavailable("this replica is new and has not been joined with the other one: it cannot serve alone")
)

// unavailable is an error that hosts should answer by asking the other site.
type unavailable string

func (u unavailable) Error() string { return string(u) }

// SCSIUnavailable is for package scsi, which tells hosts.
func (unavailable) SCSIUnavailable() bool { return true }

// setRole takes the cluster's word. Who served between two terms that do not follow
// each other is not known: it may have been the peer alone.
func (e *Engine) setRole(r Role) {
	was := e.role
	switch {
	case r.Follows(was):
		e.fork = true
	case r.Term < was.Term:
		return
	case r.Term == was.Term && r.ID != was.ID:
		e.do(Alarm{Text: fmt.Sprintf("term %d is another one than that which this replica knows (%x, not %x); it is not followed", r.Term, r.ID, was.ID)})
		return
	}
	e.role = r
	if r.Forced {
		e.fork = false // this is what is to be kept, says the operator
	}
	if r.Term != was.Term || r.ID != was.ID {
		if e.join.phase == alone && r.Serve == ServeAlone {
			e.aloneTerm = r.Term
		}
		e.logRole()
	}
	if r.Serve == ServeNone && r != was || r.Term > was.Term+1 || r.Term < was.Term {
		e.dismiss()
	}
	if r.Forced && e.join.phase > alone && e.mut != joinsForced {
		e.do(Send{&wire.JoinRefuse{Reason: wire.ReasonForced}})
		e.disconnected()
		return
	}
	e.regate()
}

// Follows tells whether a role is followed although its term is not newer: what this
// replica is in is a fork.
func (r Role) Follows(was Role) bool { return r.Fork != [16]byte{} && r.Fork == was.ID }

// follow takes it from the peer's greeting that the peer serves alone by a newer term
// than this node knows of.
func (e *Engine) follow() {
	if p := e.join.peer; p.Alone && p.Term > e.role.Term {
		e.setRole(Role{Term: p.Term, ID: p.TermID, Serve: ServeNone, Loss: e.role.Loss, Patience: e.role.Patience})
	}
}

// dismiss ends all host commands: those that wait, and those that are being done.
func (e *Engine) dismiss() {
	e.do(Dismiss{Err: ErrUnavailable})
	e.endAll(ErrUnavailable)
}

// endAll ends all host commands that wait.
func (e *Engine) endAll(err error) {
	for _, id := range sortedKeys(e.ops) {
		e.cancelAs(id, err)
	}
	e.endSyncs(e.syncs, err)
	e.endSyncs(e.flush.syncs, err)
	for _, token := range sortedKeys(e.work) {
		w := e.work[token]
		e.endSyncs(w.syncs, err)
		w.syncs = nil
		e.work[token] = w
	}
	e.syncs, e.flush.syncs = nil, nil
}

func (e *Engine) endSyncs(ids []uint64, err error) {
	for _, id := range ids {
		e.do(Admit{Op: id, Sync: true, Err: err})
	}
}

// refusal is why host commands are not even waited with; nil: they are.
func (e *Engine) refusal() error {
	switch {
	case e.fault != nil:
		return e.fault
	case e.role.Serve == ServeNone:
		return ErrUnavailable
	case e.role.Serve == ServeAlone && !e.hasData() && e.join.phase == down:
		return ErrNoData
	}
	return nil
}

// hasData tells whether the replica is known to hold the LUN.
func (e *Engine) hasData() bool { return e.cfg.History != [16]byte{} || e.role.New }

// HasData tells whether the replica holds the LUN: a new one does not before it has joined.
func (e *Engine) HasData() bool { return e.hasData() }

// Missing counts the extents whose newest data may be at the peer only. It looks at all.
func (e *Engine) Missing() (n uint64) {
	for run, s := range e.m.Runs(e.m.All(), dirtymap.Stale|dirtymap.Volatile) {
		if e.missing(s) {
			n += run.Count
		}
	}
	return n
}

// mayBeAlone tells whether the replica may serve without its peer.
func (e *Engine) mayBeAlone() bool {
	serves := e.role.Serve == ServeAlone && (!e.role.Tied || e.mut == untied) ||
		e.mut == aloneInBoth && e.role.Serve == ServeBoth && e.stats.Joins > 0
	return serves && e.hasData() && e.fault == nil && !e.stopped
}

// working tells whether the replica is in a state in which it can serve hosts.
func (e *Engine) working() bool { return e.join.phase == joined || e.join.phase == alone }

// regate brings gate and phase in line with the role.
func (e *Engine) regate() {
	switch p := e.join.phase; {
	case p == joined:
		e.setGate(e.role.Serve != ServeNone && !e.stopped)
	case p <= alone && !e.mayBeAlone():
		e.setGate(false)
		e.join.phase = down
	case p == down:
		e.part()
	}
}

// setGate lets host commands in, or not.
func (e *Engine) setGate(open bool) {
	switch {
	case open == e.m.Serving():
	case !open:
		e.m.Shut()
		e.do(Serving{false})
	default:
		e.m.Mix() // commands that waited may have read a part before
		e.m.Open()
		e.do(Serving{true})
		for _, ext := range sortedKeys(e.entries) {
			e.kick(ext)
		}
		if len(e.syncs) > 0 {
			e.startFlush()
		}
	}
}

// part begins to serve alone: what is still under way for the peer ends first.
func (e *Engine) part() {
	e.join.phase = parting
	e.tryAlone()
}

// tryAlone goes on with that when nothing changes the replica or its map any more. A
// flush, which may take long, does not.
func (e *Engine) tryAlone() {
	if e.join.phase != parting || !e.m.Quiet() {
		return
	}
	for _, w := range e.work {
		if w.holdsJoin() && w.kind != workFlush && w.kind != workRelax {
			return
		}
	}
	e.enter()
}

// enter makes durable that the replica serves alone, before it does: should the other
// one ever serve alone too, both will know.
func (e *Engine) enter() {
	if e.aloneTerm == e.role.Term && e.cfg.History != [16]byte{} {
		e.beAlone()
		return
	}
	e.join.phase = entering
	e.join.term = e.role.Term
	e.join.token = e.begin(work{kind: workJoin})
	l := e.roleLog(e.join.token)
	l.Role.AloneTerm = e.join.term
	if e.cfg.History == [16]byte{} {
		l.Role.History = e.cfg.Proposal
	}
	e.do(l)
}

// entered: it is durable. The term may have gone on meanwhile.
func (e *Engine) entered() {
	e.aloneTerm = e.join.term
	if e.cfg.History == [16]byte{} {
		e.cfg.History, e.cfg.Blank = e.cfg.Proposal, false
	}
	e.enter()
}

// beAlone opens the gate. The first write of an extent has to be logged as one that the
// peer knows nothing of, also where the extent was owned before.
func (e *Engine) beAlone() {
	e.join.phase, e.aloneSince = alone, e.now
	for run, s, ok := e.m.NextOwnedRun(0, dirtymap.Alone); ok; run, s, ok = e.m.NextOwnedRun(run.End(), dirtymap.Alone) {
		if s&dirtymap.Alone == 0 {
			e.m.ChangeRange(run, dirtymap.Logged, 0)
		}
	}
	e.setGate(true)
}

// endAlone takes that back when the replicas have joined: the map file knows of all that
// is owned, and so does the peer.
func (e *Engine) endAlone() {
	for run, _, ok := e.m.NextOwnedRun(0, 0); ok; run, _, ok = e.m.NextOwnedRun(run.End(), 0) {
		e.m.ChangeRange(run, 0, dirtymap.Logged)
	}
}

// roleLog is the log entry of the role.
func (e *Engine) roleLog(token uint64) Log {
	return Log{Token: token, Role: &RoleState{Term: e.role.Term, ID: e.role.ID, AloneTerm: e.aloneTerm, Fork: e.fork, History: e.cfg.History}}
}

// logRole makes the term durable; nothing waits for it.
func (e *Engine) logRole() {
	e.relaxing++
	e.do(e.roleLog(e.begin(work{kind: workRelax})))
}

// missing tells whether newer data than what is here may be at the peer.
func (e *Engine) missing(s dirtymap.State) bool {
	return s&dirtymap.Stale != 0 || e.cfg.Crashed && s&dirtymap.Volatile != 0
}

// askNobody does for those that wait, alone, what ask does with the peer.
func (e *Engine) askNobody(ext uint64, en *entry) {
	if len(en.waiters) == 0 || en.logged != 0 {
		return
	}
	switch s := e.m.State(ext); {
	case e.missing(s) && e.role.Loss == LossServeStale:
		e.takeOver(ext, s)
	case e.missing(s) && e.mut != staleUnderHold:
		e.hold(ext, en)
	case s.Shared() && s&dirtymap.Volatile != 0 && writes(en):
		e.startFlush() // the peer cannot stand in for this replica: it may never have got the answer to its FETCH
	case s&dirtymap.Logged == 0 && writes(en):
		e.toOwn = append(e.toOwn, ext)
	}
	// Else the extent is crowded; the next tick tries again.
}

// writes tells whether one of those that wait wants to write.
func writes(en *entry) bool {
	return slices.ContainsFunc(en.waiters, func(w waiter) bool { return w.write })
}

// hold ends the host commands that wait for an extent which only the peer has, unless it
// may still come back in time, or is back: the link is up, and a join follows. Ticks try
// again.
func (e *Engine) hold(ext uint64, en *entry) {
	if e.now-e.aloneSince < e.role.Patience || e.join.warm != 0 {
		return
	}
	waiters := en.waiters
	en.waiters = nil
	for _, w := range waiters {
		e.stats.HeldCommands++
		e.served(Admit{Op: w.op, Extent: ext, Err: ErrHeld})
	}
}

// takeOver makes what is here the truth, whatever the peer has: durably, before any
// host sees it. The turn makes a jump that no grant makes; it tells the peer, when it
// is back, that its data was given up.
func (e *Engine) takeOver(ext uint64, s dirtymap.State) {
	if s&dirtymap.Held == 0 {
		e.m.Own(ext)
	}
	e.m.SetDirty(ext, e.geo.Full(ext))
	turn := s.Turn() + takenTurns
	if e.mut == takenQuietly {
		turn = s.Turn()
	}
	next := (dirtymap.Held | dirtymap.Alone).WithTurn(turn)
	e.m.Set(ext, next|dirtymap.Closing) // until it is logged
	e.stats.Taken++
	if e.mut == takenUnlogged {
		e.m.Set(ext, next|dirtymap.Logged)
		e.kick(ext)
		return
	}
	e.log(ext, next)
}

// takenTurns is the jump.
const takenTurns = 2

// markAlone begins the tenures that this step needs, and those that the predictor
// expects to be needed: no MARK, but what the peer will have to be told.
func (e *Engine) markAlone() {
	if len(e.toOwn) == 0 {
		return
	}
	slices.Sort(e.toOwn)
	for _, r := range rangesOf(e.toOwn) {
		window := e.cfg.Predictor.Window(r)
		for ext := window.First; ext < window.End(); ext++ {
			if r.Has(ext) || e.ownable(ext) {
				e.ownAlone(ext)
			}
		}
	}
	e.toOwn = e.toOwn[:0]
}

// ownable tells whether an extent that nobody waits for can be marked with others.
func (e *Engine) ownable(ext uint64) bool {
	return e.m.State(ext)&dirtymap.Volatile == 0 && e.markable(ext)
}

func (e *Engine) ownAlone(ext uint64) {
	en, s := e.at(ext), e.m.State(ext)
	if en.logged != 0 {
		return // of the window of another one
	}
	if s&dirtymap.Held == 0 {
		e.m.Own(ext)
	}
	next := (dirtymap.Held | dirtymap.Alone | s&dirtymap.Volatile).WithTurn(s.Turn())
	if s&dirtymap.Alone != 0 { // as the map file says
		e.m.Change(ext, 0, dirtymap.Logged)
		e.kick(ext)
		return
	}
	e.m.Set(ext, next)
	e.log(ext, next)
	if e.mut == aloneUnlogged {
		e.m.Change(ext, 0, dirtymap.Logged)
		e.kick(ext)
	}
}

// Role is the last Role that is followed.
func (e *Engine) Role() Role { return e.role }

// LastJoin is the number of the last join in effect; 0: there was none.
func (e *Engine) LastJoin() uint64 { return e.cfg.Committed }

// Joined tells whether the two replicas are joined.
func (e *Engine) Joined() bool { return e.join.phase == joined }
