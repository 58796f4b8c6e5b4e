package failover

import (
	"slices"

	"github.com/twinlun/twinlun/cluster/catalog"
)

// Config describes one node's side of a pair.
type Config struct {
	Self, Peer catalog.NodeID
	Life       uint64 // random: tells answers to this process from those to an earlier one
	Start      Time   // when this process began, or later
	// Grace is how long after Start the other node may take to answer for the first time
	// before it counts as lost: both may have been started at once, one slower.
	Grace Time

	mutation mutation
}

const (
	// silence is how many heartbeats may go without an answer before the other node
	// counts as lost. One may come late.
	silence = 2

	// maxSent bounds the requests whose sending times are known: an answer that comes
	// after so many heartbeats is of no use.
	maxSent = 16
)

// Stretched is how long a node has to wait by its own clock to be sure that a duration
// has passed by another node's: 2% longer (1/0.98).
func Stretched(d catalog.Duration) Time { return (Time(d)*100 + 97) / 98 }

// Machine is one node's side of a pair. It is not safe for concurrent use.
type Machine struct {
	cfg      Config
	now      Time
	settings catalog.Settings
	applied  uint64 // index; 0: nothing yet, and nothing is asked, answered or proposed
	decided  uint64 // catalog.State.Decided
	luns     map[catalog.UUID]*lun

	// What this node asks for.
	sent    []sending // oldest first
	seq     uint64
	nextAsk Time
	lease   lease // that roles may rely on
	newer   lease // that will do when more has been applied
	told    Time  // the last SetLease

	// What this node has promised: not to begin serving alone before that.
	promised Time

	actions []Action
}

// sending is a request that was sent.
type sending struct {
	seq uint64
	at  Time
}

// lease is an answer, and when it was asked for.
type lease struct {
	seq              uint64
	asked, until     Time
	applied, decided uint64
}

// lun is a LUN that the two nodes share.
type lun struct {
	id          catalog.UUID
	term        uint64
	decided     uint64
	mine, peers bool // who is in the serving set
	preferred   bool

	aloneFrom Time // it may serve alone from then on, if it is the only one in the set
	good      Time // when what covered it last was asked for, or its term was applied
	again     Time // nothing is proposed about it before that

	taking  bool   // it has proposed to serve alone, in this term
	offered bool   // it has, or may have, proposed that both serve, in this term
	leaving bool   // it wants to leave, in this term
	left    uint64 // leaving: the request sent last before it was to; a later one is to be answered

	free   bool // serves alone without a lease, in this term
	joined bool // the replicas are joined
	join   uint64
	asking bool // a Remember is under way, after which it offers

	memo    Memo   // as it is on disk, or under way there
	forced  bool   // it is Forced, and that is on disk
	relief  uint64 // of Forced: the term whose memo is under way, after which it is that no more; 0: none
	durable uint64 // the highest term that is on disk
	writing int    // how many Remembers are under way
	role    Role   // as it was told
}

// New makes a Machine. Nothing is served before the first Applied, but what a memo says.
func New(cfg Config) *Machine {
	return &Machine{cfg: cfg, luns: map[catalog.UUID]*lun{}, now: cfg.Start}
}

// hasPromised reckons with leases of a length that were granted before this life began.
func (m *Machine) hasPromised(longest catalog.Duration) {
	if m.cfg.mutation != forgets {
		m.promised = max(m.promised, m.cfg.Start+Stretched(longest))
	}
}

// Step takes an event that happens now, and returns what is to be done, in order. Time
// does not go back.
func (m *Machine) Step(now Time, ev Event) []Action {
	m.now, m.actions = max(m.now, now), nil
	switch e := ev.(type) {
	case Known:
		m.luns[e.LUN] = m.known(e)
	case Tick:
	case Asked:
		m.asked(e.Request)
	case Granted:
		m.granted(e.Grant)
	case Applied:
		m.apply(&e)
	case Joined:
		if l := m.luns[e.LUN]; l != nil {
			l.joined, l.join = true, e.Join
		}
	case Parted:
		if l := m.luns[e.LUN]; l != nil {
			l.joined = false
		}
	case Remembered:
		m.remembered(e)
	case Drained:
		if l := m.luns[e.LUN]; l != nil && l.mine && l.peers {
			if !l.leaving {
				l.left, m.nextAsk = m.seq, m.now
			}
			l.leaving, l.again = true, 0
		}
	case Linked:
		for _, l := range m.luns {
			l.leaving = false
		}
	case Force:
		m.force(e)
	}
	m.advance()
	return m.actions
}

