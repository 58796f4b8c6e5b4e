package sim

import (
	"io"
	"time"

	"github.com/twinlun/twinlun/replication"
	"github.com/twinlun/twinlun/replication/coherence"
	"github.com/twinlun/twinlun/replication/salvage"
	"github.com/twinlun/twinlun/target/volume"
)

// Times of the cluster, by each site's own clock. Clocks drift by up to maxDrift.
const (
	leaseTime = 2 * time.Second
	maxDrift  = 2 // percent
	heartbeat = 200 * time.Millisecond
	patience  = time.Second // without an answer, until a site wants to serve alone
)

// cluster is a model of the raft group of two sites and a witness: what it decides is
// decided at once, and each site hears of it later, in order. Heartbeats between the
// sites have a network of their own.
type cluster struct {
	w         *world
	loss      coherence.Loss
	decisions []decision
	deaf      bool // heartbeats between the sites are lost
	takes     int
}

// decision is who serves: both sites, or one.
type decision struct {
	both bool
	site int
}

// seat is a site's place in the cluster; it outlives the process.
type seat struct {
	drift    int // percent by which the clock is fast
	isolated bool
	applied  int // the decision that the site has heard of
}

// agent is what a site's process does about the cluster. It is the volume's lease.
type agent struct {
	c *cluster
	s *site
	*seat

	acted   int           // the decision that the replica has been told of; -1: none
	end     time.Duration // of the lease
	granter int           // what the other site had heard of when it granted that
	heard   time.Duration // when a heartbeat was answered last
	granted time.Duration // when this one answered last; at first, when it started
	fenced  bool          // it has proposed to serve alone, and grants nothing
}

func newCluster(w *world) *cluster {
	c := &cluster{w: w, decisions: []decision{{both: true}}}
	if chance(w.rand, 40) {
		c.loss = coherence.LossServeStale
	}
	return c
}

func (w *world) newSeat() *seat { return &seat{drift: w.rand.IntN(2*maxDrift+1) - maxDrift} }

// newAgent begins with a process that knows nothing of what it granted before.
func (s *site) newAgent() *agent {
	a := &agent{c: s.w.cluster, s: s, seat: s.seat, acted: -1}
	a.heard, a.granted = a.clock(), a.clock()
	return a
}

// clock is the site's monotonic clock.
func (a *agent) clock() time.Duration {
	return a.c.w.sched.Elapsed() * time.Duration(100+a.drift) / 100
}

// Holds implements volume.Lease.
func (a *agent) Holds() bool {
	if a.acted < 0 {
		return false
	}
	if d := a.c.decisions[a.acted]; !d.both {
		return d.site == a.s.no
	}
	return a.clock() < a.end && a.granter >= a.acted
}

// volume makes the volume of the site's replica.
func (s *site) volume(rep *replication.Replica) *volume.Volume {
	if s.agent == nil {
		return volume.New(rep)
	}
	return volume.NewLeased(rep, s.agent)
}

// run is a task of the site's process.
func (a *agent) run() {
	for {
		a.s.group.Sleep(background, upTo(a.c.w.rand, heartbeat))
		if a.s.rep == nil || a.s.growing || a.s.stopped {
			continue
		}
		a.apply()
		a.beat()
		a.propose()
	}
}

// apply acts on the next decision, if the site can hear of it: alone only when the other
// one cannot answer hosts any more.
func (a *agent) apply() {
	if a.isolated {
		return
	}
	if a.acted == a.applied && a.applied < len(a.c.decisions)-1 {
		a.applied++
	}
	d := a.c.decisions[a.applied]
	if d != (decision{site: a.s.no}) || a.acted == a.applied || a.clock() >= a.granted+leaseTime*(100+maxDrift)/(100-maxDrift) {
		a.act(d)
	}
}

// act tells the replica.
func (a *agent) act(d decision) {
	if a.acted == a.applied {
		return
	}
	if alone := !d.both && d.site == a.s.no; alone && a.c.loss == coherence.LossServeStale {
		a.c.giveUp(a.s)
	}
	a.acted = a.applied
	a.fenced = false
	a.c.w.tracef("site %s: decision %d is %+v", a.s.name, a.acted, d)
	a.tell(false)
}

