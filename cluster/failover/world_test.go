package failover

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/twinlun/twinlun/cluster/catalog"
)

// Times of the tests are in units of their own.
var settings = catalog.Settings{Heartbeat: 250, Lease: 1000, PreferredDelay: 250}

var names = [2]catalog.NodeID{"a", "b"}

// world is two nodes, the cluster's log, and what is on its way between them.
type world struct {
	mut   mutation
	luns  int
	rates [2]int64 // of the nodes' clocks, in hundredths
	grace Time     // Config.Grace

	forced   [2]bool // a node was, once
	served   [2]bool // and has answered by that
	followed [2]bool // and has heard that it was too late, and followed the others

	time      int64
	log       string // agreed commands, encoded by entry.text
	proposals []entry
	net       [2][]any // messages to each node
	n         [2]node
	lives     uint64
}

// node is a node of the world: its machine, and what the machine had it do.
type node struct {
	m       *Machine
	born    bool // it has applied something in this life
	applied int  // entries of the log
	disk    map[catalog.UUID]Memo
	writing []Remember // in order
	roles   map[catalog.UUID]Role
	until   Time
}

// entry is a command of the log.
type entry struct {
	kind Kind
	node int
	luns []catalog.Step
}

func (e entry) text() string {
	text := fmt.Sprint(e.kind, e.node)
	for _, s := range e.luns {
		text += fmt.Sprintf(",%d:%d", s.LUN[0], s.Term)
	}
	return text + ";"
}

func lunID(i int) catalog.UUID { return catalog.UUID{byte(i + 1), 15: 1} }

// base is a catalog with both nodes, a witness and LUNs that both serve; node a is
// preferred for the first, b for the second, and so on.
var base = sync.OnceValue(func() *catalog.State {
	s := catalog.New()
	do := func(b catalog.Body) {
		raw, err := catalog.Command{ID: catalog.UUID{15: byte(s.Index() + 1)}, Time: 1, Body: b}.Encode()
		if err != nil {
			panic(err)
		}
		var res catalog.Result
		if s, res, err = s.Apply(s.Index()+1, raw); err != nil || res.Error != nil {
			panic(fmt.Sprint(err, res.Error))
		}
	}
	node := func(i byte, name catalog.NodeID) catalog.NewNode {
		return catalog.NewNode{Name: name, Site: string(name), Addresses: []string{"h:1"}, Key: catalog.Hash{i}, Voter: true, Version: 1}
	}
	do(&catalog.InitCluster{Cluster: catalog.Cluster{ID: catalog.UUID{1}, Name: "test"}, Node: node(1, "a")})
	do(&catalog.AddToken{Hash: catalog.Hash{1}, Expires: 2})
	do(&catalog.AdmitNode{Token: catalog.Hash{1}, Node: node(2, "b")})
	for i := range 3 {
		do(&catalog.AddLUN{
			ID: lunID(i), Name: fmt.Sprint("lun", i), Size: 1 << 20, BlockSize: 512, ExtentSize: 65536, NAA: catalog.NAA{0x60, 15: byte(i)},
			Replicas:  []catalog.Replica{{Node: "a", Kind: "file", Path: fmt.Sprint("/", i)}, {Node: "b", Kind: "file", Path: fmt.Sprint("/", i)}},
			Preferred: names[i%2], Loss: catalog.Hold, Epoch: catalog.UUID{1},
		})
	}
	return s
})

// states are the catalogs after logs; made by the real one.
var states sync.Map // of string to *catalog.State

func stateAfter(log string) *catalog.State {
	if log == "" {
		return base()
	}
	if s, found := states.Load(log); found {
		return s.(*catalog.State)
	}
	cut := strings.LastIndex(log[:len(log)-1], ";") + 1
	s := stateAfter(log[:cut])
	raw, err := catalog.Command{ID: catalog.UUID{0: 9, 7: byte(len(log) >> 8), 8: byte(len(log)), 15: 1}, Time: 1, Body: body(log[cut:])}.Encode()
	if err != nil {
		panic(err)
	}
	next, _, err := s.Apply(s.Index()+1, raw)
	if err != nil {
		panic(err)
	}
	states.Store(log, next)
	return next
}

