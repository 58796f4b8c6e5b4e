package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/failover"
)

// cluster is what decides who serves: the real catalog behind a model of raft, and a real
// Keeper in each site's process, which speak over the simulated link.
type cluster struct {
	w       *world
	raft    *raft
	founded int                   // entries of the log that made the cluster; no site ever knew less
	holds   bool                  // the loss policy is, or was, to hold
	forcing bool                  // an operator is about to force a site
	judged  map[catalog.UUID]bool // terms of forced take-overs that have been decided about
	takes   int

	// The term that began last because a drained site has left, and each site's last join then:
	// another one may give that site something again.
	left  uint64
	joins [2]uint64
}

// paces are settings that a cluster may have; each of them is allowed.
var paces = []struct{ heartbeat, lease, preferred time.Duration }{
	{500 * time.Millisecond, 2 * time.Second, time.Second}, // the default
	{50 * time.Millisecond, 150 * time.Millisecond, 50 * time.Millisecond},
	{200 * time.Millisecond, time.Second, 200 * time.Millisecond},
	{300 * time.Millisecond, 4 * time.Second, 300 * time.Millisecond},
}

func newCluster(w *world) *cluster {
	c := &cluster{w: w, judged: map[catalog.UUID]bool{}, raft: &raft{w: w, late: []int{0, 5, 40}[w.rand.IntN(3)]}}
	node := func(n byte, name catalog.NodeID) catalog.NewNode {
		return catalog.NewNode{Name: name, Site: "site-" + string(name), Addresses: []string{string(name) + ":7480"}, Key: catalog.Hash{n}, Voter: true, Version: 1}
	}
	witness := node(3, "w")
	witness.Witness = true
	c.found(&catalog.InitCluster{Cluster: catalog.Cluster{ID: catalog.UUID{1}, Name: "sim"}, Node: node(1, "a")})
	for i, n := range []catalog.NewNode{node(2, "b"), witness} {
		token := catalog.Hash{byte(i + 1)}
		c.found(&catalog.AddToken{Hash: token, Expires: catalog.StampOf(w.group.Now().Add(time.Hour))})
		c.found(&catalog.AdmitNode{Token: token, Node: n})
	}
	c.found(c.somePace())
	c.found(c.newLUN())
	c.founded = len(c.raft.log)
	return c
}

// found does what has to succeed.
func (c *cluster) found(b catalog.Body) {
	if res := c.raft.append(encode(c.raft.command("user eve", b))); res.Error != nil {
		panic(fmt.Sprintf("sim: %s: %v", b.Kind(), res.Error))
	}
}

func (c *cluster) newLUN() catalog.Body {
	l := &catalog.AddLUN{
		ID: lunUUID, Name: "disk", Size: c.w.shape.geo.Size, BlockSize: 512, ExtentSize: c.w.shape.geo.ExtentSize, NAA: catalog.NAA{0x60},
		Preferred: "a", Loss: c.somePolicy(), Epoch: c.raft.uuid(),
	}
	for _, n := range []catalog.NodeID{"a", "b"} {
		l.Replicas = append(l.Replicas, catalog.Replica{Node: n, Kind: catalog.File, Path: "/disk"})
	}
	return l
}

func (c *cluster) somePace() catalog.Body {
	p := paces[c.w.rand.IntN(len(paces))]
	d := func(d time.Duration) *catalog.Duration { return (*catalog.Duration)(&d) }
	hold := time.Duration(c.w.rand.IntN(3)) * 5 * time.Second
	return &catalog.ChangeSettings{Heartbeat: d(p.heartbeat), Lease: d(p.lease), PreferredDelay: d(p.preferred), HoldWait: d(hold)}
}

func (c *cluster) somePolicy() catalog.LossPolicy {
	if chance(c.w.rand, 40) {
		return catalog.ServeStale
	}
	c.holds = true
	return catalog.Hold
}

// order is an operator's command, who waits until it is done. It is called by a task of the
// world.
func (c *cluster) order(b catalog.Body) {
	c.w.sleep(upTo(c.w.rand, time.Second))
	if res := c.raft.agree(encode(c.raft.command("user eve", b))); res.Error != nil {
		c.w.fail("%s: %v", b.Kind(), res.Error)
	}
}

// hasLeft notes that a drained site has left, in a new term.
func (c *cluster) hasLeft(term uint64) {
	c.left, c.joins = term, [2]uint64{}
	for i, s := range c.w.sites {
		if s.rep != nil {
			c.joins[i], _ = s.rep.Joined()
		}
	}
}

// serves tells whether a site is in the set, as was agreed upon last.
func (c *cluster) serves(s *site) bool {
	l, _ := c.raft.latest().LUN(lunUUID)
	return l.Serves(catalog.NodeID(s.name))
}

// check: while one site serves alone, the other one answers no host.
func (c *cluster) check() error {
	for i, s := range c.w.sites {
		a, b := s.agent, c.w.sites[1-i].agent
		if a != nil && b != nil && a.role.Free && a.answers() && b.answers() && !c.divided(a, b) {
			return fmt.Errorf("site %s serves alone (%+v), and site %s answers hosts, too (%+v)", a.s.name, a.role, b.s.name, b.role)
		}
	}
	return nil
}

