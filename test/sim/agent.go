package sim

import (
	"context"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/failover"
	"github.com/twinlun/twinlun/cluster/roles"
	"github.com/twinlun/twinlun/replication"
	"github.com/twinlun/twinlun/replication/coherence"
	"github.com/twinlun/twinlun/target/volume"
	"github.com/twinlun/twinlun/task"
)

// Times of a site's part in the cluster, at most.
const (
	paceTime   = 10 * time.Millisecond // until the next entry of the log is applied; mostly
	lagTime    = time.Second           // sometimes
	lookAgain  = 200 * time.Millisecond
	electTime  = 4 * time.Second // until a process that has started hears of a leader; sometimes
	drainGrace = 3 * time.Second // until a drained site sends its hosts away
)

// seat is a site's place in the cluster; it outlives the process.
type seat struct {
	drift    int           // of the clock, in thousandths
	ahead    time.Duration // of the clock
	isolated bool          // from the raft group
	reached  int           // how far in the log the site has ever come
	memos    *memoFile
	policy   catalog.LossPolicy // that operators have given who forced it
}

// maxDrift is how much faster or slower than time a clock is, in thousandths: two of them
// differ by 2%, which is what package failover reckons with.
const maxDrift = 10

func (w *world) newSeat() *seat {
	return &seat{drift: w.rand.IntN(2*maxDrift+1) - maxDrift, memos: &memoFile{rand: w.rand}}
}

// reboot starts the machine's clock anew.
func (s *site) reboot() {
	s.seat.ahead = upTo(s.w.rand, time.Minute) - s.w.sched.Elapsed()*time.Duration(1000+s.seat.drift)/1000
}

// agent is what a site's process does about the cluster: the real Keeper, and what the
// daemon does for it.
type agent struct {
	*seat
	c       *cluster
	s       *site
	keeper  *roles.Keeper
	lease   *roles.Lease // nil: no replica was attached yet
	news    task.Signal  // the log has grown
	applied int
	role    failover.Role
}

// newAgent begins where a snapshot has the site, which may be anything that it had reached
// before.
func (s *site) newAgent() *agent {
	c, g := s.w.cluster, s.group
	a := &agent{seat: s.seat, c: c, s: s, news: g.NewSignal()}
	keeper, err := roles.New(roles.Config{
		Self: catalog.NodeID(s.name), Path: "memos", Propose: a.propose, Changed: a.changed,
		Clock: a.clock, Runtime: g, Random: s.w.rand.Uint64, Read: a.memos.read,
		Write: func(p []byte) error { return a.writeMemos(p) }, Log: s.w.logger(s.name),
		DrainGrace: 1 + upTo(s.w.rand, drainGrace),
	})
	if err != nil {
		s.w.fail("site %s: %v", s.name, err)
		return nil
	}
	a.keeper = keeper
	a.reached = max(a.reached, c.founded)
	back := min(a.reached-c.founded, s.w.rand.IntN(1<<s.w.rand.IntN(5)))
	s.w.tracef("site %s begins with entry %d of %d that it had reached", s.name, a.reached-back, a.reached)
	a.take(a.reached-back, false)
	return a
}

// clock goes on when the process gets no turn, and over its restarts.
func (a *agent) clock() failover.Time {
	return failover.Time(a.ahead + a.c.w.sched.Elapsed()*time.Duration(1000+a.drift)/1000)
}

// state is the catalog as the site knows it.
func (a *agent) state() *catalog.State { return a.c.raft.log[a.applied-1].state }

func (a *agent) lun() catalog.LUN {
	l, _ := a.state().LUN(lunUUID)
	return l
}

// connected tells whether the site takes part in raft.
func (a *agent) connected() bool { return !a.isolated && a.c.raft.majority() }