// body is the command of an entry's text.
func body(text string) catalog.Body {
	parts := strings.Split(strings.TrimSuffix(text, ";"), ",")
	var kind Kind
	var node int
	fmt.Sscanf(parts[0], "%d %d", &kind, &node)
	s := catalog.Steps{Node: names[node], Epoch: catalog.UUID{2}}
	for _, p := range parts[1:] {
		var step catalog.Step
		fmt.Sscanf(p, "%d:%d", &step.LUN[0], &step.Term)
		step.LUN[15] = 1
		s.LUNs = append(s.LUNs, step)
	}
	switch kind {
	case TakeAlone:
		return &catalog.TakeAlone{Steps: s}
	case JoinBoth:
		return &catalog.JoinBoth{Steps: s}
	case ForceAlone:
		s.Epoch = forcedEpoch(node)
		return &catalog.ForceAlone{Steps: s}
	}
	return &catalog.Leave{Steps: s}
}

// forcedEpoch names the term that a node is forced to begin; it is so once at most.
func forcedEpoch(node int) catalog.UUID { return catalog.UUID{3, byte(node)} }

// upTo is the first entries of a log.
func upTo(log string, entries int) string {
	at := 0
	for range entries {
		at += strings.IndexByte(log[at:], ';') + 1
	}
	return log[:at]
}

func newWorld(mut mutation, luns int) *world {
	w := &world{mut: mut, luns: luns, rates: [2]int64{100, 100}, time: 100_000}
	for i := range w.n {
		w.n[i].disk = map[catalog.UUID]Memo{}
		w.boot(i, 0, w.clock(i)-50_000)
		w.apply(i)
	}
	return w
}

func (w *world) clock(i int) Time { return Time(w.time * w.rates[i] / 100) }

// boot begins a new life of a node, which will first apply a snapshot of the log's first
// entries.
func (w *world) boot(i, snapshot int, start Time) {
	w.lives++
	n := &w.n[i]
	n.m = New(Config{Self: names[i], Peer: names[1-i], Life: w.lives, Start: start, Grace: w.grace, mutation: w.mut})
	n.born, n.applied, n.writing, n.until = false, snapshot, nil, 0
	n.roles = map[catalog.UUID]Role{}
	for k := range w.luns {
		if memo, found := n.disk[lunID(k)]; found {
			w.step(i, Known{lunID(k), memo})
		}
	}
}

// apply applies the next entry of the log; the first time in a life, a snapshot.
func (w *world) apply(i int) {
	n := &w.n[i]
	if n.born {
		n.applied++
	}
	n.born = true
	s := stateAfter(upTo(w.log, n.applied))
	e := Applied{Index: s.Index(), Decided: s.Decided(), Settings: settings, Longest: settings.Lease}
	for k := range w.luns {
		l, _ := s.LUN(lunID(k))
		e.LUNs = append(e.LUNs, l)
	}
	w.step(i, e)
}

// step gives an event to a node and carries out what it wants.
func (w *world) step(i int, ev Event) {
	n := &w.n[i]
	for _, a := range n.m.Step(w.clock(i), ev) {
		switch a := a.(type) {
		case Ask:
			w.send(1-i, a.Request)
		case Answer:
			w.send(1-i, a.Grant)
		case Propose:
			w.propose(entry{a.Kind, i, a.LUNs})
		case SetRole:
			n.roles[a.LUN] = a.Role
			w.check()
		case SetLease:
			n.until = a.Until
			w.check()
		case Remember:
			n.writing = append(n.writing, a)
		}
	}
	w.check()
}

// maxMessages are on their way to a node: the oldest is lost if there are more.
const maxMessages = 2

func (w *world) send(to int, m any) {
	w.net[to] = append(slices.Clone(w.net[to]), m)
	if len(w.net[to]) > maxMessages {
		w.net[to] = w.net[to][1:]
	}
}

// maxProposals are on their way: the oldest is lost if there are more.
const maxProposals = 3

