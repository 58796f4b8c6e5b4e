package sim

import (
	"context"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/failover"
)

// Times of a forced take-over, at most.
const (
	lookAround = 5 * time.Second // until an operator has made up their mind
	forcedFor  = 8 * time.Second // until something comes back
	forceTime  = 5 * time.Second // until an operator gives up
)

// someForce cuts a site off, and has operators force it, or both. What becomes of the other
// one meanwhile decides whether that is in time.
func (c *cluster) someForce(s *site) {
	w, other := c.w, c.w.sites[1-s.no]
	c.forcing = true
	w.link.cut, s.seat.isolated = true, true
	w.link.severWithin(errParted, 4*noticing)
	dies, dead, forced := chance(w.rand, 50), func() {}, []*site{s}
	crash, how := other.someDeath()
	switch n := w.rand.IntN(100); {
	case n < 30:
		c.raft.away = true // nobody goes on
	case n < 50:
		other.seat.isolated = true
		forced = append(forced, other)
	}
	w.tracef("TROUBLE: site %s is cut off, and operators force %d sites; the other one: dies %v, %s", s.name, len(forced), dies, how)
	if early := chance(w.rand, 50); dies && early {
		dead = other.dies(crash)
		dies = false
	}
	w.group.Go("force", func() {
		w.sleep(upTo(w.rand, lookAround))
		if dies { // after it has served alone, perhaps; and the witness is there, perhaps
			dead = other.dies(crash)
			s.seat.isolated = chance(w.rand, 50)
		}
		for _, s := range forced {
			s.operator()
		}
		c.someMending(s, dead)
		c.forcing = false
	})
}

// someMending brings everything back, in any order.
func (c *cluster) someMending(s *site, dead func()) {
	w := c.w
	most := []time.Duration{0, time.Second, forcedFor}[w.rand.IntN(3)]
	mend := []func(){
		func() { w.link.cut = false },
		func() { s.seat.isolated = false },
		func() { w.sites[1-s.no].seat.isolated = false },
		func() { c.raft.away = false },
		dead,
	}
	for _, i := range w.rand.Perm(len(mend)) {
		if !w.resting {
			w.sleep(upTo(w.rand, most))
		}
		mend[i]()
	}
}

// someDeath is how a site may die.
func (s *site) someDeath() (crash func(), how string) {
	switch n := s.w.rand.IntN(100); {
	case n < 30 && s.w.shape.osCrashes:
		return s.crashOS, "its operating system crashes"
	case n < 50 && s.w.shape.destroy && s.w.lost == [2]loss{}:
		return s.destroy, "its replica is lost"
	}
	return s.kill, "its process is killed"
}

// dies ends a site's process until somebody starts it.
func (s *site) dies(crash func()) (start func()) {
	if !s.wanted || s.w.resting {
		return func() {}
	}
	crash()
	return s.start
}

// operator is who forces a site, and goes on until it serves, or does not want to any more.
// It is called by a task of the world, and does not wait.
func (s *site) operator() {
	w := s.w
	if s.agent == nil || s.rep == nil {
		return
	}
	ctx, cancel := context.WithCancel(background)
	w.later(forceTime, cancel)
	a, loss, again := s.agent, w.cluster.somePolicy(), chance(w.rand, 20)
	s.group.Go("operator", func() {
		for ctx.Err() == nil && !a.force(ctx, loss) {
			s.group.Sleep(ctx, upTo(w.rand, time.Second))
		}
		if again {
			s.group.Sleep(ctx, upTo(w.rand, time.Second))
			a.force(ctx, w.cluster.somePolicy())
		}
	})
}

