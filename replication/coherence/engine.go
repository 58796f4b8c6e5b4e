package coherence

import (
	"errors"
	"fmt"
	"slices"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/wire"
)

// request is what one node asks of the other for an extent.
type request uint8

const (
	none request = iota
	mark
	fetchRead
	fetchOwn
)

// serving is how far the peer's request for an extent has come.
type serving uint8

const (
	idle       serving = iota
	aside              // must wait for something of ours
	draining           // local commands are leaving
	collecting         // the dirty blocks are being read
	cleaning           // the replica is being flushed
	logging            // the grant is being made durable
)

// entry is an extent with something going on. An extent without one is in the
// state that the map says, and at rest.
type entry struct {
	waiters []waiter

	// Our request.
	pend    request
	reply   *wire.FetchItem // arrived; waits for copies under way, or is being stored
	storing bool
	hungry  bool // in Engine.hungry

	// The peer's request.
	peer   request
	peerID uint64
	phase  serving
	data   wire.Blocks // collected, for the reply

	logged   uint64 // token of the entry that logs this tenure; 0: none under way
	copies   int    // COPYs being written here
	floors   []uint64
	copyJob  uint64        // token of the COPY that is under way to the peer; 0: none
	copyMask dirtymap.Mask // and the blocks in it

	watch *watch // a comparison of both replicas (verify.go)
}

// waiter is a host command that waits for an extent.
type waiter struct {
	op    uint64
	write bool
	asked bool // it waited when the FETCH that is under way was sent
}

func (en *entry) atRest() bool {
	return len(en.waiters) == 0 && en.pend == none && en.peer == none && en.logged == 0 &&
		en.copies == 0 && en.floors == nil && en.copyJob == 0 && en.watch == nil
}

// Engine is the protocol for one replica of one LUN.
type Engine struct {
	cfg Config
	m   *dirtymap.Map
	geo dirtymap.Geometry
	mut mutation // tests only
	// keep decides, in tests, whether a FETCH for reading is answered with keep.
	keep func(ext uint64) bool

	entries map[uint64]*entry
	ops     map[uint64]op // host commands that wait
	work    map[uint64]work
	token   uint64
	request uint64 // the last number of a MARK or FETCH
	now     uint32
	stopped bool // no host is served any more
	fault   error
	second  uint32 // in which a Tick last began a flush

	// FETCHes under way, in extents, and extents that wait for room to send theirs.
	fetching int
	hungry   []uint64

	// The link.
	link  uint32   // which connection; work of another one is orphaned
	txSeq []uint64 // per bulk stream: COPYs sent
	rxSeq []uint64 // per bulk stream: COPYs received
	mixed uint64   // the peer's atomic writes, as its last message with data says
	join  join

	// The role (role.go).
	role       Role
	aloneTerm  uint64           // as RoleState's
	aloneSince uint32           // when this replica began to serve alone, in ticks
	fork       bool             // as RoleState's
	full       []dirtymap.Range // of the prepared outcome: extents that are dirty as a whole; nil: all that are owned

	// Flushing (flush.go).
	relaxed  map[uint64]struct{} // extents to look at after a flush that begins later
	flush    flush
	syncs    []uint64 // host SYNCs for the next flush
	relaxing int      // log entries under way that take volatile off
	cleaning int      // extents that are granted after a flush

	// The copier (copy.go).
	jobs       map[copyID]uint64 // token of each COPY sent
	copyFrom   uint64
	copySingly int    // how many COPYs to come have one extent only
	copyPause  uint32 // no COPY before this tick
	coldFrom   uint64

	peerVerifying int // VERIFYs of the peer's that were not answered (verify.go)

	// This step's.
	out     []Action
	acks    []ack
	replies []reply
	clears  []uint64
	toMark  []uint64
	toOwn   []uint64
	toFetch [2][]uint64 // read, own
	toLog   []Change    // and the extents whose entry waits for it
	waitLog []uint64
	toRelax []Change
	later   []wire.Message

	stats Stats
}

// op is a host command that waits for extents.
type op struct {
	extents dirtymap.Range
	left    uint64 // extents that it has not been admitted to
}

