package coherence

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/wire"
)

// world is two engines with all that surrounds them: hosts, replicas, map files,
// links. Extents have one block, whose content is the number of its last write.
type world struct {
	n       [2]node // 0 is the preferred one
	ctrl    [2][]wire.Message
	bulk    [2][maxStreams][]wire.Message // to each node, by stream
	alive   bool                          // the link carries what is sent
	checked bool                          // what the present join has made the truth

	latest, top, flushed, lossFloor content
	acked                           [2]content // what a read at each node shows at least
	lossPending                     bool
	lossDue                         [2]bool    // an operating system went down, its peer has not noticed
	since                           [2]content // acknowledged here after the other site went down
	cuts, crashes, osCrashes        int
	scope                           *scope
	raft                            // roles_test.go
}

const (
	maxExtents = 2
	maxStreams = 2
)

type content [maxExtents]uint8

// anything is what a replica without a history has.
const anything = 99

// scope bounds an exploration.
type scope struct {
	name          string
	extents       int
	wide          bool // host commands touch all extents
	reads, writes [2]int
	syncs         int
	verifies      [2]int
	hosts         int // host commands at once; 0 is 1
	streams       int // bulk streams; 0 is 1
	cuts, pc, os  int
	slowDisk      bool // stores, reads and log entries take steps of their own
	slowHost      bool // so do host commands that were let in
	slowWrite     bool // and what they write is there before the map knows
	fresh         [2]bool
	blank         bool   // and all zeros
	unlinked      bool   // the link is down at first
	rotten        bool   // at first Y has another block in extent 0 than X, which must not be
	owner         int    // 1 or 2: at first X, or Y, owns everything, and wrote 1 that the other one lacks
	roles         *roles // nil: no cluster, both serve
	mut           mutation
	max           int // states; 0: all
	until         time.Time
}

// node is one site.
type node struct {
	e         *Engine
	pending   []Action // under way
	connected bool

	// The replica and the map file.
	data, base content          // base: as of the last flush
	rotten     [maxExtents]bool // what data has is not what was written
	log        [maxExtents]dirtymap.State
	state      RoleState
	committed  uint64
	prepared   *Outcome
	crashed    bool
	blank      bool

	// The host.
	ops                  [maxOps]hostOp
	reads, writes, syncs int
	verifies             int     // to begin
	verifying            int     // under way
	found                int     // blocks that differ
	told                 bool    // the verdict is the peer's, and was checked when it was given
	ackedBy              content // acknowledged here

	member // roles_test.go
}

// maxOps is how many host commands a node has at once.
const maxOps = 2

type hostOp struct {
	kind  byte // 0, 'r', 'w', 's'
	piece [maxExtents]pieceState
	kept  [maxExtents]*wire.Blocks
	floor content // acknowledged when it began
	// Of a write that waits for the lease to be answered.
	written   uint8
	dismissed bool
}

type pieceState uint8

const (
	notInOp pieceState = iota
	waiting
	entered
	withKept
	stored // and not in the map yet
	unanswered
	finished
)

type fixedWindow struct{ all dirtymap.Range }

func (p fixedWindow) Window(dirtymap.Range) dirtymap.Range { return p.all }
func (p fixedWindow) TooWide(uint64)                       {}

// broken is a violated promise.
type broken struct{ text string }

func fail(format string, args ...any) { panic(broken{fmt.Sprintf(format, args...)}) }

func newWorld(s *scope) *world {
	w := &world{scope: s, cuts: s.cuts, crashes: s.pc, osCrashes: s.os}
	for i := range w.n {
		n := &w.n[i]
		n.reads, n.writes, n.syncs, n.verifies = s.reads[i], s.writes[i], s.syncs, s.verifies[i]
		n.rotten[0] = s.rotten && i == 1
		n.state.History, n.committed = [16]byte{1}, 1
		if s.fresh[i] {
			n.state.History, n.committed, n.blank = [16]byte{}, 0, s.blank
			for x := range s.extents {
				if !s.blank {
					n.data[x], n.base[x] = anything, anything
				}
			}
		}
		w.beginOwned(i)
		w.boot(i)
	}
	w.beginRoles()
	if !s.unlinked {
		w.connect()
	}
	return w
}

