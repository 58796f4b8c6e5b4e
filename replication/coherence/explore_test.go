package coherence

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/wire"
)

// move is something that can happen next.
type move struct {
	name string
	do   func(w *world)
}

// moves are all that can happen in a world.
func (w *world) moves() (ms []move) {
	add := func(name string, do func(w *world)) { ms = append(ms, move{name, do}) }
	for i := range w.n {
		w.hostMoves(i, add)
		w.peerMoves(i, add)
		w.faultMoves(i, add)
		w.roleMoves(i, add)
	}
	if w.alive && w.cuts > 0 {
		add("LINK CUT", func(w *world) { w.cuts--; w.cut() })
	}
	if !w.alive && !w.n[0].connected && !w.n[1].connected {
		add("CONNECT", func(w *world) { w.connect() })
	}
	return ms
}

func (w *world) hostMoves(i int, add func(string, func(*world))) {
	n, c := &w.n[i], string(rune('X'+i))
	k := slices.IndexFunc(n.ops[:max(w.scope.hosts, 1)], func(o hostOp) bool { return o.kind == 0 })
	if k >= 0 {
		for x := range w.scope.extents {
			if w.scope.wide && x > 0 {
				break
			}
			if n.reads > 0 {
				add(fmt.Sprintf("%s read %d", c, x), func(w *world) { w.n[i].reads--; w.startOp(i, k, 'r', x) })
			}
			if n.writes > 0 {
				add(fmt.Sprintf("%s write %d", c, x), func(w *world) { w.n[i].writes--; w.startOp(i, k, 'w', x) })
			}
		}
		if n.syncs > 0 {
			add(c+" sync", func(w *world) { w.n[i].syncs--; w.startOp(i, k, 's', 0) })
		}
	}
	if n.verifies > 0 && n.e.join.phase == joined {
		for x := range w.scope.extents {
			add(fmt.Sprintf("%s verifies %d", c, x), func(w *world) { w.verify(i, x) })
		}
	}
	for k, op := range n.ops {
		for x, p := range op.piece {
			if p == unanswered && w.entitled(i) {
				add(c+" answers", func(w *world) { w.answer(i, k, x) })
			}
			if p == stored {
				add(fmt.Sprintf("%s host has written %d", c, x), func(w *world) { w.wrote(i, k, x) })
			}
			if p == entered || p == withKept {
				add(fmt.Sprintf("%s host performs %d", c, x), func(w *world) { w.perform(i, k, x) })
			}
		}
	}
}

func (w *world) peerMoves(i int, add func(string, func(*world))) {
	n, c := &w.n[i], string(rune('X'+i))
	if q := w.ctrl[i]; len(q) > 0 {
		add(c+" receives "+describe(q[0]), func(w *world) {
			w.ctrl[i] = q[1:]
			if m, ok := q[0].(*wire.JoinMap); ok {
				states := []dirtymap.State{}
				for _, b := range m.Data {
					states = append(states, dirtymap.State(b))
				}
				w.step(i, PeerStates{dirtymap.Range{Count: uint64(len(states))}, states})
				return
			}
			m, ok := q[0].(*wire.Verified)
			w.n[i].told = ok && m.Outcome == wire.VerifyCompared
			w.step(i, Received{q[0]})
			w.n[i].told = false
		})
	}
	for stream, q := range w.bulk[i] {
		if len(q) > 0 {
			add(c+" receives "+describe(q[0]), func(w *world) { w.bulk[i][stream] = q[1:]; w.step(i, ReceivedBulk{stream, q[0]}) })
		}
	}
	logs := 0
	for k, a := range n.pending {
		if _, ok := a.(Log); ok {
			if logs++; logs > 1 {
				continue // the log is in order
			}
		}
		add(fmt.Sprintf("%s ends %T", c, a), func(w *world) { w.complete(i, k) })
	}
	if n.e.join.phase == joined {
		if n.e.m.DirtyBlocks() > 0 {
			for stream := range max(w.scope.streams, 1) {
				add(c+" copies", func(w *world) { w.step(i, CopyRoom{stream, 1}) })
			}
		}
		add(c+" gives back", func(w *world) { w.step(i, GiveBack{dirtymap.Range{Count: uint64(w.scope.extents)}}) })
		if len(n.e.relaxed) > 0 {
			add(c+" flushes", func(w *world) { w.step(i, Tick{n.e.now + TicksPerSecond}) })
		}
	}
}