func (w *world) propose(e entry) {
	same := func(p entry) bool { return p.text() == e.text() }
	if slices.ContainsFunc(w.proposals, same) {
		return
	}
	w.proposals = append(slices.Clone(w.proposals), e)
	if len(w.proposals) > maxProposals {
		w.proposals = w.proposals[1:]
	}
}

// commit agrees on a proposal. It may come again.
func (w *world) commit(k int) {
	w.log += w.proposals[k].text()
	w.proposals = slices.Delete(slices.Clone(w.proposals), k, k+1)
}

func (w *world) entriesOf() int { return strings.Count(w.log, ";") }

func (w *world) receive(i, k int, keep bool) {
	m := w.net[i][k]
	if !keep {
		w.net[i] = slices.Delete(slices.Clone(w.net[i]), k, k+1)
	}
	switch m := m.(type) {
	case Request:
		w.step(i, Asked{m})
	case Grant:
		w.step(i, Granted{m})
	}
}

// flushed ends the oldest write of a memo.
func (w *world) flushed(i int) {
	n := &w.n[i]
	r := n.writing[0]
	n.writing = slices.Clone(n.writing[1:])
	n.disk[r.LUN] = r.Memo
	w.step(i, Remembered(r))
}

// answers tells whether a node may answer a host now.
func (w *world) answers(i int, lun catalog.UUID) bool {
	switch r := w.n[i].roles[lun]; {
	case r.Serve == None:
		return false
	case r.When == Leased:
		return w.clock(i) < w.n[i].until
	default:
		return r.When == Always
	}
}

// broken is what check finds.
type broken string

// mayForce tells whether an operator who keeps his promise may force a node: the other one
// is off, and will not go on by itself when it is on again.
func (w *world) mayForce(i int) bool {
	l := w.n[i].m.luns[lunID(0)]
	c, _ := stateAfter(w.log).LUN(lunID(0))
	return w.n[i].born && !w.forced[i] && w.decided(1-i) && l != nil && !l.free && !(c.Alone(names[1-i]) && c.Term <= max(l.term, l.memo.Term))
}

// force forces a node; the other one goes off, and has to be started again.
func (w *world) force(i int) {
	w.forced[i] = true
	w.boot(1-i, w.n[1-i].applied, w.clock(1-i))
	w.step(i, Force{LUN: lunID(0), Epoch: forcedEpoch(i)})
}

// late tells whether node i was forced too late, and cannot know it yet.
func (w *world) late(i int, id catalog.UUID) bool {
	if !w.n[i].roles[id].Forced {
		return false
	}
	from := w.n[i].m.luns[id].memo.From
	over := func(entries int) bool {
		l, _ := stateAfter(upTo(w.log, entries)).LUN(id)
		return l.Term > from && !l.Alone(names[i])
	}
	return over(w.entriesOf()) && !(w.n[i].born && over(w.n[i].applied))
}

// checkForced: what a node has served by the word of an operator is not forgotten before the
// cluster knows of it.
func (w *world) checkForced(i int) {
	id := lunID(0)
	r := w.n[i].roles[id]
	w.served[i] = w.served[i] || r.Forced && w.answers(i, id)
	if w.served[i] && w.n[i].disk[id].What != Forced && !w.decided(i) {
		panic(broken(fmt.Sprintf("%s has served by force, and nobody knows", names[i])))
	}
	if !w.forced[i] {
		return
	}
	c, _ := stateAfter(upTo(w.log, w.n[i].applied)).LUN(id)
	late := w.n[i].born && slices.ContainsFunc(c.Forks, func(e catalog.Epoch) bool { return e.ID == forcedEpoch(i) })
	w.followed[i] = w.followed[i] || late && !r.Forced
	if w.followed[i] && r.Forced && r.Serve != None {
		panic(broken(fmt.Sprintf("%s serves by force again, after it was too late", names[i])))
	}
}