// beginOwned puts node i in the place of owner, or of its peer.
func (w *world) beginOwned(i int) {
	if w.scope.owner == 0 {
		return
	}
	turn := uint8(2 - w.scope.owner) // odd turns are X's
	for x := range w.scope.extents {
		w.n[i].log[x] = dirtymap.Stale.WithTurn(turn)
		if i == w.scope.owner-1 {
			w.n[i].log[x] = dirtymap.Held.WithTurn(turn)
			w.n[i].data[x], w.n[i].base[x] = 1, 1
		}
		w.latest[x], w.top[x], w.flushed[x], w.known[x] = 1, 1, 1, 1<<1
		w.acked[0][x], w.acked[1][x] = 1, 1
	}
}

// boot makes the node's engine from its map file.
func (w *world) boot(i int) {
	n := &w.n[i]
	geo := dirtymap.Geometry{Size: int64(w.scope.extents) * dirtymap.BlockSize, ExtentSize: dirtymap.BlockSize}
	m := dirtymap.New(geo)
	for x := range w.scope.extents {
		m.Set(uint64(x), n.log[x])
	}
	n.e = New(Config{
		Preferred: i == 0, Map: m, Predictor: fixedWindow{dirtymap.Range{Count: uint64(w.scope.extents)}},
		RoleState: n.state, Serve: w.firstRole(), Committed: n.committed, Prepared: n.prepared, Blank: n.blank, Crashed: n.crashed,
		Proposal: [16]byte{byte(i + 1)}, ColdAfter: 1 << 20,
	})
	n.e.mut = w.scope.mut
	n.e.now = 10
	n.pending, n.connected, n.ops, n.verifying = nil, false, [maxOps]hostOp{}, 0
}

func (w *world) connect() {
	w.alive, w.checked = true, false
	w.ctrl, w.bulk = [2][]wire.Message{}, [2][maxStreams][]wire.Message{}
	for i := range w.n {
		w.n[i].connected = true
	}
	for i := range w.n {
		w.step(i, Connected{Streams: max(w.scope.streams, 1)})
	}
}

// step gives an event to a node's engine and does what comes of it.
func (w *world) step(i int, ev Event) {
	actions := slices.Clone(w.n[i].e.Step(ev))
	if e := w.n[i].e; e.join.phase == joined && e.m.Serving() && !w.checked {
		w.checked = true
		if w.n[1-i].e.join.phase >= done { // else it has left already, and may have written alone
			w.checkJoin(i)
		}
	}
	for _, a := range actions {
		w.do(i, a)
	}
	if !w.scope.slowDisk {
		for len(w.n[i].pending) > 0 {
			w.complete(i, 0)
		}
	}
}

func (w *world) do(i int, a Action) {
	n := &w.n[i]
	switch a := a.(type) {
	case Admit:
		w.admitted(i, a)
	case Send:
		if m, ok := a.Msg.(*wire.Verified); ok && m.Outcome == wire.VerifyCompared {
			w.checkVerdict(m.Extent, m.Differ, m.Skipped)
		}
		w.send(&w.ctrl[1-i], i, a.Msg)
	case SendBulk:
		w.send(&w.bulk[1-i][a.Stream], i, a.Msg)
	case SendPlanes:
		p := &wire.JoinMap{Last: true}
		for x := range w.scope.extents {
			p.Data = append(p.Data, byte(n.e.m.State(uint64(x))&dirtymap.Durable))
		}
		w.send(&w.ctrl[1-i], i, p)
	case Disconnect:
		fail("%c disconnects: %s", 'X'+i, a.Reason)
	case Fault:
		fail("%c faults: %v", 'X'+i, a.Err)
	case Alarm:
		fail("%c alarms: %s", 'X'+i, a.Text)
	case Verified:
		w.verified(i, a)
	case Serving:
	case Dismiss:
		w.dismiss(i)
	case Flush, Log, Salvage, Digest, Collect, Store, StoreCopy, ReadCopy, flushNow:
		if f, ok := a.(Flush); ok {
			a = flushNow{f.Token, n.data, n.ackedBy}
		}
		if l, ok := a.(Log); ok && l.Prepare != nil {
			w.checkLoss(i, l.Prepare)
		}
		n.pending = append(n.pending, a)
	case CopyEnded:
	}
}