func (w *world) faultMoves(i int, add func(string, func(*world))) {
	n, c := &w.n[i], string(rune('X'+i))
	if !w.alive && n.connected {
		add(c+" DISCONNECTED", func(w *world) { w.disconnect(i) })
	}
	logs := 0
	for _, a := range n.pending {
		if _, ok := a.(Log); ok {
			logs++
		}
	}
	for kept := range logs + 1 {
		if w.crashes > 0 {
			add(fmt.Sprintf("%s CRASH, %d log entries kept", c, kept), func(w *world) { w.crashes--; w.crash(i, false, false, kept) })
		}
		if w.osCrashes > 0 {
			add(fmt.Sprintf("%s OS CRASH, %d kept", c, kept), func(w *world) { w.osCrashes--; w.crash(i, true, true, kept) })
			add(fmt.Sprintf("%s OS CRASH, %d and the page cache kept", c, kept), func(w *world) { w.osCrashes--; w.crash(i, true, false, kept) })
		}
	}
}

func describe(m wire.Message) string { return strings.TrimPrefix(fmt.Sprintf("%T", m), "*wire.") }

// result is one outcome of a move.
type result struct {
	w    *world
	name string
}

// after does a move in a copy of the world, and, where the engine asks whether to
// keep, both ways.
func (w *world) after(m move) (results []result, bad string) {
	for _, keep := range []bool{false, true} {
		c, asked := w.clone(), false
		for i := range c.n {
			c.n[i].e.keep = func(uint64) bool { asked = true; return keep }
		}
		bad := c.try(m.do)
		name := m.name
		if keep {
			name += ", keeping"
		}
		results = append(results, result{c, name})
		if bad != "" || !asked {
			return results, bad
		}
	}
	return results, ""
}

// try runs f and the checks; what is broken comes back as text.
func (w *world) try(f func(*world)) (bad string) {
	defer func() {
		if r := recover(); r != nil {
			b, ok := r.(broken)
			if !ok {
				bad = fmt.Sprintf("panic: %v", r)
				if os.Getenv("EXPLORE_PANIC") != "" {
					panic(r)
				}
				return
			}
			bad = b.text
		}
	}()
	f(w)
	w.check()
	return ""
}

// settle lets a world run without faults until nothing changes: everything that
// was asked must be answered, and both replicas must be the same.
func (w *world) settle() (bad string) {
	c := w.clone()
	c.scope = &scope{extents: w.scope.extents, rotten: w.scope.rotten, wide: w.scope.wide, streams: w.scope.streams, hosts: w.scope.hosts, mut: w.scope.mut, roles: w.scope.roles, pc: w.scope.pc, os: w.scope.os}
	for i := range c.n {
		c.n[i].reads, c.n[i].writes, c.n[i].syncs, c.n[i].verifies = 0, 0, 0, 0
		c.n[i].e.keep = nil
	}
	c.cuts, c.crashes, c.osCrashes = 0, 0, 0
	c.takes, c.joins, c.forces, c.settling = 0, 0, 0, true
	return c.try(func(*world) {
		for range 2000 {
			ms := c.moves()
			ms = slices.DeleteFunc(ms, func(m move) bool { return strings.HasSuffix(m.name, "gives back") })
			if len(ms) == 0 {
				c.atRest()
				return
			}
			slices.SortStableFunc(ms, func(a, b move) int { return patience(a) - patience(b) })
			if os.Getenv("EXPLORE_TRAIL") != "" {
				fmt.Println("   ", ms[0].name, c.n[0].e.m.State(0), c.n[1].e.m.State(0), c.n[0].e.join.phase, c.n[1].e.join.phase)
			}
			ms[0].do(c)
			c.check()
		}
		fail("still moving after 2000 steps")
	})
}

// patience puts what engines do of themselves behind what is under way.
func patience(m move) int {
	switch {
	case strings.HasSuffix(m.name, "copies"):
		return 1
	case strings.HasSuffix(m.name, "flushes"):
		return 2
	}
	return 0
}