// tell tells the replica what the site acts on. It says whether the sites are joined.
func (a *agent) tell(tied bool) (joined bool) {
	d := a.c.decisions[a.acted]
	r := coherence.Role{Term: uint64(a.acted + 1), ID: [16]byte{byte(a.acted + 1)}, Serve: coherence.ServeNone, Loss: a.c.loss, Tied: tied}
	switch {
	case d.both:
		r.Serve = coherence.ServeBoth
	case d.site == a.s.no:
		r.Serve = coherence.ServeAlone
	}
	joined, err := a.s.rep.SetRole(r)
	if err != nil && !a.s.stopped && !a.s.growing {
		// It may have heard of a newer term from the other site.
		a.c.w.tracef("site %s: %v", a.s.name, err)
	}
	return joined
}

// retell tells a replica that was opened anew.
func (a *agent) retell() {
	if a != nil && a.acted >= 0 {
		a.tell(false)
	}
}

// beat asks the other site for the lease. Request and answer take their time.
func (a *agent) beat() {
	if a.acted < 0 || !a.c.decisions[a.acted].both {
		a.heard = a.clock()
	}
	sent := a.clock()
	a.s.group.Go("heartbeat", func() {
		a.s.group.Sleep(background, upTo(a.c.w.rand, a.c.w.shape.delay))
		other := a.c.w.sites[1-a.s.no].agent
		if a.c.lost() || other == nil || !other.grants() {
			return
		}
		other.granted = other.clock()
		granter := other.acted
		a.s.group.Sleep(background, upTo(a.c.w.rand, a.c.w.shape.delay))
		if !a.c.lost() && sent+leaseTime > a.end {
			a.end, a.granter, a.heard = sent+leaseTime, granter, a.clock()
		}
	})
}

func (c *cluster) lost() bool {
	return c.deaf || c.w.sites[0].seat.isolated || c.w.sites[1].seat.isolated
}

// grants tells whether the site gives the other one a lease.
func (a *agent) grants() bool {
	return a.acted >= 0 && a.acted == a.applied && a.c.decisions[a.acted].both && !a.fenced && a.s.rep != nil && !a.s.growing
}

// propose proposes a change of who serves.
func (a *agent) propose() {
	if a.isolated || a.acted < 0 || a.acted != len(a.c.decisions)-1 {
		return
	}
	switch d := a.c.decisions[a.acted]; {
	case d.both && a.clock() > a.heard+patience+time.Duration(a.s.no)*patience/2 && !a.c.w.resting:
		a.fenced = true
		a.c.takes++
		a.c.decide(decision{site: a.s.no})
	case !d.both && d.site == a.s.no && !a.c.lost() && a.s.rep.Status().LinkUp:
		if a.tell(true) {
			a.c.decide(decision{both: true})
		} else {
			a.tell(false)
		}
	}
}

func (c *cluster) decide(d decision) {
	c.w.tracef("CLUSTER: %+v", d)
	c.decisions = append(c.decisions, d)
}

// giveUp: a site serves alone, and what only the other one has may be given up.
func (c *cluster) giveUp(s *site) {
	for i := range c.w.hist.registers {
		if s.has(int64(i) * sectorSize) {
			c.w.hist.has(s.no, i)
		}
	}
	var lost [2]loss
	lost[1-s.no] = lossReplica
	c.w.hist.lose(lost)
}

// someTrouble is the cluster's trouble. False: none.
func (c *cluster) someTrouble(s *site) bool {
	w := c.w
	d := upTo(w.rand, 8*time.Second)
	switch n := w.rand.IntN(100); {
	case n < 25:
		w.tracef("TROUBLE: site %s is isolated for %v", s.name, d)
		s.seat.isolated, w.link.cut = true, true
		w.link.severWithin(io.ErrUnexpectedEOF, 4*noticing) // it is the leases that keep hosts from old data
		w.group.Go("mend", func() {
			w.sleep(d)
			s.seat.isolated, w.link.cut = false, false
		})
	case n < 35:
		w.tracef("TROUBLE: heartbeats are lost for %v", d)
		c.deaf = true
		w.group.Go("mend", func() {
			w.sleep(d)
			c.deaf = false
		})
	default:
		return false
	}
	return true
}

// salvaged is a salvage file that is thrown away.
type salvaged struct{ io.Writer }

func (salvaged) Commit() error  { return nil }
func (salvaged) Discard() error { return nil }

func (s *site) salvage(uint64) (salvage.File, error) {
	s.w.tracef("site %s salvages", s.name)
	s.w.totals.Salvages++
	return salvaged{io.Discard}, nil
}
