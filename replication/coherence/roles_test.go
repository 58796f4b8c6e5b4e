package coherence

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/dirtymap"
)

// roles bounds what happens to the roles in an exploration.
type roles struct {
	takes  int  // times that a node proposes to serve alone
	joins  int  // times that the one that serves alone proposes that both do
	forces int  // times that the operator makes a node serve alone
	waits  bool // host commands wait for a peer that has the newest data
	late   bool // and each time the group has agreed upon something else before it hears of that
	loss   Loss
	begin  decision // what the group had decided before; zero: that both serve
}

// raft is a model of the group that decides who serves, and of the leases that the
// nodes give each other. A decision is made at once, and each node learns of it at any
// later moment, in order.
type raft struct {
	takes, joins, forces int
	decided              []decision
	settling             bool // leases end only where somebody waits for that

	apart  bool // a node was forced to serve alone: two lines of data
	newest int  // the node that was forced last
	// What was given up since the replicas were joined last, and what was ever written
	// and acknowledged: a write has a number, and one that it was made over.
	given [maxExtents]bool
	taker [maxExtents]int // the node that took it over last
	known [maxExtents]uint32
	kept  [maxExtents]uint32 // of those given up, what is salvaged
	from  [maxExtents][32]uint8
}

// decision is who serves from a term on.
type decision struct {
	term uint64
	node int // that serves alone
	both bool
}

// member is a node in the group.
type member struct {
	applied int               // the decision it knows of
	acted   bool              // and has told its engine since the process began
	lease   bool              // it holds one from its peer
	forced  Role              // by the operator; Term 0: it was not
	fork    [16]byte          // that the catalog tells it was in; zero: it was in none
	saved   [maxExtents]uint8 // by the salvage of the join that is under way; 0: nothing
}

func (w *world) firstRole() Serve {
	if w.scope.roles != nil {
		return ServeNone
	}
	return ServeBoth
}

func (w *world) beginRoles() {
	r := w.scope.roles
	if r == nil {
		return
	}
	w.takes, w.joins, w.forces = r.takes, r.joins, r.forces
	w.decided = []decision{{term: 1, both: true}}
	if r.begin.term != 0 {
		w.decided = []decision{r.begin}
	}
	for i := range w.n {
		w.n[i].lease = w.decided[0].both
		w.act(i)
	}
}

// act tells the engine what the node knows.
func (w *world) act(i int) {
	n := &w.n[i]
	n.acted = true
	if n.forced.Term != 0 {
		w.step(i, n.forced)
		return
	}
	r := w.role(i, w.decided[n.applied])
	r.Fork = n.fork
	w.step(i, r)
}

func (w *world) role(i int, d decision) Role {
	r := Role{Term: d.term, ID: [16]byte{byte(d.term)}, Serve: ServeNone, Loss: w.scope.roles.loss}
	if w.scope.roles.waits {
		r.Patience = math.MaxUint32
	}
	switch {
	case d.both:
		r.Serve = ServeBoth
	case d.node == i:
		r.Serve = ServeAlone
	}
	return r
}

// entitled tells whether node i may answer a host.
func (w *world) entitled(i int) bool {
	n := &w.n[i]
	switch d := w.lastWord(i); {
	case w.scope.roles == nil:
		return true
	case !n.acted:
		return false
	case n.forced.Term == 0 && d.both:
		return n.lease
	default:
		return n.forced.Term != 0 || d.node == i
	}
}

// lastWord is the decision that node i knows of.
func (w *world) lastWord(i int) decision {
	if w.scope.roles == nil {
		return decision{both: true}
	}
	return w.decided[w.n[i].applied]
}

// mayAct tells whether node i may act on decision d: alone only when its peer cannot
// answer hosts any more.
func (w *world) mayAct(i int, d decision) bool {
	return d.both || d.node != i || !w.n[1-i].lease
}