// follow is the task that applies the log.
func (a *agent) follow() {
	if chance(a.c.w.rand, 30) {
		a.s.group.Sleep(background, upTo(a.c.w.rand, electTime))
	}
	for {
		a.news.WaitFor(background, lookAgain)
		for a.applied < len(a.c.raft.log) && a.connected() {
			pace := upTo(a.c.w.rand, paceTime)
			if chance(a.c.w.rand, 5) {
				pace = upTo(a.c.w.rand, lagTime)
			}
			a.s.group.Sleep(background, pace)
			if behind := len(a.c.raft.log) - a.applied; behind > 1 && chance(a.c.w.rand, 10) {
				a.take(len(a.c.raft.log), false) // a snapshot of whoever leads
			} else if a.connected() {
				a.take(a.applied+1, true)
			}
		}
	}
}

// take comes to an entry of the log; one that is not the next is a snapshot.
func (a *agent) take(n int, next bool) {
	e := a.c.raft.log[n-1]
	policy := a.applied > 0 && a.lun().Loss != catalog.ServeStale
	a.applied, a.reached = n, max(a.reached, n)
	if policy && a.lun().Loss == catalog.ServeStale && a.role.Free {
		a.s.goesAlone(a.s.rep)
	}
	if !next {
		e.result = catalog.Result{}
	}
	a.tell(e)
}

// changed is what the Keeper tells before a replica gets another role.
func (a *agent) changed(_ catalog.UUID, r failover.Role) {
	a.c.w.tracef("site %s: %+v", a.s.name, r)
	if a.lease != nil && a.lease.Holds() {
		a.c.w.fail("site %s: hosts are answered while the role changes to %+v", a.s.name, r)
	}
	if r.Free && !a.role.Free {
		a.c.takes++
	}
	a.role = r
	a.forcedTo(r)
	if r.Free && r.Term == a.c.left {
		a.hasAll()
	}
	if r.Free {
		a.s.goesAlone(a.s.rep)
	}
}

// hasAll checks that a drained site has left nothing behind that this one does not have.
func (a *agent) hasAll() {
	if a.s.rep == nil || a.s.w.unsure != [2]bool{} {
		return
	}
	if join, _ := a.s.rep.Joined(); join != a.c.joins[a.s.no] {
		return
	}
	for i := range a.s.hist().registers {
		if off := int64(i) * sectorSize; !a.s.has(off) {
			a.s.w.fail("site %s serves alone, since the other one has left it to it, and has not got the newest data at %d", a.s.name, off)
			return
		}
	}
}

// attach gives the site's replica to the Keeper.
func (a *agent) attach(rep *replication.Replica) error {
	if a.role.Free {
		a.s.goesAlone(rep)
	}
	lease, err := a.keeper.Attach(lunUUID, rep)
	a.lease = lease
	return err
}

// Holds implements volume.Lease.
func (a *agent) Holds() bool {
	return a.lease.Holds() || a.c.w.o.mutation == alwaysHolds
}

// volume makes the volume of the site's replica.
func (s *site) volume(rep *replication.Replica) *volume.Volume {
	if s.agent == nil {
		return volume.New(rep)
	}
	return volume.NewLeased(rep, s.agent)
}

// inCluster has a replica wait for the cluster's word.
func (s *site) inCluster(rc *replication.ReplicaConfig) {
	if s.agent != nil {
		rc.Serve, rc.Place, rc.Joined, rc.Judge = coherence.ServeNone, s.name, s.agent.keeper.Look, s.agent.keeper.Judge(lunUUID)
	}
}

// propose is what the Keeper proposes with.
func (a *agent) propose(ctx context.Context, body catalog.Body) error {
	w, c := a.c.w, a.c.raft.command("node "+a.s.name, body)
	if chance(w.rand, 50) {
		if err := a.state().Check(c); err != nil {
			return err
		}
	}
	for !a.connected() || chance(w.rand, commandLost) {
		if err := a.s.group.Sleep(ctx, upTo(w.rand, retryTime)); err != nil {
			return err
		}
	}
	a.c.raft.carry(encode(c))
	lost := chance(w.rand, answerLost)
	for {
		if err := a.s.group.Sleep(ctx, upTo(w.rand, retryTime)); err != nil {
			return err
		}
		switch o, known := a.state().Answer(c.ID); {
		case lost:
			return errAnswerLost
		case known && o.Error != nil:
			return o.Error
		case known:
			return nil
		}
	}
}