// New makes the engine of a replica whose map was filled from its map file.
func New(cfg Config) *Engine {
	e := &Engine{
		cfg:     cfg,
		m:       cfg.Map,
		geo:     cfg.Map.Geometry(),
		entries: map[uint64]*entry{},
		ops:     map[uint64]op{},
		work:    map[uint64]work{},
		relaxed: map[uint64]struct{}{},
		jobs:    map[copyID]uint64{},
	}
	e.join.restarted = cfg.Kept == nil
	e.role = Role{Term: cfg.Term, ID: cfg.ID, Serve: cfg.Serve, Loss: cfg.Loss}
	e.aloneTerm, e.fork = cfg.AloneTerm, cfg.Fork
	for run, s := range e.m.Runs(e.m.All(), dirtymap.Held|dirtymap.Volatile) {
		if s&dirtymap.Held != 0 {
			e.restoreOwned(run)
		}
		if s&dirtymap.Volatile != 0 {
			e.restoreVolatile(run)
		}
	}
	return e
}

// restoreOwned takes over extents that the map file says are OWNED. Which of their blocks
// are dirty is not known, and a join finds that out, unless the engine before knew: then of
// what it did not have, all counts.
func (e *Engine) restoreOwned(r dirtymap.Range) {
	e.m.OwnRange(r)
	e.m.ChangeRange(r, 0, dirtymap.Logged)
	kept := e.cfg.Kept
	if kept == nil {
		return
	}
	for ext := r.First; ext < r.End(); ext++ {
		dirty := e.geo.Full(ext)
		if ext < kept.Geometry().Extents() && kept.State(ext)&dirtymap.Held != 0 {
			dirty = kept.Dirty(ext)
		}
		e.m.SetDirty(ext, dirty)
	}
}

// restoreVolatile takes over extents that the map file says are volatile. What is lost is
// closed until a join, or serving alone, has settled who has it.
func (e *Engine) restoreVolatile(r dirtymap.Range) {
	if e.cfg.Crashed {
		e.m.ChangeRange(r, 0, dirtymap.Closing)
		return
	}
	for ext := r.First; ext < r.End(); ext++ {
		e.relax(ext)
	}
}

// Restarted tells whether the engine does not know which blocks of its extents are
// dirty, as after a start, until it has joined.
func (e *Engine) Restarted() bool { return e.join.restarted }

// Prefer says whether this node is the preferred one, when the replica gets another peer: not
// while there is a peer.
func (e *Engine) Prefer(yes bool) {
	if e.join.phase > alone {
		panic("coherence: the two replicas cannot agree on another preferred node while they are linked")
	}
	e.cfg.Preferred = yes
}

// Stats returns the counters.
func (e *Engine) Stats() Stats {
	s := e.stats
	s.Serving, s.Alone = e.m.Serving(), e.join.phase == alone
	s.Waiting = len(e.ops)
	return s
}

// Step applies one event and returns what the owner must do, in order. It never
// blocks and reads no clock. The slice is good until the next Step.
func (e *Engine) Step(ev Event) []Action {
	e.out = e.out[:0]
	switch ev := ev.(type) {
	case Role:
		e.setRole(ev)
	case Stop:
		e.stopped = true
		e.regate()
	case Want:
		e.want(ev)
	case Sync:
		e.sync(ev.Op)
	case Cancel:
		e.cancel(ev.Op)
	case Drained:
		e.drained(ev.Extent)
	case Quiet:
		e.tryJoin()
	case Connected:
		e.connected(ev.Streams)
	case Disconnected:
		e.disconnected()
	case Received:
		e.received(ev.Msg)
	case ReceivedBulk:
		e.receivedBulk(ev.Stream, ev.Msg)
	case PeerStates:
		e.peerStates(ev)
	case Done:
		e.done(ev.Token, ev.Err)
	case Collected:
		e.collected(ev)
	case CopyRead:
		e.copyRead(ev)
	case CopyStored:
		e.copyStored(ev.Token, ev.Err)
	case CopyDurable:
		e.copyDurable(ev.Token)
	case Broken:
		e.fail(ev.Err)
	case Tick:
		e.tick(ev.Now)
	case CopyRoom:
		e.copyRoom(ev.Stream, ev.Blocks)
	case GiveBack:
		e.giveBack(ev.Extents)
	case Verify:
		e.verify(ev.Extent, &watch{op: ev.Op})
	case Digested:
		e.digested(ev)
	}
	e.finish()
	return e.out
}

func (e *Engine) do(a Action) { e.out = append(e.out, a) }

// finish turns what a step gathered into log entries and messages. Answers go
// first: a request for an extent must not overtake our answer for it.
func (e *Engine) finish() {
	e.sendAcks()
	e.sendReplies()
	e.sendClears()
	e.sendLater()
	e.sendMarks()
	e.sendFetches()
	e.markAlone()
	e.writeLog()
}