func (w *world) atRest() {
	for i := range w.n {
		n := &w.n[i]
		switch {
		case n.ops != [maxOps]hostOp{} && w.n[1-i].forced.Term == 0:
			fail("stuck: a host command at %c waits for ever: %v", 'X'+i, n.ops)
		case n.verifying > 0:
			fail("stuck: %c waits for a verdict for ever", 'X'+i)
		case n.e.join.phase != joined:
			fail("stuck: %c does not join (phase %d)", 'X'+i, n.e.join.phase)
		case n.e.m.DirtyBlocks() > 0 || n.e.stats.CopyingBlocks != 0:
			fail("stuck: %c has %d dirty blocks, %d being copied", 'X'+i, n.e.m.DirtyBlocks(), n.e.stats.CopyingBlocks)
		}
	}
	for x := range w.scope.extents {
		if a, b := w.n[0].data[x], w.n[1].data[x]; a != b || a != w.latest[x] {
			fail("at rest extent %d is %d at X, %d at Y, latest %d", x, a, b, w.latest[x])
		}
	}
}

type hash [16]byte

// hash names a world up to the names of tokens and requests.
func (w *world) hash() hash {
	b := make([]byte, 0, 512)
	for i := range w.n {
		b = w.n[i].appendTo(b)
		b = appendMessages(b, w.ctrl[i])
		for _, q := range w.bulk[i] {
			b = appendMessages(b, q)
		}
	}
	b = fmt.Appendf(b, "%v%v%v%v%v%v%v%v%v%v%v%v%v%v", w.raft, w.checked, w.lossDue, w.since, w.alive, w.latest, w.top, w.acked, w.flushed, w.lossFloor, w.lossPending, w.cuts, w.crashes, w.osCrashes)
	sum := sha256.Sum256(b)
	return hash(sum[:16])
}

func (n *node) appendTo(b []byte) []byte {
	e := n.e
	tokens := sortedKeys(e.work)
	index := func(token uint64) int { return slices.Index(tokens, token) }
	b = fmt.Appendf(b, "|%v%v%v%v%v%d%v%v%d%d%d%v", n.connected, n.data, n.base, n.log, brief(n.state), n.committed,
		n.prepared, n.crashed, n.reads, n.writes, n.syncs, n.ackedBy)
	b = fmt.Appendf(b, "%v%d%d%d", n.rotten, n.verifies, n.verifying, n.found)
	b = fmt.Appendf(b, "%v%v%d%v%v", n.member, e.role, e.aloneTerm, e.fork, e.join.salvage)
	for _, op := range n.ops {
		b = fmt.Appendf(b, "o%c%v%v%d%v", op.kind, op.piece, op.floor, op.written, op.dismissed)
		for _, k := range op.kept {
			if k != nil {
				b = fmt.Appendf(b, "k%v", k.Data)
			}
		}
	}
	for _, t := range tokens {
		work := e.work[t]
		b = fmt.Appendf(b, "w%d%v%v%v%d", work.kind, work.link == e.link, work.extents, work.syncs, work.seq)
	}
	for _, a := range n.pending {
		b = fmt.Appendf(b, "p%T%d", a, index(tokenOf(a)))
		if f, ok := a.(flushNow); ok {
			b = fmt.Appendf(b, "%v", f.data)
		}
		if s, ok := a.(Store); ok {
			b = fmt.Appendf(b, "%v", s.Items)
		}
		if s, ok := a.(StoreCopy); ok {
			b = fmt.Appendf(b, "%v", s.Items)
		}
		if l, ok := a.(Log); ok {
			b = fmt.Appendf(b, "%v%v%d%v", l.Changes, l.Prepare, l.Commit, l.Role)
		}
	}
	for _, ext := range sortedKeys(e.entries) {
		en := e.entries[ext]
		b = fmt.Appendf(b, "e%d%v%d%v%v%d%d%v%d%d%v%d%v", ext, en.waiters, en.pend, en.reply, en.storing, en.peer, en.phase, en.data.Data,
			index(en.logged), en.copies, en.floors, index(en.copyJob), en.copyMask[0])
		if v := en.watch; v != nil {
			b = fmt.Appendf(b, "v%v%v%v%v%v%d%v%v", v.peer, v.away, v.broken, v.failed, v.draining, v.copied[0], v.here, v.there)
		}
	}
	for ext := range e.geo.Extents() {
		b = append(b, byte(e.m.State(ext)), byte(e.m.Users(ext)), byte(e.m.Dirty(ext)[0]))
	}
	j := e.join
	b = fmt.Appendf(b, "j%d%d%d%d%v%d%v%v%d%v%v%v%v", index(j.warm), j.phase, j.term, j.least, j.restarted, index(j.token), j.peer, j.early, j.next, j.outcome, append(j.full, e.full...), j.ready, j.finished)
	b = fmt.Appendf(b, "%d%d%v%v%v%v%v%d%d", e.txSeq, e.rxSeq, sortedKeys(e.relaxed), sortedKeys(e.flush.extents), e.flush.syncs, e.syncs, e.ops, e.relaxing*100+e.cleaning, len(e.jobs))
	return fmt.Appendf(b, "%v%d%v%v", brief(e.cfg.RoleState), e.cfg.Committed, e.cfg.Prepared, e.cfg.Crashed)
}

