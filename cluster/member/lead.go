package member

import (
	"context"
	"time"

	"github.com/twinlun/twinlun/cluster"
)

// The witness should lead. When the line between two sites is cut, both still hear it, so
// that the preferred one can propose to serve alone, and the other one learns that it does
// not serve any more; with one of the two in the lead the other would be deaf. And when a
// site dies that leads, the others have to elect another leader before they can decide.
const (
	// handOverRest is how long a node leads before it lets a witness lead: it may have
	// become the leader because the witness was not there.
	handOverRest = 5 * time.Second
	// handOverMost is the longest rest, after the witness has lost the lead again and
	// again. The rest is twice as long each time.
	handOverMost = 10 * time.Minute
)

// leadership is the memory of who leads, for letting a witness lead. It belongs to keep.
type leadership struct {
	since time.Time     // this node leads; zero: it does not
	rest  time.Duration // before it lets a witness lead; 0: handOverRest
	given time.Time     // when it has done so last
}

// note takes in whether this node leads.
func (l *leadership) note(leads bool, now time.Time) {
	switch {
	case !leads:
		l.since = time.Time{}
	case l.since.IsZero():
		l.since = now
		if l.given.IsZero() || now.Sub(l.given) > handOverMost {
			l.rest = handOverRest
		} else {
			l.rest = min(2*l.rest, handOverMost)
		}
	}
}

// due tells whether a witness should lead now.
func (l *leadership) due(now time.Time) bool { return !l.since.IsZero() && now.Sub(l.since) >= l.rest }

// letWitnessLead gives the lead to a witness that is there, if it is time for that.
func (m *Member) letWitnessLead() {
	if m.Witness() || !m.leadership.due(time.Now()) {
		return
	}
	members, err := m.node.Members()
	if err != nil {
		return
	}
	for n := range m.State().Nodes() {
		if !n.Witness || !hasVote(members, string(n.Name)) {
			continue
		}
		ctx, cancel := context.WithTimeout(m.ctx, keepTime)
		there := m.caughtUp(ctx, string(n.Name))
		cancel()
		if !there {
			continue
		}
		m.leadership.given = time.Now()
		if err := m.node.HandOverTo(string(n.Name)); err != nil {
			m.leadership.since = time.Now() // try later
			m.cfg.Log.Info("the witness does not take the lead", "name", n.Name, "reason", err)
			continue
		}
		m.cfg.Log.Info("the witness leads the cluster", "name", n.Name)
		return
	}
}

func hasVote(members []cluster.Member, node string) bool {
	for _, o := range members {
		if o.Node == node && o.Voter {
			return true
		}
	}
	return false
}