// work is an action under way.
type work struct {
	kind    kind
	link    uint32
	extents []uint64 // whose entries wait for it
	syncs   []uint64 // host SYNCs that wait for it
	stream  int
	seq     uint64
	id      uint64 // of the peer's message
}

type kind uint8

const (
	workLog kind = iota
	workRelax
	workFlush
	workWarm
	workJoin   // a flush or log entry of the join
	workCommit // the log entry with which a join takes effect
	workStore
	workCollect
	workCopyRead  // a COPY of ours, until it is sent
	workCopySent  // until it is acknowledged
	workCopyStore // a COPY of the peer's, until it is written
	workCopyFlush // until it is durable
	workSalvage
	workDigest
	workPeerDigest
)

// holdsJoin tells whether a join must wait: it changes the replica or the log.
func (w work) holdsJoin() bool {
	switch w.kind {
	case workCollect, workCopyRead, workCopySent, workCopyFlush, workDigest, workPeerDigest, workWarm:
		return false
	}
	return true
}

func (e *Engine) begin(w work) uint64 {
	e.token++
	w.link = e.link
	e.work[e.token] = w
	return e.token
}

// take ends an action. False: nothing is known of it, or it belongs to an
// earlier connection; only the join is told then.
func (e *Engine) take(token uint64, kinds ...kind) (work, bool) {
	w, ok := e.work[token]
	if !ok || !slices.Contains(kinds, w.kind) {
		return w, false
	}
	delete(e.work, token)
	return w, w.link == e.link
}

func (e *Engine) done(token uint64, err error) {
	w, current := e.take(token, workLog, workRelax, workFlush, workWarm, workJoin, workCommit, workStore, workSalvage)
	if err != nil && w.kind == workSalvage {
		e.salvageFailed(current, err)
		return
	}
	if err != nil {
		e.fail(fmt.Errorf("%s: %w", w.kind, err))
		return
	}
	switch w.kind {
	case workLog:
		e.logDone(token, w)
	case workRelax:
		e.relaxing--
		e.admitSyncs(w.syncs)
	case workFlush:
		e.flushed()
	case workWarm:
		if token == e.join.warm {
			e.quiesce()
		}
	case workJoin, workSalvage:
		if current {
			e.joinStep(token)
		}
	case workCommit:
		e.committed(current)
	case workStore:
		if current {
			e.fetchStored(w.extents)
		}
	}
	e.tryJoin()
}

func (k kind) String() string {
	switch k {
	case workLog, workRelax:
		return "write the map file"
	case workFlush, workWarm:
		return "flush the replica"
	case workJoin, workCommit:
		return "make the join durable"
	case workStore:
		return "store fetched blocks"
	case workCopyStore, workCopyFlush:
		return "store copied blocks"
	case workSalvage:
		return "salvage what is given up"
	}
	return "read the replica"
}

// at gets or makes the extent's entry.
func (e *Engine) at(ext uint64) *entry {
	en := e.entries[ext]
	if en == nil {
		en = &entry{}
		e.entries[ext] = en
	}
	return en
}

// kick moves an extent on as far as it goes now. The order keeps two busy sites
// alternating: those that wait here run first, then the peer has its turn, then
// we ask again.
func (e *Engine) kick(ext uint64) {
	en := e.entries[ext]
	if en == nil {
		return
	}
	switch e.join.phase {
	case joined:
		e.admit(ext, en)
		e.servePeer(ext, en)
		e.ask(ext, en)
	case alone:
		e.admit(ext, en)
		e.askNobody(ext, en)
	}
	if en.atRest() {
		delete(e.entries, ext)
	}
}

// violation is what the peer did against the protocol: only a bug or a stranger
// does that. The replicas part and join anew.
func (e *Engine) violation(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	e.do(Alarm{Text: "protocol violation by the peer: " + text})
	e.do(Disconnect{Reason: "protocol violation: " + text})
}

// ErrFaulted ends host commands when this replica cannot go on.
var ErrFaulted = errors.New("replica is out of service")

// fail gives up serving: the replica or its map file does not take writes. A flush
// that failed may have lost what was written before it, and no later one can tell.
// So the next start must not rely on what was not flushed.
func (e *Engine) fail(err error) {
	if e.fault != nil {
		return
	}
	e.fault = fmt.Errorf("%w: %w; mend the medium, then restart the daemon; what hosts have flushed, or the peer has taken over, is safe", ErrFaulted, err)
	e.relaxing++
	e.do(Log{Token: e.begin(work{kind: workRelax}), Distrust: true})
	e.do(Fault{Err: e.fault})
	e.refuse("the replica failed: " + err.Error())
	e.endAll(e.fault)
}