// together tells whether both sites serve.
func (c *cluster) together() bool {
	for _, s := range c.w.sites {
		if s.agent == nil || s.agent.applied < len(c.raft.log) {
			return false
		}
		if r, holds := s.agent.keeper.Role(lunUUID); r.Serve != failover.Together || !holds {
			return false
		}
	}
	return true
}

// away is how long most troubles of a cluster last, at most: longer than any lease.
const away = 8 * time.Second

// someTrouble is the cluster's trouble. False: none.
func (c *cluster) someTrouble(s *site) bool {
	switch n := c.w.rand.IntN(100); {
	case n < 38:
		c.someSilence(s, n)
	case n < 46:
		c.w.tracef("TROUBLE: site %s gets no turn", s.name)
		g := s.group
		g.Pause()
		c.w.later(away, g.Resume)
	case n < 50:
		c.w.tracef("TROUBLE: site %s is started again and again", s.name)
		c.w.group.Go("restarts", func() { s.again(2 + c.w.rand.IntN(5)) })
	case n < 64:
		c.someOrder(s, n)
	case n < 64+c.w.shape.force && !c.forcing:
		c.someForce(s)
	default:
		return false
	}
	return true
}

// awkward is how soon trouble comes after a change of who serves, at most: while one site
// knows of it, and the other one does not; or it is not on disk yet.
const awkward = 500 * time.Millisecond

// decided makes trouble just then.
func (w *world) decided() {
	s := w.sites[w.rand.IntN(2)]
	if w.resting || chance(w.rand, 40) && w.cluster.someTrouble(s) {
		return
	}
	w.tracef("TROUBLE: the process at site %s is killed just now", s.name)
	s.whenRunning(s.kill)
	if chance(w.rand, 30) {
		w.isolate(s)
	}
}

// part cuts the link for a while. It is the leases that keep hosts from old data then, not
// that a site has noticed.
func (w *world) part() {
	w.tracef("TROUBLE: the sites do not reach each other")
	w.link.cut = true
	w.link.severWithin(errParted, 4*noticing)
	w.later(away, func() { w.link.cut = false })
}

var errParted = errors.New("the sites do not reach each other")

// isolate keeps a site from raft for a while.
func (w *world) isolate(s *site) {
	w.tracef("TROUBLE: site %s is isolated from raft", s.name)
	s.seat.isolated = true
	w.later(away, func() { s.seat.isolated = false })
}

// someSilence cuts a site off, from some or from all.
func (c *cluster) someSilence(s *site, n int) {
	w := c.w
	switch {
	case n < 12:
		w.isolate(s)
		w.part()
	case n < 18:
		w.isolate(s)
	case n < 26:
		w.part()
	case n < 32:
		w.tracef("TROUBLE: what site %s is told is stalled", s.name)
		w.link.stall(s.no, true)
		w.later(away, func() { w.link.stall(s.no, false) })
	default:
		w.tracef("TROUBLE: the witness is away")
		c.raft.away = true
		w.later(away, func() { c.raft.away = false })
	}
}

// someOrder is something that an operator wants.
func (c *cluster) someOrder(s *site, n int) {
	w, name := c.w, catalog.NodeID(s.name)
	var body catalog.Body
	switch {
	case n < 55:
		if !w.drains {
			w.tracef("TROUBLE: site %s is drained", s.name)
			w.group.Go("operator", func() { c.drain(s, func() { w.sleep(upTo(w.rand, 2*away)) }) })
		}
		return
	case n < 58:
		loss := c.somePolicy()
		w.tracef("TROUBLE: the loss policy is %s from now on", loss)
		body = &catalog.ChangeLUN{ID: lunUUID, Loss: &loss}
	case n < 61:
		w.tracef("TROUBLE: site %s is preferred from now on", s.name)
		body = &catalog.ChangeLUN{ID: lunUUID, Preferred: &name}
	default:
		w.tracef("TROUBLE: the settings change")
		body = c.somePace()
	}
	w.group.Go("operator", func() { c.order(body) })
}

// drain has a site, or its replica, drained during something.
func (c *cluster) drain(s *site, during func()) {
	name := catalog.NodeID(s.name)
	order := func(yes bool) { c.order(&catalog.ChangeNode{Name: name, Drained: &yes}) }
	if chance(c.w.rand, 50) {
		order = func(yes bool) { c.order(&catalog.DrainReplica{LUN: lunUUID, Node: name, Drained: yes}) }
	}
	c.w.drains = true
	order(true)
	during()
	order(false)
	c.w.drains = false
}

// again kills the site's process as soon as it runs, so many times.
func (s *site) again(times int) {
	for ; times > 0 && !s.w.resting; times-- {
		s.whenRunning(s.kill)
		s.w.sleep(time.Second + upTo(s.w.rand, time.Second))
	}
}
