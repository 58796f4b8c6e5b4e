package failover

import "github.com/twinlun/twinlun/cluster/catalog"

// known is a LUN as a memo tells of it. What is only forced was agreed upon by nobody: it
// does not count as a term that this node knows.
func (m *Machine) known(e Known) *lun {
	if e.Memo.What != Forced {
		return &lun{id: e.LUN, memo: e.Memo, durable: e.Memo.Term}
	}
	if m.cfg.mutation == forgetsForce {
		return &lun{id: e.LUN}
	}
	return &lun{id: e.LUN, memo: e.Memo, forced: true}
}

// force begins to serve alone by the word of an operator: as soon as it is on disk.
func (m *Machine) force(e Force) {
	l := m.luns[e.LUN]
	if l == nil || l.memo.What == Forced || m.roleOf(l).Free {
		return
	}
	from := max(l.term, l.memo.Term, e.Heard)
	l.again, l.asking = 0, false
	m.rememberForced(l, from, e.Epoch)
	l.forced = m.cfg.mutation == forcesEarly
}

func (m *Machine) rememberForced(l *lun, from uint64, epoch catalog.UUID) {
	l.memo = Memo{Term: catalog.ForcedTerm(from), What: Forced, From: from, Epoch: epoch}
	l.writing++
	m.do(Remember{l.id, l.memo})
}

// judge looks what the cluster makes of it that this node was forced to serve alone. It was
// agreed upon, or others were and it is too late; until the catalog says either, it has not
// heard of it. If all that it has agreed upon meanwhile is that this node serves alone, it
// still can.
func (m *Machine) judge(l *lun, c *catalog.LUN) {
	if l.memo.What != Forced {
		return
	}
	known, forked := c.Descends(catalog.Epoch{Term: l.memo.Term, ID: l.memo.Epoch})
	switch {
	case known && !forked && l.alone() && l.term == l.memo.Term:
		l.free, l.forced, l.durable = true, false, 0
		m.remember(l, Alone)
	case known && (!forked || m.cfg.mutation != forkServes):
		m.relieve(l)
	case l.alone() && l.term > l.memo.From:
		m.rememberForced(l, l.term, l.memo.Epoch)
	}
}

// relieve has it written down that others serve now. Until that is on disk this node does not
// follow them: after a restart it would serve by the old word once more, while what hosts were
// told since is at both.
func (m *Machine) relieve(l *lun) {
	if l.relief == l.term {
		return // it is under way
	}
	l.relief = l.term
	l.writing++
	m.do(Remember{l.id, Memo{Term: l.term, What: Nothing}})
	if m.cfg.mutation == relievesEarly {
		m.relieved(l, Memo{Term: l.term, What: Nothing})
	}
}

// relieved: it is on disk, and no later one is under way.
func (m *Machine) relieved(l *lun, memo Memo) {
	if l.relief == memo.Term {
		l.memo, l.forced, l.durable, l.relief = memo, false, 0, 0
	}
}

// forcedRole is that of a LUN with such a memo.
func (m *Machine) forcedRole(l *lun) Role {
	switch {
	case !l.forced:
		return Role{Term: l.term}
	case m.late(l) || l.relief != 0:
		return Role{Term: l.memo.Term, Forced: true}
	}
	return Role{Term: l.memo.Term, Serve: ByItself, When: Always, Free: true, Forced: true}
}

// late tells whether others were agreed upon since this node was forced, or may have been:
// what it serves is going to be a fork.
func (m *Machine) late(l *lun) bool {
	return l.term > l.memo.From && !l.alone() && m.cfg.mutation != forkServes
}