func tokenOf(a Action) uint64 {
	switch a := a.(type) {
	case Log:
		return a.Token
	case flushNow:
		return a.token
	case Collect:
		return a.Token
	case Store:
		return a.Token
	case StoreCopy:
		return a.Token
	case ReadCopy:
		return a.Token
	case Digest:
		return a.Token
	}
	return 0
}

// appendMessages leaves the numbers of requests out: nothing depends on them.
func appendMessages(b []byte, ms []wire.Message) []byte {
	for _, m := range ms {
		switch m := m.(type) {
		case *wire.Mark:
			b = fmt.Appendf(b, "M%v", m.Ranges)
		case *wire.MarkAck:
			b = fmt.Appendf(b, "A%v", m.Grants)
		case *wire.Fetch:
			b = fmt.Appendf(b, "F%v%v", m.Own, m.Ranges)
		case *wire.FetchReply:
			b = fmt.Appendf(b, "R%v", m.Floors)
			for _, i := range m.Items {
				b = fmt.Appendf(b, "%d%d%d%v", i.Extent, i.Outcome, i.Turn, i.Data)
			}
		case *wire.Verify:
			b = fmt.Appendf(b, "V%d%v", m.Extent, m.Compare)
		case *wire.Verified:
			b = fmt.Appendf(b, "D%d%d%v%d%d%v", m.Extent, m.Outcome, m.Owned, m.Differ[0], m.Skipped[0], m.Digests)
		case *wire.Copy:
			b = fmt.Appendf(b, "C%d", m.Seq)
			for _, i := range m.Items {
				b = fmt.Appendf(b, "%d%v", i.Extent, i.Data)
			}
		default:
			b = fmt.Appendf(b, "%T%v", m, m)
		}
		b = binary.LittleEndian.AppendUint16(b, 0xffff)
	}
	return append(b, ';')
}

// step of the way to a world.
type way struct {
	from int32
	name string
}

// explore visits every world within the scope, nearest first. It returns the
// first violation with the shortest way there, and how many worlds it saw.
func explore(s *scope) (bad string, trail []string, count int) {
	first := newWorld(s)
	seen := map[hash]struct{}{first.hash(): {}}
	ways := []way{{-1, "start"}}
	names := map[string]string{} // one copy of each, for millions of ways
	queue := []*world{first}
	at := int32(0)
	for ; len(queue) > 0; at++ {
		w := queue[0]
		queue[0] = nil
		queue = queue[1:]
		for _, m := range w.moves() {
			results, bad := w.after(m)
			for k, r := range results {
				if bad != "" && k == len(results)-1 {
					return bad, append(trailTo(ways, at), r.name), len(seen)
				}
				h := r.w.hash()
				if _, known := seen[h]; known {
					continue
				}
				seen[h] = struct{}{}
				if h[0]%8 == 0 {
					if bad := r.w.settle(); bad != "" {
						return "left alone: " + bad, append(trailTo(ways, at), r.name), len(seen)
					}
				}
				if s.max > 0 && len(seen) > s.max || !s.until.IsZero() && time.Now().After(s.until) {
					return "", nil, len(seen)
				}
				if _, ok := names[r.name]; !ok {
					names[r.name] = r.name
				}
				ways = append(ways, way{at, names[r.name]})
				queue = append(queue, r.w)
			}
		}
	}
	return "", nil, len(seen)
}

func trailTo(ways []way, at int32) (trail []string) {
	for ; at >= 0; at = ways[at].from {
		trail = append(trail, ways[at].name)
	}
	slices.Reverse(trail)
	return trail
}