func (w *world) roleMoves(i int, add func(string, func(*world))) {
	if w.scope.roles == nil {
		return
	}
	n, peer, c := &w.n[i], &w.n[1-i], string(rune('X'+i))
	last := len(w.decided) - 1
	now := w.decided[last]
	informed := n.acted && n.forced.Term == 0 && n.applied == last
	if informed && w.takes > 0 && (now.both || now.node == i && n.e.role.Tied) {
		add(c+" TAKES ALONE", func(w *world) { w.takes--; w.decide(decision{node: i}) })
	}
	if informed && w.joins > 0 && now.node == i && !now.both && n.e.role.Serve == ServeAlone && n.e.join.phase == joined {
		add(c+" PROPOSES BOTH", func(w *world) {
			w.joins--
			tied := w.role(i, now)
			tied.Tied = true
			w.step(i, tied)
			w.decide(decision{both: true})
		})
	}
	if w.forces > 0 && (n.forced.Term == 0 || n.e.role.Serve != ServeAlone) && (!w.scope.roles.late || w.late(i)) {
		add(c+" IS FORCED", func(w *world) { w.forces--; w.force(i) })
	}
	if n.forced.Forced {
		add(c+" HEARS THAT IT IS A FORK", func(w *world) { w.hearFork(i) })
	}
	switch {
	case n.forced.Term == 0 && n.applied < last && w.mayAct(i, w.decided[n.applied+1]):
		add(c+" applies", func(w *world) { w.n[i].applied++; w.n[i].lease = false; w.act(i) })
	case !n.acted && (n.forced.Term != 0 || w.mayAct(i, w.lastWord(i))):
		add(c+" acts", func(w *world) { w.act(i) })
	}
	awaited := n.forced.Term == 0 && peer.applied < last && !w.decided[peer.applied+1].both && w.decided[peer.applied+1].node == 1-i
	if n.lease && (!w.settling || awaited) {
		add(c+" loses its lease", func(w *world) { w.n[i].lease = false })
	}
	if !n.lease && n.acted && w.lastWord(i).both && w.grants(1-i, n.applied) && !(w.settling && awaited) {
		add(c+" gets a lease", func(w *world) { w.n[i].lease = true })
	}
}

// grants tells whether node i gives a lease for a decision.
func (w *world) grants(i, d int) bool {
	n := &w.n[i]
	return n.acted && n.forced.Term == 0 && n.applied >= d && w.lastWord(i).both
}

func (w *world) decide(d decision) {
	d.term = w.decided[len(w.decided)-1].term + 1
	w.decided = append(slices.Clone(w.decided), d)
}

// force makes node i serve alone, whatever the other one does. What that one wrote
// alone, and this one does not know of, is given up.
func (w *world) force(i int) {
	n := &w.n[i]
	n.forced = Role{Term: uint64(200 - w.forces*50), Serve: ServeAlone, Loss: w.scope.roles.loss}
	n.forced.ID = [16]byte{byte(n.forced.Term)}
	w.apart, w.newest = true, i
	if w.scope.roles.late {
		n.forced.Forced, n.lease, w.newest = true, false, 1-i
	}
	for x := range w.scope.extents {
		w.acked[i][x] = min(w.acked[i][x], n.data[x])
	}
	w.act(i)
}

// late tells whether it would be too late to force node i: something else was decided, of
// which it has not heard. If that is that it serves alone, it is not too late.
func (w *world) late(i int) bool {
	last := len(w.decided) - 1
	return w.n[i].applied < last && (w.decided[last].both || w.decided[last].node != i)
}

// hearFork: node i hears of all that was decided while it was forced to serve alone.
func (w *world) hearFork(i int) {
	n := &w.n[i]
	fork := n.forced.ID
	n.forced, n.applied, n.lease = Role{}, len(w.decided)-1, false
	n.fork = fork
	w.act(i)
	w.cut() // so that the two join, if the link was up
}

// took: the log of node i says that an extent is its own from now on. If it was stale,
// or lost, what is here is the truth.
func (w *world) took(i, x int, s dirtymap.State) {
	n := &w.n[i]
	was := n.log[x]
	lost := n.crashed && was&dirtymap.Volatile != 0
	if s&dirtymap.Alone == 0 || was&dirtymap.Stale == 0 && !lost || n.e.m.State(uint64(x)).Turn() == was.Turn() && w.scope.mut != takenQuietly {
		return
	}
	if w.scope.roles.loss != LossServeStale {
		fail("%c takes extent %d over, which is to be held", 'X'+i, x)
	}
	w.given[x], w.taker[x] = true, i
	w.acked[i][x] = min(w.acked[i][x], n.data[x])
	w.flushed[x] = min(w.flushed[x], n.data[x])
}

// restarted: node i's process, or its operating system, has begun anew.
func (w *world) restarted(i int, os bool) {
	if w.scope.roles == nil {
		return
	}
	n := &w.n[i]
	n.acted, n.lease = false, false
	if os && n.state.AloneTerm != 0 {
		for x := range w.scope.extents { // a write back disk
			if n.log[x]&(dirtymap.Stale|dirtymap.Volatile) == 0 && n.data[x] < w.flushed[x] {
				fail("%c would serve %d of extent %d, alone after a crash; flushed: %d", 'X'+i, n.data[x], x, w.flushed[x])
			}
			w.acked[i][x] = min(w.acked[i][x], n.data[x])
		}
	}
	if n.forced.Forced { // a replica has its role before it has a link, and the memo is on disk
		w.act(i)
	}
}