// flushNow is a Flush with what it covers.
type flushNow struct {
	token   uint64
	data    content
	ackedBy content
}

func (flushNow) action() {}

func (w *world) send(q *[]wire.Message, from int, m wire.Message) {
	if w.alive && w.n[from].connected {
		*q = append(slices.Clone(*q), m)
	}
}

// complete ends the k-th action that is under way at node i.
func (w *world) complete(i, k int) {
	n := &w.n[i]
	a := n.pending[k]
	n.pending = slices.Delete(slices.Clone(n.pending), k, k+1)
	switch a := a.(type) {
	case Log:
		w.logged(i, a)
		w.step(i, Done{Token: a.Token})
	case Salvage:
		w.salvage(i, a)
		w.step(i, Done{Token: a.Token})
	case flushNow:
		for x := range a.data {
			if n.base[x] < a.data[x] || n.base[x] == anything {
				n.base[x] = a.data[x]
			}
		}
		w.step(i, Done{Token: a.token})
	case Collect:
		w.step(i, Collected{Token: a.Token, Blocks: n.read(a.Extent)})
	case Digest:
		w.step(i, Digested{Token: a.Token, Digests: []wire.Digest{n.digest(a.Extent)}})
	case ReadCopy:
		items := []wire.Blocks{}
		for _, b := range a.Items {
			items = append(items, n.read(b.Extent))
		}
		w.step(i, CopyRead{Token: a.Token, Items: items})
	case Store:
		n.write(a.Items)
		w.step(i, Done{Token: a.Token})
	case StoreCopy:
		n.write(a.Items)
		for _, b := range a.Items {
			n.base[b.Extent] = b.Data[0]
		}
		w.step(i, CopyStored{Token: a.Token})
		w.step(i, CopyDurable{Token: a.Token})
	}
}

func (n *node) read(ext uint64) wire.Blocks {
	return wire.Blocks{Extent: ext, Present: dirtymap.MaskOf(0, 1), Data: []byte{n.data[ext], n.digest(ext)[1]}}
}

func (n *node) write(items []wire.Blocks) {
	for _, b := range items {
		n.data[b.Extent], n.rotten[b.Extent] = b.Data[0], b.Data[1] != 0
	}
}

// logged makes a log entry durable.
func (w *world) logged(i int, a Log) {
	n := &w.n[i]
	if a.Prepare != nil {
		n.prepared = a.Prepare
	}
	changes := a.Changes
	if a.Commit != 0 {
		if n.prepared == nil || n.prepared.Join != a.Commit {
			fail("commit of join %d, which is not prepared", a.Commit)
		}
		changes, n.blank = n.prepared.Changes, false
		n.state, n.committed, n.prepared, n.crashed = n.prepared.RoleState, a.Commit, nil, false
	}
	if a.Role != nil {
		n.state, n.blank = *a.Role, n.blank && a.Role.History == [16]byte{}
	}
	for _, c := range changes {
		for ext := c.Extents.First; ext < c.Extents.End(); ext++ {
			w.took(i, int(ext), c.State)
			n.log[ext] = c.State
		}
	}
}

// startOp begins a host command on extent x, or on all of them, in slot k.
func (w *world) startOp(i, k int, kind byte, x int) {
	n := &w.n[i]
	op, id := &n.ops[k], uint64(k+1)
	*op = hostOp{kind: kind, floor: w.acked[i]}
	if kind == 's' {
		op.floor = n.ackedBy
		w.step(i, Sync{Op: id})
		return
	}
	for x2 := range w.scope.extents {
		if x2 == x || w.scope.wide {
			op.piece[x2] = waiting
		}
	}
	for x2 := range w.scope.extents {
		if op.piece[x2] != waiting {
			continue
		}
		if n.e.m.Begin() {
			if n.e.m.Enter(uint64(x2), kind == 'w') {
				w.enter(i, k, x2, entered)
				continue
			}
			w.end(i)
		}
		w.step(i, Want{Op: id, Extents: dirtymap.Range{First: uint64(x2), Count: 1}, Write: kind == 'w'})
	}
}

