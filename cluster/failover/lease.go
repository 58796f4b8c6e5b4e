package failover

import "slices"

// ask asks the other node for a lease.
func (m *Machine) ask() {
	m.seq++
	if len(m.sent) == maxSent {
		m.sent = slices.Delete(m.sent, 0, 1)
	}
	m.sent = append(m.sent, sending{m.seq, m.now})
	m.nextAsk = m.now + Time(m.settings.Heartbeat)
	m.do(Ask{Request{m.cfg.Life, m.seq}})
}

// asked answers a request, if this node may.
func (m *Machine) asked(r Request) {
	m.askBack()
	withheld := m.withheld()
	if m.applied == 0 || withheld && m.cfg.mutation != grantsOn {
		return
	}
	if !withheld {
		m.promised = max(m.promised, m.now+Stretched(m.settings.Lease))
	}
	g := Grant{r.Life, r.Seq, m.vouched(), m.decided, m.settings.Lease}
	switch m.cfg.mutation {
	case grantsBlind:
		g.Decided = 0
	case grantsAhead:
		g.Applied = 1<<64 - 1
	}
	m.do(Answer{g})
}

// askBack asks, too, if this node waits for a lease: the other one is there, and asks when
// it has learned of a new term. But not at once again and again.
func (m *Machine) askBack() {
	if len(m.sent) > 0 && m.now < m.sent[len(m.sent)-1].at+Time(m.settings.Heartbeat)/askBackPart {
		return
	}
	for _, l := range m.luns {
		if l.mine && !l.free && !m.covers(l) {
			m.nextAsk = m.now
			return
		}
	}
}

// askBackPart: the pause before askBack asks, in parts of a heartbeat.
const askBackPart = 8

// withheld tells whether this node must not answer: it has proposed to serve alone what
// both serve, and waits for its last answer to run out; or it served alone before it was
// restarted, may go on so at once, and has not come to that in the log yet.
func (m *Machine) withheld() bool {
	for _, l := range m.luns {
		if l.taking && l.peers || (l.behind() || l.memo.What == Forced) && m.cfg.mutation != grantsBehind {
			return true
		}
	}
	return false
}

// vouched is up to where this node has applied the log and will know it even if it is
// restarted and comes back with an earlier state: the terms so far are on its disk.
func (m *Machine) vouched() uint64 {
	index := m.applied
	for _, l := range m.luns {
		if l.durable < l.term && m.cfg.mutation != vouchesAll {
			index = min(index, l.decided-1)
		}
	}
	return index
}

// granted takes an answer. The lease counts from when it was asked for.
func (m *Machine) granted(g Grant) {
	i := slices.IndexFunc(m.sent, func(s sending) bool { return s.seq == g.Seq })
	if g.Life != m.cfg.Life || i < 0 {
		return
	}
	at := m.sent[i].at
	if m.cfg.mutation == fromAnswer {
		at = m.now
	}
	m.sent = m.sent[i+1:] // what was asked for earlier is of no use any more
	m.newer = lease{g.Seq, at, at + Time(g.Lease), g.Applied, g.Decided}
}

// renew relies on the newest answer as soon as this node has applied all that its sender
// knew to be decided: it may have been that the sender serves something alone. Until then
// the one before lasts.
func (m *Machine) renew() {
	if m.newer.seq > m.lease.seq && m.newer.decided <= m.applied {
		m.lease = m.newer
	}
	if m.lease.until != m.told {
		m.told = m.lease.until
		m.do(SetLease{m.told})
	}
}

// covers tells whether the lease is good for a LUN: its sender, too, knew the present
// term when it answered. It may have ended meanwhile.
func (m *Machine) covers(l *lun) bool {
	return m.lease.seq != 0 && (m.lease.applied >= l.decided || m.cfg.mutation == grantsUnread)
}