// dismiss: host commands that have begun at node i are not answered.
func (w *world) dismiss(i int) {
	for k := range w.n[i].ops {
		op := &w.n[i].ops[k]
		op.dismissed = op.kind != 0
		if slices.Contains(op.piece[:], unanswered) {
			*op = hostOp{}
		}
	}
}

// answer: the lease is back before anybody served alone.
func (w *world) answer(i, k, x int) {
	op := w.n[i].ops[k]
	w.n[i].ops[k] = hostOp{}
	if op.kind == 'r' {
		w.checkRead(i, x, op.floor[x], op.written)
		return
	}
	w.acknowledge(i, x, op.written)
}

// mayFail tells whether a host command may end like that.
func (w *world) mayFail(i int, a Admit) bool {
	return w.scope.roles != nil && (errors.Is(a.Err, ErrUnavailable) && (w.n[i].e.role.Serve != ServeAlone || w.n[i].forced.Term != 0) ||
		errors.Is(a.Err, ErrHeld) && w.n[i].e.join.phase == alone && w.scope.roles.loss == LossHold && !w.scope.roles.waits)
}

// has tells whether write v of extent x was made over write u, or is u.
func (w *world) has(x int, v, u uint8) bool {
	for v > u && int(v) < len(w.from[x]) {
		v = w.from[x][v]
	}
	return v == u
}

// salvage keeps what node i gives up.
func (w *world) salvage(i int, a Salvage) {
	n := &w.n[i]
	n.saved = content{}
	for _, ranges := range [][]dirtymap.Range{a.Whole, a.Dirty} {
		for _, r := range ranges {
			for x := r.First; x < r.End(); x++ {
				n.saved[x] = n.data[x]
			}
		}
	}
}

// checkLoss looks at an outcome that node i is about to make durable: acknowledged
// writes that it loses must have been salvaged, and nothing else; and they may be lost
// only if the operator has said so.
func (w *world) checkLoss(i int, o *Outcome) {
	n, peer := &w.n[i], &w.n[1-i]
	newest := n.forced.Term
	if w.scope.roles != nil && w.scope.roles.late {
		newest = w.lastWord(i).term
	}
	loses := [maxExtents]bool{}
	for _, c := range o.Changes {
		for x := c.Extents.First; x < c.Extents.End(); x++ {
			if c.State&dirtymap.Stale == 0 || w.n[i].crashed && n.log[x]&dirtymap.Volatile != 0 {
				continue
			}
			loses[x] = w.loses(int(x), n.data[x], peer.data[x])
			if w.apart && i == w.newest && n.log[x]&dirtymap.Stale == 0 && n.state.AloneTerm == newest && n.data[x] != peer.data[x] && !w.lossPending {
				fail("extent %d: what %c served by the newest term is undone", x, 'X'+i)
			}
		}
	}
	exact := w.scope.pc+w.scope.os == 0
	for x := range w.scope.extents {
		switch {
		case n.data[x] < 32 && w.kept[x]&(1<<n.data[x]) != 0: // it was given up before
		case w.scope.roles == nil:
			if loses[x] && !w.lossPending {
				fail("extent %d: %c loses %d", x, 'X'+i, n.data[x])
			}
		case loses[x] && !w.given[x] && !w.apart:
			fail("extent %d: %c loses %d, and nobody has allowed it", x, 'X'+i, n.data[x])
		case loses[x] && n.saved[x] == n.data[x]:
			w.kept[x] |= 1 << n.data[x]
		case loses[x]:
			fail("extent %d: %c loses %d, and it is not salvaged", x, 'X'+i, n.data[x])
		case n.e.fork && !o.Fork && !w.lossPending && n.log[x]&dirtymap.Alone != 0 && n.saved[x] != n.data[x]:
			fail("extent %d: %c has served %d in a fork, and it is not salvaged", x, 'X'+i, n.data[x])
		case exact && !loses[x] && n.saved[x] != 0 && !w.given[x] && !n.e.fork: // else a COPY_ACK may have been lost
			fail("extent %d: %c salvages %d, which %c has", x, 'X'+i, n.saved[x], 'X'+1-i)
		}
	}
	n.saved = content{}
}