func (w *world) end(i int) {
	if w.n[i].e.m.End() {
		w.step(i, Quiet{})
	}
}

func (w *world) admitted(i int, a Admit) {
	if w.mayFail(i, a) {
		w.n[i].ops[a.Op-1] = hostOp{}
		return
	}
	if a.Err != nil {
		fail("%c host command failed: %v", 'X'+i, a.Err)
	}
	k := int(a.Op - 1)
	op := &w.n[i].ops[k]
	switch {
	case op.kind == 's':
		for x := range op.floor {
			w.flushed[x] = max(w.flushed[x], op.floor[x])
		}
		*op = hostOp{}
	case a.Kept != nil:
		op.kept[a.Extent] = a.Kept
		w.enter(i, k, int(a.Extent), withKept)
	default:
		w.enter(i, k, int(a.Extent), entered)
	}
}

func (w *world) enter(i, k, x int, p pieceState) {
	w.n[i].ops[k].piece[x] = p
	if !w.scope.slowHost {
		w.perform(i, k, x)
	}
}

// perform reads or writes one extent for the host command, and leaves it.
func (w *world) perform(i, k, x int) {
	n := &w.n[i]
	op := &n.ops[k]
	p := op.piece[x]
	op.piece[x] = finished
	switch {
	case op.kind == 'r' && op.dismissed:
	case op.kind == 'r' && !w.entitled(i):
		op.piece[x], op.written = unanswered, n.data[x]
		if p == withKept && !op.kept[x].Present.Empty() {
			op.written = op.kept[x].Data[0]
		}
	case p == withKept && !op.kept[x].Present.Empty():
		w.checkRead(i, x, op.floor[x], op.kept[x].Data[0])
	case op.kind == 'r':
		w.checkRead(i, x, op.floor[x], n.data[x])
	case w.scope.slowWrite && p == entered:
		w.store(i, x)
		op.piece[x] = stored
		return
	default:
		w.store(i, x)
		w.n[i].e.m.Wrote(uint64(x), 0, 1)
		if w.entitled(i) && !op.dismissed {
			w.acknowledge(i, x, n.data[x])
		} else if !op.dismissed {
			op.piece[x], op.written = unanswered, n.data[x]
		}
	}
	if !slices.ContainsFunc(op.piece[:], func(p pieceState) bool { return p != finished && p != notInOp }) {
		*op = hostOp{}
	}
	if p == entered && n.e.m.Exit(uint64(x)) {
		w.step(i, Drained{Extent: uint64(x)})
	}
	w.end(i)
}

// wrote tells the map of what is stored, and ends the write.
func (w *world) wrote(i, k, x int) {
	n := &w.n[i]
	n.e.m.Wrote(uint64(x), 0, 1)
	w.acknowledge(i, x, n.data[x])
	n.ops[k].piece[x] = finished
	if !slices.ContainsFunc(n.ops[k].piece[:], func(p pieceState) bool { return p != finished && p != notInOp }) {
		n.ops[k] = hostOp{}
	}
	if n.e.m.Exit(uint64(x)) {
		w.step(i, Drained{Extent: uint64(x)})
	}
	w.end(i)
}

func (w *world) checkRead(i, x int, floor, v uint8) {
	if floor = min(floor, w.acked[i][x]); v < floor || v > w.latest[x] && !w.given[x] && !w.apart {
		fail("%c read %d from extent %d; acknowledged before: %d, latest: %d", 'X'+i, v, x, floor, w.latest[x])
	}
}

func (w *world) store(i, x int) {
	n := &w.n[i]
	if n.data[x] != w.latest[x] && !w.lossPending && !w.given[x] && !w.apart {
		fail("%c writes extent %d over %d, latest: %d", 'X'+i, x, n.data[x], w.latest[x])
	}
	w.top[x]++
	w.from[x][w.top[x]] = n.data[x]
	n.data[x], w.latest[x], n.rotten[x] = w.top[x], w.top[x], false
}