// decided tells whether the cluster has made up its mind about a node that was forced; or
// it was not.
func (w *world) decided(i int) bool {
	c, _ := stateAfter(w.log).LUN(lunID(0))
	known := func(e catalog.Epoch) bool { return e.ID == forcedEpoch(i) }
	return !w.forced[i] || slices.ContainsFunc(c.Chain, known) || slices.ContainsFunc(c.Forks, known)
}

// check is the promise: two nodes answer only together, in one term; but for one that was
// forced too late, and does not know it yet.
func (w *world) check() {
	w.checkForced(0)
	w.checkForced(1)
	for k := range w.luns {
		id := lunID(k)
		if !w.answers(0, id) || !w.answers(1, id) || w.late(0, id) || w.late(1, id) {
			continue
		}
		a, b := w.n[0].roles[id], w.n[1].roles[id]
		if a.Serve != Together || b.Serve != Together || a.Term != b.Term {
			panic(broken(fmt.Sprintf("LUN %d is served by a as %+v and by b as %+v", k, a, b)))
		}
	}
}

func (w *world) clone() *world {
	c := *w
	for i := range c.n {
		n := &c.n[i]
		n.disk, n.roles, n.m = maps.Clone(n.disk), maps.Clone(n.roles), n.m.clone()
		n.writing = slices.Clone(n.writing)
	}
	return &c
}

func (m *Machine) clone() *Machine {
	c := *m
	c.sent, c.actions = slices.Clone(m.sent), nil
	c.luns = make(map[catalog.UUID]*lun, len(m.luns))
	for id, l := range m.luns {
		copied := *l
		c.luns[id] = &copied
	}
	return &c
}

// key is the same for worlds from which the same can happen. Messages of an earlier life
// differ from those of this one, but not in which life that was.
func (w *world) key() string {
	b := make([]byte, 0, 1024)
	num := func(all ...int64) {
		for _, v := range all {
			b = binary.AppendVarint(b, v)
		}
	}
	flag := func(all ...bool) {
		v := int64(0)
		for _, f := range all {
			v *= 2
			if f {
				v++
			}
		}
		num(v)
	}
	num(w.time, int64(len(w.log)))
	flag(w.forced[0], w.forced[1], w.served[0], w.served[1], w.followed[0], w.followed[1])
	b = append(b, w.log...)
	for _, p := range w.proposals {
		b = append(b, p.text()...)
	}
	for i := range w.n {
		n := &w.n[i]
		m := n.m
		for _, msg := range w.net[i] {
			switch msg := msg.(type) {
			case Request:
				flag(true, msg.Life == w.n[1-i].m.cfg.Life)
				num(int64(msg.Seq))
			case Grant:
				flag(false, msg.Life == m.cfg.Life)
				num(int64(msg.Seq), int64(msg.Applied), int64(msg.Decided))
			}
		}
		num(-1, int64(n.applied), int64(n.until), int64(m.applied), int64(m.decided), int64(m.seq), int64(m.nextAsk), int64(m.told), int64(m.promised), int64(m.now))
		for _, l := range []lease{m.lease, m.newer} {
			num(int64(l.seq), int64(l.asked), int64(l.until), int64(l.applied), int64(l.decided))
		}
		for _, s := range m.sent {
			num(int64(s.seq), int64(s.at))
		}
		flag(n.born)
		for k := range w.luns {
			id := lunID(k)
			memo(num, n.disk[id])
			r := n.roles[id]
			num(-2, int64(r.Term), int64(r.Serve), int64(r.When))
			flag(r.Forced)
			if l := m.luns[id]; l != nil {
				flag(l.mine, l.peers, l.taking, l.offered, l.leaving, l.free, l.joined, l.asking, l.forced)
				num(int64(l.term), int64(l.relief), int64(l.writing), int64(l.durable), int64(l.decided), int64(l.aloneFrom), int64(l.good), int64(l.again), int64(l.left))
				memo(num, l.memo)
			}
		}
		for _, r := range n.writing {
			num(int64(r.LUN[0]))
			memo(num, r.Memo)
		}
	}
	return string(b)
}

func memo(num func(...int64), m Memo) {
	num(int64(m.Term), int64(m.What), int64(m.From), int64(m.Epoch[1]))
}