// loses tells whether mine has acknowledged writes that theirs knows nothing of.
func (w *world) loses(x int, mine, theirs uint8) bool {
	if int(mine) >= len(w.from[x]) {
		return false
	}
	for v := mine; ; v = w.from[x][v] {
		if w.known[x]&(1<<v) != 0 && !w.has(x, theirs, v) && (!w.lossPending || v <= w.flushed[x]) {
			return true
		}
		if v == 0 {
			return false
		}
	}
}

// checkRoles: two nodes that do not follow one protocol never answer hosts both.
func (w *world) checkRoles() {
	if w.scope.roles == nil || w.apart {
		return
	}
	for i := range w.n {
		peer := &w.n[1-i]
		if w.n[i].e.join.phase == alone && w.entitled(i) && peer.e.m.Serving() && w.entitled(1-i) {
			fail("%c serves alone, and %c serves too", 'X'+i, 'X'+1-i)
		}
	}
}

func brief(s RoleState) string {
	return fmt.Sprintf("%d,%d,%d,%d,%t", s.History[0], s.Term, s.ID[0], s.AloneTerm, s.Fork)
}

// roleScopes are those with a group that decides who serves.
var roleScopes = []scope{
	{name: "alone, held", extents: 1, reads: both(1), writes: both(1), cuts: 1, roles: &roles{takes: 1}},
	{name: "alone, waited for", extents: 1, reads: both(1), writes: both(1), cuts: 1, roles: &roles{takes: 1, waits: true}},
	{name: "alone, waited for and back", extents: 1, reads: [2]int{1, 0}, writes: both(1), cuts: 2, owner: 2, roles: &roles{takes: 1, joins: 1, waits: true}},
	{name: "two extents, one of them waited for", extents: 2, writes: both(1), cuts: 1, roles: &roles{takes: 1, waits: true}},
	{name: "alone, stale data served", extents: 1, reads: both(1), writes: both(1), cuts: 1, roles: &roles{takes: 1, loss: LossServeStale}},
	{name: "alone and back", extents: 1, writes: both(1), reads: [2]int{0, 1}, cuts: 2, roles: &roles{joins: 1, begin: decision{term: 2, node: 0}}},
	{name: "alone, owned before", extents: 1, writes: [2]int{2, 0}, cuts: 1, roles: &roles{begin: decision{term: 2, node: 0}}},
	{name: "alone in turn", extents: 1, writes: both(1), cuts: 2, roles: &roles{takes: 2, joins: 1}},
	{name: "alone, slow disk", extents: 1, writes: both(1), cuts: 1, slowDisk: true, roles: &roles{takes: 1}},
	{name: "alone, process crash", extents: 1, reads: [2]int{0, 1}, writes: both(1), pc: 1, cuts: 1, roles: &roles{takes: 1, loss: LossServeStale}},
	{name: "alone, slow disk, process crash", extents: 1, writes: [2]int{1, 0}, pc: 1, slowDisk: true, roles: &roles{begin: decision{term: 2, node: 0}}},
	{name: "alone, operating system crash", extents: 1, reads: both(1), writes: both(1), syncs: 1, os: 1, cuts: 1, roles: &roles{takes: 1}},
	{name: "forced", extents: 1, reads: both(1), writes: both(1), cuts: 1, roles: &roles{takes: 1, forces: 1}},
	{name: "alone over newer data", extents: 1, reads: both(1), writes: both(1), cuts: 1, pc: 1, owner: 2, unlinked: true, roles: &roles{loss: LossServeStale, begin: decision{term: 2, node: 0}}},
	{name: "alone over what is held", extents: 1, reads: both(1), writes: both(1), cuts: 1, pc: 1, owner: 2, unlinked: true, roles: &roles{begin: decision{term: 2, node: 0}}},
	{name: "alone in the middle of a join", extents: 1, writes: [2]int{2, 1}, cuts: 2, owner: 2, roles: &roles{takes: 1, loss: LossServeStale}},
	{name: "alone, both operating systems crash", extents: 1, writes: both(1), syncs: 1, os: 2, owner: 1, roles: &roles{begin: decision{term: 2, node: 0}}},
	{name: "forced over one that is alone", extents: 1, reads: both(1), writes: both(1), cuts: 1, unlinked: true, roles: &roles{forces: 1, begin: decision{term: 2, node: 1}}},
	{name: "forced, owned, process crash", extents: 1, writes: both(1), pc: 1, owner: 1, unlinked: true, roles: &roles{forces: 2, loss: LossServeStale}},
	{name: "two extents, one of them held", extents: 2, writes: both(1), cuts: 1, roles: &roles{takes: 1}},
	{name: "forced too late", extents: 1, reads: both(1), writes: both(1), cuts: 1, roles: &roles{takes: 1, forces: 1, late: true}},
	{name: "forced too late, stale data served", extents: 1, writes: both(1), owner: 1, unlinked: true, roles: &roles{takes: 1, forces: 1, late: true, loss: LossServeStale}},
	{name: "forced too late, process crash", extents: 1, writes: both(1), pc: 1, unlinked: true, roles: &roles{takes: 1, forces: 1, late: true}},
	{name: "forced too late, owned, slow disk", extents: 1, writes: both(1), owner: 2, unlinked: true, slowDisk: true, roles: &roles{takes: 1, forces: 1, late: true}},
	{name: "forced too late, back and apart", extents: 1, writes: [2]int{1, 2}, cuts: 1, unlinked: true, roles: &roles{takes: 1, forces: 1, joins: 1, late: true}},
	{name: "both forced", extents: 1, reads: both(1), writes: both(1), cuts: 1, roles: &roles{forces: 2, loss: LossServeStale}},
}

