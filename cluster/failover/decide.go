package failover

import "github.com/twinlun/twinlun/cluster/catalog"

// settle begins to serve alone without a lease, when this node is the only one in the
// set, all that it had promised is over, and nothing that it proposed can end the term
// without its knowing.
func (m *Machine) settle(l *lun) {
	if m.covers(l) {
		l.good = max(l.good, m.lease.asked)
	}
	if !l.alone() || l.free || l.offered || l.behind() || l.memo.What == Forced || m.now < l.aloneFrom {
		return
	}
	l.free = true
	m.remember(l, Alone)
}

// heard tells whether the other node has answered a request of the last heartbeats.
func (m *Machine) heard() bool {
	return m.newer.seq != 0 && m.now < m.newer.asked+silence*Time(m.settings.Heartbeat)
}

func (m *Machine) remember(l *lun, what What) {
	l.memo = Memo{Term: l.term, What: what}
	l.writing++
	m.do(Remember{l.id, l.memo})
}

// offer prepares to propose that both serve: first it must be on disk that this was
// proposed. A node that has only prepared it goes back if the replicas part. That they are
// joined is no sign of life: a line that was cut is noticed late.
func (m *Machine) offer(l *lun) {
	switch {
	case l.memo.What == Forced:
	case l.free && l.joined && !l.asking && m.heard():
		l.asking = true
		m.remember(l, Offered)
	case l.asking && !l.joined:
		l.asking = false
		m.remember(l, Alone)
	}
}

// remembered goes on from offer, when what is on disk is the last that was to be written:
// from now on this node needs a lease, as the other one may serve, too.
func (m *Machine) remembered(e Remembered) {
	l := m.luns[e.LUN]
	if l == nil {
		return
	}
	l.writing--
	if e.Memo.What == Forced {
		l.forced = l.forced || e.Memo == l.memo
		return
	}
	if l.memo.What == Forced {
		m.relieved(l, e.Memo)
	}
	l.durable = max(l.durable, e.Memo.Term)
	last := l.writing == 0 || m.cfg.mutation == offersEarly
	if !l.asking || !last || e.Memo != (Memo{Term: l.term, What: Offered}) {
		return
	}
	l.asking, l.offered, l.again = false, true, 0
	if m.cfg.mutation != offersFree {
		l.free = false
	}
}

// setRole tells how a LUN is served now, if that is new.
func (m *Machine) setRole(l *lun) {
	if r := m.roleOf(l); r != l.role {
		l.role = r
		m.do(SetRole{l.id, r})
	}
}

func (m *Machine) roleOf(l *lun) Role {
	switch {
	case l.memo.What == Forced:
		return m.forcedRole(l)
	case l.behind() && l.memo.What == Alone:
		return Role{Term: l.memo.Term, Serve: ByItself, When: Always, Free: true}
	case l.behind(), l.leaving:
		return Role{Term: l.term}
	case !l.mine:
		if m.cfg.mutation == losesDeaf && l.role.Serve != None {
			return l.role
		}
		return Role{Term: l.term}
	case l.free:
		return Role{Term: l.term, Serve: ByItself, When: Always, Free: true}
	}
	r := Role{Term: l.term, Serve: Together}
	if l.alone() {
		r.Serve, r.Tied = ByItself, l.offered
	}
	if m.covers(l) {
		r.When = Leased
	}
	return r
}

// propose proposes what is due, all LUNs of a kind in one.
func (m *Machine) propose() {
	due := map[Kind][]catalog.Step{}
	for _, l := range m.sorted() {
		kind, wanted := m.wants(l)
		if !wanted || m.now < l.again {
			continue
		}
		l.again = m.now + Time(m.settings.Heartbeat)
		step := catalog.Step{LUN: l.id, Term: l.term}
		switch kind {
		case ForceAlone:
			step.Term = l.memo.From
		case TakeAlone:
			l.taking = true
		case JoinBoth:
			step.Join = l.join
		}
		due[kind] = append(due[kind], step)
	}
	for _, kind := range []Kind{TakeAlone, JoinBoth, Leave, ForceAlone} {
		if len(due[kind]) > 0 {
			m.do(Propose{kind, due[kind]})
		}
	}
}

// wants is what a node proposes about a LUN.
func (m *Machine) wants(l *lun) (kind Kind, wanted bool) {
	lost := m.now >= m.lostFrom(l)
	switch {
	case l.memo.What == Forced:
		return ForceAlone, l.forced && l.relief == 0 && l.term >= l.memo.From && m.applied > 0
	case l.behind() || !l.mine:
		return 0, false
	case l.taking:
		return TakeAlone, true // it cannot be taken back
	case l.peers && l.leaving && !lost:
		return Leave, m.lease.seq > l.left || m.cfg.mutation == leavesBlind
	case l.peers:
		l.leaving = false
		return TakeAlone, lost && (l.preferred || m.now >= m.lostFrom(l)+Time(m.settings.PreferredDelay))
	case l.offered && l.joined && !lost:
		return JoinBoth, true
	case l.offered:
		return TakeAlone, true // a new term, in which nothing is offered
	}
	return 0, false
}

// lostFrom is when the other node counts as lost, if nothing covers the LUN until then.
func (m *Machine) lostFrom(l *lun) Time {
	from := l.good + silence*Time(m.settings.Heartbeat)
	if m.newer.seq == 0 { // it has not answered yet in this life
		from = max(from, m.cfg.Start+m.cfg.Grace)
	}
	return from
}