// force does what the daemon does. False: not yet.
func (a *agent) force(ctx context.Context, loss catalog.LossPolicy) bool {
	w, s := a.c.w, a.s
	o, err := a.keeper.Outlook(lunUUID)
	if err != nil {
		w.fail("site %s: %v", s.name, err)
		return true
	}
	if a.lease == nil || a.lease.Holds() && !o.Role.Forced {
		return false // it serves
	}
	if why, _ := o.Unforced(catalog.NodeID(s.name), a.connected); why != "" {
		w.tracef("site %s is not forced: %s", s.name, why)
		return false
	}
	w.tracef("TROUBLE: an operator forces site %s: %s", s.name, loss)
	w.forced[s.no] = true
	if a.policy != catalog.ServeStale {
		a.policy = loss
	}
	if a.role.Free {
		s.goesAlone(s.rep) // on with another policy
	}
	if chance(w.rand, w.shape.awkward) {
		w.later(awkward, w.decided)
	}
	err = a.keeper.Force(ctx, lunUUID, loss)
	w.tracef("site %s is forced: %v", s.name, err)
	if err != nil {
		a.soonServes()
	}
	return err == nil
}

// soonServes: an operator has not waited until the site serves. It does so soon, unless it
// finds that it is too late, or has not written down yet that it was forced.
func (a *agent) soonServes() {
	for range 30 {
		r := a.role
		if s := a.s; !r.Forced || r.Serve != failover.ByItself || s.stopped || s.growing || s.rep.Status().Serving {
			return
		}
		a.s.group.Sleep(background, 100*time.Millisecond)
	}
	a.c.w.fail("site %s is forced, and does not serve: %+v", a.s.name, a.role)
}

// loss is what becomes of data that only the other site has.
func (a *agent) loss() catalog.LossPolicy {
	if a.role.Forced {
		return a.policy
	}
	return a.lun().Loss
}

// forcedTo: a site serves by force, if that is its new role. Hosts may see another version
// there from now on. It does not begin again when the sites have joined since it was told to:
// if it has forgotten that, it is agreed at least that it serves alone.
func (a *agent) forcedTo(r failover.Role) {
	if !r.Forced || r.Serve != failover.ByItself {
		return
	}
	l, _ := a.c.raft.latest().LUN(lunUUID)
	switch w := a.c.w; {
	case w.forced[a.s.no]:
		w.begun[a.s.no] = true
		w.diverge(a.s)
	case !l.Alone(catalog.NodeID(a.s.name)):
		w.fail("site %s serves by force, and nobody has forced it since the sites were joined last", a.s.name)
	}
}

// answers tells whether a site's hosts are answered.
func (a *agent) answers() bool {
	return a.lease != nil && a.lease.Holds() && (a.c.w.forks == 0 || a.s.rep != nil && a.s.rep.Status().Serving)
}

// divided tells whether both sites may answer hosts, and one of them alone: it was forced,
// and one of the two cannot know what was agreed upon.
func (c *cluster) divided(a, b *agent) bool {
	l, _ := c.raft.latest().LUN(lunUUID)
	unheard := func(a *agent) bool { return a.role.Forced || uint64(a.applied) < l.Decided }
	return c.w.fork != nil && (unheard(a) || unheard(b))
}

// judge looks whether a take-over that is about to be agreed upon comes too late: others have
// been agreed upon since. That its own site serves alone it may not have heard.
func (w *world) judge(raw []byte) {
	c, err := catalog.Decode(raw)
	b, force := c.Body.(*catalog.ForceAlone)
	if err != nil || !force || w.cluster.judged[b.Epoch] {
		return
	}
	w.cluster.judged[b.Epoch] = true
	now, _ := w.cluster.raft.latest().LUN(lunUUID)
	from := b.LUNs[0].Term
	late := now.Term != from && !(now.Alone(b.Node) && now.Term > from && now.Term < catalog.ForcedTerm(from))
	for i, s := range w.sites {
		if s.name == string(b.Node) {
			w.late[i] = late
			if late {
				w.totals.Late++
			}
		}
	}
	w.tracef("site %s was forced from term %d: too late %v", b.Node, from, late)
}