// TestRoleMutations takes rules of serving alone out, one by one.
func TestRoleMutations(t *testing.T) {
	xAlone, yAlone := decision{term: 2, node: 0}, decision{term: 2, node: 1}
	for _, s := range []scope{
		{name: "alone is logged after the write", mut: aloneUnlogged, extents: 1, writes: [2]int{1, 0}, pc: 1, slowDisk: true, unlinked: true, roles: &roles{begin: xAlone}},
		{name: "alone is ignored by a join", mut: aloneIgnored, extents: 1, writes: both(1), owner: 2, unlinked: true, roles: &roles{loss: LossServeStale, begin: xAlone}},
		{name: "a greeting does not say who was alone", mut: aloneForgotten, extents: 1, writes: both(1), cuts: 1, roles: &roles{forces: 1, begin: yAlone}},
		{name: "an older term wins", mut: olderTerm, extents: 1, writes: both(1), cuts: 1, roles: &roles{forces: 1, begin: yAlone}},
		{name: "nothing is salvaged", mut: noSalvage, extents: 1, writes: [2]int{1, 0}, owner: 2, unlinked: true, roles: &roles{loss: LossServeStale, begin: xAlone}},
		{name: "alone while both serve", mut: aloneInBoth, extents: 1, reads: both(1), writes: both(1), cuts: 1, roles: &roles{}},
		{name: "not tied before both serve", mut: untied, extents: 1, reads: [2]int{0, 1}, writes: [2]int{1, 0}, cuts: 1, roles: &roles{joins: 1, begin: xAlone}},
		{name: "stale data served though it is held", mut: staleUnderHold, extents: 1, writes: both(1), owner: 2, unlinked: true, roles: &roles{begin: xAlone}},
		{name: "stale data served before it is logged", mut: takenUnlogged, extents: 1, reads: [2]int{1, 0}, owner: 2, unlinked: true, roles: &roles{loss: LossServeStale, begin: xAlone}},
		{name: "taken over without a jump of the turn", mut: takenQuietly, extents: 1, writes: [2]int{1, 0}, owner: 2, unlinked: true, roles: &roles{loss: LossServeStale, begin: xAlone}},
		{name: "settled over what was written alone", mut: settleOver, extents: 1, writes: [2]int{1, 0}, cuts: 1, owner: 2, roles: &roles{takes: 1, loss: LossServeStale}},
		{name: "a forced replica joins before that is agreed upon", mut: joinsForced, extents: 1, writes: both(1), cuts: 1, roles: &roles{takes: 1, forces: 1, late: true}},
		{name: "a fork wins", mut: forkForgotten, extents: 1, writes: both(1), cuts: 1, roles: &roles{takes: 1, forces: 1, late: true}},
		{name: "what a fork has served is not kept", mut: forkUnkept, extents: 1, writes: both(1), owner: 2, unlinked: true, roles: &roles{takes: 1, forces: 1, late: true}},
	} {
		t.Run(strings.ReplaceAll(s.name, " ", "-"), func(t *testing.T) {
			s.max = 200000
			bad, trail, n := explore(&s)
			if bad == "" {
				t.Fatalf("not found in %d states", n)
			}
			t.Logf("found after %d states: %s\n  %s", n, bad, strings.Join(trail, "\n  "))
		})
	}
}
