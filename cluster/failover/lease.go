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

// asked answers a request, unless this node wants to serve alone something that both
// serve: then it waits for its last answer to run out, and gives no further one.
func (m *Machine) asked(r Request) {
	if m.applied == 0 || m.taking() && m.cfg.mutation != grantsOn {
		return
	}
	if m.cfg.mutation != grantsOn || !m.taking() {
		m.promised = max(m.promised, m.now+Stretched(m.settings.Lease))
	}
	g := Grant{r.Life, r.Seq, m.applied, m.decided, m.settings.Lease}
	if m.cfg.mutation == grantsBlind {
		g.Decided = 0
	}
	if m.cfg.mutation == grantsAhead {
		g.Applied = 1<<64 - 1
	}
	m.do(Answer{g})
}

// taking tells whether this node has proposed to serve alone what both serve.
func (m *Machine) taking() bool {
	for _, l := range m.luns {
		if l.taking && l.peers {
			return true
		}
	}
	return false
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