// acknowledge answers a write at node i.
func (w *world) acknowledge(i, x int, v uint8) {
	w.acked[i][x], w.n[i].ackedBy[x] = v, v
	if !w.apart || w.n[0].e.join.phase == joined && w.n[1].e.join.phase == joined {
		w.acked[1-i][x] = v
	}
	w.known[x] |= 1 << v
	if w.lossPending {
		w.since[i][x] = v
	}
}

// cut ends the link; each node notices in its own time (or crashes before).
func (w *world) cut() { w.alive = false }

func (w *world) disconnect(i int) {
	w.n[i].connected = false
	w.ctrl[i], w.bulk[i] = nil, [maxStreams][]wire.Message{}
	w.step(i, Disconnected{})
	w.noteLoss(1 - i)
}

// crash ends node i's process, or its operating system; kept is how many of the
// log entries under way have made it. An operating system takes with it what was
// not flushed, or not.
func (w *world) crash(i int, os, lose bool, kept int) {
	n, peer := &w.n[i], &w.n[1-i]
	w.alive = false
	w.ctrl[i], w.bulk[i] = nil, [maxStreams][]wire.Message{}
	w.noteLoss(1 - i)
	if os {
		w.lossPending, w.lossDue[i] = true, true
		w.since[i] = content{}
		if !peer.connected {
			w.noteLoss(i)
		}
	}
	for _, a := range n.pending {
		if l, ok := a.(Log); ok && kept > 0 {
			w.logged(i, l)
			kept--
		}
	}
	if os {
		n.crashed, n.ackedBy = true, content{}
		if lose {
			n.data = n.base
		}
	}
	w.boot(i)
	w.restarted(i, os)
}

// noteLoss reckons what node i's operating system crash may cost: writes that its
// host did not flush, unless the other site had taken them over when it noticed.
func (w *world) noteLoss(i int) {
	if !w.lossDue[i] {
		return
	}
	w.lossDue[i] = false
	peer := &w.n[1-i]
	single := w.scope.os+w.scope.pc == 1
	for x := range w.scope.extents {
		floor := w.flushed[x]
		if peer.e.m.State(uint64(x))&dirtymap.Stale == 0 && !peer.crashed &&
			(single || peer.log[x]&dirtymap.Stale == 0 && peer.base[x] == peer.data[x]) {
			floor = max(floor, peer.data[x])
		}
		w.lossFloor[x] = max(w.lossFloor[x], floor)
	}
}

// checkJoin looks at what a join has made the truth.
func (w *world) checkJoin(i int) {
	for x := range w.scope.extents {
		owner := i
		if w.n[i].e.m.State(uint64(x))&dirtymap.Stale != 0 {
			owner = 1 - i
		}
		v := w.n[owner].data[x]
		switch {
		case w.given[x] && !w.apart && !w.lossPending && !w.has(x, v, w.acked[w.taker[x]][x]):
			fail("extent %d: joined at %d, %c has acknowledged %d alone", x, v, 'X'+w.taker[x], w.acked[w.taker[x]][x])
		case w.given[x] || w.apart:
		case w.lossPending && v < max(w.lossFloor[x], w.since[0][x], w.since[1][x]):
			fail("extent %d: joined at %d, must have kept %d", x, v, w.lossFloor[x])
		case !w.lossPending && v != w.latest[x]:
			fail("extent %d: joined at %d, latest %d", x, v, w.latest[x])
		case w.flushed[x] > v:
			fail("extent %d: joined at %d, flushed %d", x, v, w.flushed[x])
		}
		w.latest[x], w.acked[0][x], w.acked[1][x], w.lossFloor[x] = v, v, v, 0
		w.flushed[x] = min(w.flushed[x], v) // what was more was given up
		for k := range w.n {
			w.n[k].ackedBy[x] = min(w.n[k].ackedBy[x], v)
		}
	}
	w.lossPending, w.since, w.given = false, [2]content{}, [maxExtents]bool{}
	w.apart = w.apart && w.n[0].e.role.Serve != ServeNone && w.n[1].e.role.Serve != ServeNone
}