func (m *Machine) do(a Action) { m.actions = append(m.actions, a) }

// advance does whatever is due.
func (m *Machine) advance() {
	m.renew()
	for _, l := range m.sorted() {
		m.settle(l)
		m.offer(l)
		m.setRole(l)
	}
	m.propose()
	if m.now >= m.nextAsk && m.applied > 0 {
		m.ask()
	}
}

// sorted are the LUNs in an order that is always the same.
func (m *Machine) sorted() []*lun {
	all := make([]*lun, 0, len(m.luns))
	for _, l := range m.luns {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b *lun) int { return slices.Compare(a.id[:], b.id[:]) })
	return all
}

// apply takes over what the catalog says.
func (m *Machine) apply(e *Applied) {
	m.applied, m.decided, m.settings = max(m.applied, e.Index), max(m.decided, e.Decided), e.Settings
	m.hasPromised(e.Longest)
	for i := range e.LUNs {
		m.update(&e.LUNs[i])
	}
	for _, id := range e.Gone {
		if l := m.luns[id]; l != nil {
			m.do(SetRole{id, Role{Term: l.term}})
			delete(m.luns, id)
		}
	}
	m.nextAsk = m.now // a new term needs a lease that knows of it
}

func (m *Machine) update(c *catalog.LUN) {
	l := m.luns[c.ID]
	if l == nil {
		l = &lun{id: c.ID}
		m.luns[c.ID] = l
	}
	l.preferred = c.Preferred == m.cfg.Self
	m.begin(l, c)
	m.judge(l, c)
}

// begin takes over a new term.
func (m *Machine) begin(l *lun, c *catalog.LUN) {
	if c.Term <= l.term {
		return
	}
	next := &lun{
		id: l.id, term: c.Term, decided: c.Decided, preferred: l.preferred,
		mine: c.Serves(m.cfg.Self), peers: c.Serves(m.cfg.Peer),
		joined: l.joined, join: l.join, memo: l.memo, forced: l.forced, relief: l.relief, durable: l.durable, writing: l.writing, role: l.role,
		aloneFrom: m.aloneFrom(l, c), good: m.now,
	}
	if next.memo.Term == next.term {
		next.offered = next.memo.What == Offered
		next.free = next.memo.What == Alone && next.alone()
	}
	*l = *next
	if l.memo.What != Forced && l.memo.Term < l.term {
		m.remember(l, Nothing)
	}
	m.hold(l)
}

// aloneFrom is when this node may serve alone in a new term, if it is the only one in the
// set: when all that it promised is over. If it was the only one before, too, the other
// node cannot have relied on what it promised since.
func (m *Machine) aloneFrom(old *lun, c *catalog.LUN) Time {
	switch {
	case m.cfg.mutation == noWait:
		return m.now
	case old.alone() && c.Term == old.term+1:
		return old.aloneFrom
	}
	return m.promised
}

// hold ends what was allowed in the term before, before anything is allowed in this one.
func (m *Machine) hold(l *lun) {
	r := m.roleOf(l)
	if r == l.role || m.cfg.mutation == losesDeaf && !l.mine {
		return
	}
	if r.Serve != None {
		r.When = Hold
	}
	l.role = r
	m.do(SetRole{l.id, r})
}

// alone tells whether this node is the only one in the serving set.
func (l *lun) alone() bool { return l.mine && !l.peers }

// behind tells whether this node knew of a later term before it was restarted.
func (l *lun) behind() bool { return l.memo.Term > l.term }