// scopes are what a test run explores, nearest states first, up to the bounds that
// soak gives.
var scopes = []scope{
	{name: "keep", extents: 1, hosts: 2, reads: [2]int{0, 2}, writes: [2]int{2, 0}},
	{name: "floors", extents: 1, streams: 2, reads: [2]int{0, 1}, writes: [2]int{2, 1}},
	{name: "volatile", extents: 1, reads: both(1), writes: both(1), os: 1, syncs: 1},
	{name: "quiet link", extents: 1, reads: both(1), writes: both(2)},
	{name: "slow disk and host", extents: 1, reads: both(1), writes: both(1), slowDisk: true, slowHost: true},
	{name: "link cuts", extents: 1, reads: both(1), writes: both(2), cuts: 2},
	{name: "link cut, slow disk", extents: 1, writes: both(1), cuts: 1, slowDisk: true, slowHost: true},
	{name: "process crash", extents: 1, reads: both(1), writes: both(2), pc: 1},
	{name: "process crash, slow disk", extents: 1, writes: both(1), pc: 1, slowDisk: true},
	{name: "crash and cut", extents: 1, writes: both(1), pc: 1, cuts: 1},
	{name: "operating system crash", extents: 1, reads: both(1), writes: both(2), syncs: 1, os: 1},
	{name: "both operating systems crash", extents: 1, writes: both(1), syncs: 1, os: 2},
	{name: "new replica", extents: 1, reads: both(1), writes: both(1), cuts: 1, fresh: [2]bool{false, true}},
	{name: "both replicas new", extents: 1, writes: both(1), cuts: 2, fresh: [2]bool{true, true}, blank: true},
	{name: "both operating systems crash after a read", extents: 1, reads: [2]int{1, 0}, writes: [2]int{1, 2}, syncs: 1, os: 2},
	{name: "two syncs", extents: 1, hosts: 2, writes: [2]int{1, 1}, syncs: 2, os: 1, slowDisk: true},
	{name: "two extents", extents: 2, reads: both(1), writes: both(1), wide: true},
}

func both(n int) [2]int { return [2]int{n, n} }

// soak bounds the exploration of one scope: in a test run by a number of states, in
// a soak (TWINLUN_SOAK=20m: the time for all scopes) by time and memory.
func soak() (states int, until time.Time) {
	d, err := time.ParseDuration(os.Getenv("TWINLUN_SOAK"))
	if err != nil {
		return 30_000, time.Time{}
	}
	return 4_000_000, time.Now().Add(d / time.Duration(len(scopes)+len(roleScopes)+len(verifyScopes)))
}

func TestExplore(t *testing.T) {
	for _, s := range slices.Concat(scopes, roleScopes, verifyScopes) {
		t.Run(strings.ReplaceAll(s.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			s.max, s.until = soak()
			bad, trail, n := explore(&s)
			if bad != "" {
				t.Fatalf("%s\nafter %d states, by way of\n  %s", bad, n, strings.Join(trail, "\n  "))
			}
			t.Logf("%d states", n)
		})
	}
}

// TestMutations puts faults into the engine that the exploration must find: each
// is a rule of the protocol that looks as if one could do without it.
func TestMutations(t *testing.T) {
	for _, s := range []scope{
		{name: "a keep answer is used for a later read", mut: keepForLater, extents: 1, hosts: 2, reads: [2]int{0, 2}, writes: [2]int{2, 0}},
		{name: "no floor", mut: noFloor, extents: 1, streams: 2, reads: [2]int{0, 1}, writes: [2]int{2, 1}},
		{name: "turns left out", mut: noTurns, extents: 1, writes: both(1), cuts: 1},
		{name: "volatile ignored", mut: noVolatile, extents: 1, reads: both(1), writes: both(1), os: 1, syncs: 1},
		{name: "crossing MARKs both granted", mut: noTieBreak, extents: 1, writes: both(1)},
	} {
		t.Run(strings.ReplaceAll(s.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			s.max = 200000
			bad, trail, n := explore(&s)
			if bad == "" {
				t.Fatalf("not found in %d states", n)
			}
			t.Logf("found after %d states: %s\n  %s", n, bad, strings.Join(trail, "\n  "))
		})
	}
}