// check looks at the invariants of section 2 of the protocol.
func (w *world) check() {
	w.checkRoles()
	a, b := w.n[0].e, w.n[1].e
	for x := range uint64(w.scope.extents) {
		for i, e := range []*Engine{a, b} {
			if !e.m.Dirty(x).Empty() && e.m.State(x)&dirtymap.Held == 0 {
				fail("I2: extent %d dirty at %c, which does not own it", x, 'X'+i)
			}
		}
		if a.join.phase != joined || b.join.phase != joined {
			continue
		}
		s, t := a.m.State(x), b.m.State(x)
		if s&dirtymap.Held != 0 && t&dirtymap.Stale == 0 || t&dirtymap.Held != 0 && s&dirtymap.Stale == 0 {
			fail("I1: extent %d is %v at X and %v at Y", x, s, t)
		}
		if !w.quiet() {
			continue
		}
		if s&t&dirtymap.Stale != 0 {
			fail("I1: extent %d is stale at both", x)
		}
		if s.Shared() && t.Shared() && w.n[0].data[x] != w.n[1].data[x] {
			fail("I3: extent %d is in sync with %d at X and %d at Y", x, w.n[0].data[x], w.n[1].data[x])
		}
	}
}

// quiet: nothing is in flight.
func (w *world) quiet() bool {
	if !w.alive {
		return false
	}
	for i := range w.n {
		if len(w.ctrl[i])+len(w.bulk[i][0])+len(w.bulk[i][1])+len(w.n[i].pending) > 0 {
			return false
		}
	}
	return true
}

// clone copies everything that steps change.
func (w *world) clone() *world {
	c := *w
	for i := range c.n {
		n := &c.n[i]
		n.e = n.e.clone(n.ops[:])
		n.pending = slices.Clone(n.pending)
	}
	return &c
}

func (e *Engine) clone(ops []hostOp) *Engine {
	c := *e
	c.m = cloneMap(e.m, ops)
	c.cfg.Map = c.m
	c.entries = make(map[uint64]*entry, len(e.entries))
	for ext, en := range e.entries {
		copied := *en
		copied.waiters = slices.Clone(en.waiters)
		if en.watch != nil {
			watch := *en.watch
			copied.watch = &watch
		}
		c.entries[ext] = &copied
	}
	c.ops, c.work, c.relaxed, c.jobs = maps.Clone(e.ops), maps.Clone(e.work), maps.Clone(e.relaxed), maps.Clone(e.jobs)
	c.txSeq, c.rxSeq = slices.Clone(e.txSeq), slices.Clone(e.rxSeq)
	c.flush.extents, c.flush.syncs, c.syncs = maps.Clone(e.flush.extents), slices.Clone(e.flush.syncs), slices.Clone(e.syncs)
	c.join.early = slices.Clone(e.join.early)
	if e.join.outcome != nil {
		o := *e.join.outcome
		o.Changes = slices.Clone(o.Changes)
		c.join.outcome = &o
	}
	c.join.salvage.whole, c.join.salvage.dirty = slices.Clone(e.join.salvage.whole), slices.Clone(e.join.salvage.dirty)
	c.join.full, c.full = slices.Clone(e.join.full), slices.Clone(e.full)
	c.out, c.acks, c.replies, c.clears, c.toMark, c.toOwn = nil, nil, nil, nil, nil, nil
	c.toFetch, c.toLog, c.waitLog, c.toRelax, c.later = [2][]uint64{}, nil, nil, nil, nil
	return &c
}

func cloneMap(m *dirtymap.Map, ops []hostOp) *dirtymap.Map {
	c := dirtymap.New(m.Geometry())
	c.Tick(10)
	c.Open()
	for _, op := range ops {
		for _, p := range op.piece {
			if p == entered || p == withKept || p == stored {
				c.Begin()
			}
		}
	}
	if !m.Begin() {
		c.Shut()
	} else {
		m.End()
	}
	for ext := range m.Geometry().Extents() {
		s := m.State(ext)
		if s&dirtymap.Held != 0 {
			c.Own(ext)
			c.SetDirty(ext, m.Dirty(ext))
		}
		c.Set(ext, s)
		for range m.Users(ext) {
			c.Pin(ext)
		}
	}
	return c
}
