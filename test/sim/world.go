package sim

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication"
	"github.com/twinlun/twinlun/replication/coherence"
	"github.com/twinlun/twinlun/replication/wire"
	"github.com/twinlun/twinlun/target/volume"
	"github.com/twinlun/twinlun/task/simtask"
)

var background = context.Background()

const lunNumber = 7

var lunUUID = [16]byte{0x74, 0x77, 0x69, 0x6e}

// world is everything of a run.
type world struct {
	o     Options
	sched *simtask.Scheduler
	group *simtask.Group // what no crash ends
	rand  *rand.Rand
	shape shape
	sites [2]*site
	link  *link
	hists [2]*history // what hosts see at each site: one, but for a fork

	cluster *cluster // nil: the two serve both, for good

	resting  bool // hosts and trouble stop
	finished bool
	drains   bool      // a site is drained, or about to be
	lost     [2]loss   // by crashes, which is not decided yet
	unsure   [2]bool   // a site has crashed since the last join
	joins    [2]uint64 // of each site's replica, up to now
	forking

	lastNumber uint64            // that a host has raised a unit's to
	heard      map[uint64]uint64 // numbers that a twin has heard of, and the step
	totals     Result
}

// site is one of the two places: its media, and the process that runs there.
type site struct {
	w       *world
	no      int
	name    string
	replica *medium
	mapFile *medium
	journal *medium
	size    int64 // of the LUN, as the map file says
	want    int64 // what it may grow to here
	boot    byte  // counts the operating system's starts
	seat    *seat // in the cluster
	blank   bool  // the replica is all zeros
	made    bool  // the map file was opened once
	met     bool  // the replica was joined once: it has data
	bare    bool  // the replica was destroyed, and not joined since

	group   *simtask.Group
	node    *replication.Node // nil: not running (yet)
	rep     *replication.Replica
	vol     *volume.LUN
	twin    *twin           // of the process
	agent   *agent          // of the process, in a cluster
	host    context.Context // of the hosts' commands
	leave   context.CancelCauseFunc
	hosts   int // host tasks that run
	wanted  bool
	stopped bool // by an orderly stop
	growing bool // the replica is closed and opened anew
}

func newWorld(seed uint64, o Options) *world {
	w := &world{o: o, sched: simtask.New(seed), heard: map[uint64]uint64{}}
	w.rand = w.sched.Rand()
	w.shape = newShape(w.rand)
	if o.mutation != 0 {
		w.shape.cluster, w.shape.destroy = true, false
		w.shape.clients, w.shape.think, w.shape.force = 1, 100*time.Millisecond, 0
		if o.script != nil || o.mutation == forcedLate || o.mutation == lacksBlock {
			w.shape.force = 30
		}
	}
	w.group = w.sched.Group("world")
	w.hists[0] = newHistory(w.shape.geo.Size, w.shape.subBlock)
	w.hists[1] = w.hists[0]
	w.link = &link{w: w}
	for i, name := range []string{"a", "b"} {
		w.sites[i] = &site{
			w: w, no: i, name: name, blank: true, size: w.shape.start, want: w.shape.start,
			replica: newMedium(w.rand, w.shape.geo.Size), mapFile: newMedium(w.rand, 0), journal: newMedium(w.rand, 0),
			seat: w.newSeat(),
		}
	}
	w.tracef("shape: %+v", w.shape)
	if w.shape.cluster {
		w.cluster = newCluster(w)
	}
	return w
}

// start begins everything.
func (w *world) start() {
	w.group.Go("connector", w.link.connector)
	for _, s := range w.sites {
		s.start()
	}
	if w.o.script != nil {
		w.shape.awkward = 0
		w.group.Go("script", func() { w.o.script(w) })
		return
	}
	w.group.Go("trouble", w.trouble)
}

// tracef adds a line to the trace, if there is one.
func (w *world) tracef(format string, args ...any) {
	if w.o.Trace != nil {
		w.o.Trace(fmt.Sprintf("%12v ", w.sched.Elapsed()) + fmt.Sprintf(format, args...))
	}
}

// traceMessage traces a message without its data.
func (w *world) traceMessage(how string, side, lane int, m wire.Message) {
	if w.o.Trace != nil {
		w.tracef("%s %s, lane %d: %v %s", how, w.sites[side].name, lane, m.Kind(), brief(m))
	}
}

func brief(m wire.Message) string {
	blocks := func(b wire.Blocks) string {
		var runs []string
		for first, n := range b.Present.Runs {
			runs = append(runs, fmt.Sprintf("%d+%d", first, n))
		}
		return fmt.Sprintf("extent %d blocks %v", b.Extent, runs)
	}
	var parts []string
	switch m := m.(type) {
	case *wire.Copy:
		for _, b := range m.Items {
			parts = append(parts, blocks(b))
		}
		return fmt.Sprintf("seq %d: %s", m.Seq, strings.Join(parts, ", "))
	case *wire.FetchReply:
		for _, it := range m.Items {
			parts = append(parts, fmt.Sprintf("outcome %d turn %d %s", it.Outcome, it.Turn, blocks(it.Blocks)))
		}
		return fmt.Sprintf("id %d floors %v: %s", m.ID, m.Floors, strings.Join(parts, ", "))
	case *wire.JoinMap:
		return fmt.Sprintf("%d bytes, last %v", len(m.Data), m.Last)
	}
	return fmt.Sprintf("%+v", m)
}

// fail ends the run.
func (w *world) fail(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	w.tracef("FAILED: %v", err)
	w.sched.Fail(err)
}

// start starts the site's process.
func (s *site) start() {
	s.group = s.w.sched.Group(s.name)
	s.wanted, s.stopped, s.growing = true, false, false
	s.group.Go("main", s.main)
}

// main is what the daemon does when it starts.
func (s *site) main() {
	w := s.w
	if !s.made {
		s.mapFile.reset(0) // a map file that was never finished
	}
	s.twin = &twin{s: s}
	if w.cluster != nil {
		if s.agent = s.newAgent(); s.agent == nil {
			return
		}
	}
	rep := s.open(nil)
	if rep == nil {
		return
	}
	s.rep, s.vol = rep, volume.NewLUN(s.volume(rep))
	s.host, s.leave = context.WithCancelCause(background)
	node := replication.NewNode(w.logger(s.name))
	if s.agent != nil {
		node = replication.NewClusterNode(w.logger(s.name), s.agent.keeper.Beats(catalog.NodeID(w.sites[1-s.no].name)))
		s.group.Go("raft", s.agent.follow)
	}
	if err := node.Add(rep); err != nil {
		w.fail("site %s: %v", s.name, err)
		return
	}
	s.node = node
	w.tracef("site %s runs", s.name)
	s.startHosts()
}

// open opens the site's replica; before is the one that was open in this process.
func (s *site) open(before *replication.Replica) *replication.Replica {
	w := s.w
	rc := replication.ReplicaConfig{
		Number: lunNumber, UUID: lunUUID, Preferred: s.no == 0,
		Geometry: dirtymap.Geometry{Size: s.size, ExtentSize: w.shape.geo.ExtentSize},
		Store:    &disk{s.replica, s.group, w.shape.geo.Size},
		MapFile:  &mapDisk{s.mapFile, s.group},
		Journal:  &mapDisk{s.journal, s.group},
		Blank:    s.blank, Boot: [16]byte{s.boot + 1}, Proposal: [16]byte{1 + byte(s.no), byte(w.rand.Uint32())},
		Want: s.want, Grow: s.reopen, Before: before, Twin: s.twin, Salvage: s.salvage,
		Predictor: w.predictor(s), ServeStale: w.shape.destroy, Verified: s.compared, ColdAfter: w.shape.coldAfter, CopyWindow: 4 * dirtymap.BlockSize << w.rand.IntN(5),
		Runtime: s.group, Log: w.logger(s.name),
	}
	s.inCluster(&rc)
	rep, err := replication.OpenReplica(rc)
	if err == nil && s.agent != nil {
		err = s.agent.attach(rep)
	}
	if err != nil {
		w.fail("site %s does not open: %v", s.name, err)
		return nil
	}
	s.made, s.blank = true, false
	return rep
}

func (w *world) logger(name string) *slog.Logger {
	if w.o.Trace == nil {
		return slog.New(slog.DiscardHandler)
	}
	drop := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	return slog.New(slog.NewTextHandler(tracer{w}, &slog.HandlerOptions{ReplaceAttr: drop})).With("site", name)
}

// tracer is an io.Writer into the trace.
type tracer struct{ w *world }

func (t tracer) Write(p []byte) (int, error) {
	t.w.tracef("%s", strings.TrimSpace(string(p)))
	return len(p), nil
}

// predictor is the product's (nil) or a random one.
func (w *world) predictor(s *site) coherence.Predictor {
	if w.shape.widely {
		return nil
	}
	return &predictor{w, dirtymap.Geometry{Size: s.size, ExtentSize: w.shape.geo.ExtentSize}.Extents()}
}

// predictor widens at random.
type predictor struct {
	w   *world
	all uint64 // extents
}

// Window implements coherence.Predictor.
func (p *predictor) Window(r dirtymap.Range) dirtymap.Range {
	first := r.First - min(r.First, uint64(p.w.rand.IntN(3)))
	end := min(r.End()+uint64(p.w.rand.IntN(4)), p.all)
	return dirtymap.Range{First: first, Count: end - first}
}

// TooWide implements coherence.Predictor.
func (p *predictor) TooWide(uint64) {}

// kill ends the site's process, as SIGKILL does.
func (s *site) kill() {
	s.group.Kill()
	s.hist().kill(s.no)
	if s.rep != nil {
		s.w.totals.Joins += s.rep.Status().Joins
	}
	s.node, s.rep, s.vol, s.agent, s.hosts = nil, nil, nil, nil, 0
	s.wanted = false
	s.w.totals.Crashes++
	if c := s.w.link.ends[1-s.no]; c != nil && c.ctx.Err() == nil && c.peer.group == s.group {
		s.w.link.severEnd(c, fmt.Errorf("the process at site %s is gone", s.name))
	}
}

// crashOS ends the site's operating system.
func (s *site) crashOS() {
	s.noteTakenOver()
	s.kill()
	n := s.replica.crash()
	m, j := s.mapFile.crash(), s.journal.crash()
	s.w.tracef("site %s: %d writes of the replica, %d of the map file and %d of the journal were in doubt", s.name, n, m, j)
	s.seat.memos.crash()
	s.boot++
	s.reboot()
	s.w.crash(s, lossOS)
}

// destroy takes the site's replica and map file away, and perhaps its journal.
func (s *site) destroy() {
	s.noteTakenOver()
	s.kill()
	s.replica.reset(s.w.shape.geo.Size)
	s.mapFile.reset(0)
	if chance(s.w.rand, 50) {
		s.journal.reset(0)
	}
	s.made, s.blank, s.met, s.bare = false, true, false, true
	s.size = s.w.shape.start // and grows again, if the peer has
	s.w.destroyed(s)
	s.w.crash(s, lossReplica)
}

// check runs after every step.
func (w *world) check() bool {
	serving := 0
	for i, s := range w.sites {
		if s.rep == nil {
			w.joins[i], w.solo[i] = 0, false
			continue
		}
		st := s.rep.Status()
		join, together := s.rep.Joined()
		if together && st.Serving {
			serving++
		}
		if st.LastAlarm != "" && !w.shape.destroy {
			w.fail("alarm: %s", st.LastAlarm) // nothing here gives cause for one
		}
		if st.Joins > 0 {
			s.met, s.bare = true, false
		}
		// One of them may serve for a moment when the other one has crashed again.
		joined := st.Joins > w.joins[i]
		if w.joins[i] = st.Joins; joined {
			w.joined(s)
		}
		w.watch(s, join, st.Serving && !together)
	}
	if w.cluster != nil {
		if err := w.cluster.check(); err != nil {
			w.fail("%v", err)
		}
	}
	if serving == 2 && w.oneConnection() {
		if err := invariants(w.sites[0].rep.Map(), w.sites[1].rep.Map()); err != nil {
			w.fail("%v", err)
		}
	}
	return w.finished
}

// oneConnection tells whether both sites speak over the same connection.
func (w *world) oneConnection() bool {
	for i, c := range w.link.ends {
		if c == nil || c.ctx.Err() != nil || c.group != w.sites[i].group {
			return false
		}
	}
	return true
}

// invariants are I1 and I2.
func invariants(a, b *dirtymap.Map) error {
	if a.Geometry() != b.Geometry() {
		return fmt.Errorf("both serve, %d bytes at a and %d at b", a.Geometry().Size, b.Geometry().Size)
	}
	for ext := range a.Geometry().Extents() {
		x, y := a.State(ext), b.State(ext)
		for _, p := range [][2]dirtymap.State{{x, y}, {y, x}} {
			if p[0]&dirtymap.Held != 0 && p[1]&dirtymap.Stale == 0 {
				return fmt.Errorf("I1, I2: extent %d is %v at a and %v at b", ext, x, y)
			}
		}
		for _, m := range []*dirtymap.Map{a, b} {
			if m.State(ext)&dirtymap.Held == 0 && !m.Dirty(ext).Empty() {
				return fmt.Errorf("I2: extent %d has dirty blocks and is %v", ext, m.State(ext))
			}
		}
	}
	return nil
}

func (w *world) result() Result {
	r := w.totals
	hist := w.hists[0]
	r.Hash, r.Steps, r.Ops, r.Resets = w.sched.Hash(), w.sched.Steps(), hist.ended, hist.resets
	r.Parted = hist.parted
	if w.cluster != nil {
		r.Takes, r.Forks = w.cluster.takes, w.forks
	}
	for _, s := range w.sites {
		if s.rep != nil {
			r.Joins += s.rep.Status().Joins
		}
	}
	return r
}

// describe tells what everybody is doing.
func (w *world) describe() string {
	var b strings.Builder
	for _, s := range w.sites {
		if s.rep == nil {
			fmt.Fprintf(&b, "site %s does not run\n", s.name)
			continue
		}
		fmt.Fprintf(&b, "site %s: %+v\n  extents:", s.name, s.rep.Status())
		for ext := range s.rep.Map().Geometry().Extents() {
			fmt.Fprintf(&b, " %v/%d", s.rep.Map().State(ext), s.rep.Map().Users(ext))
		}
		b.WriteByte('\n')
	}
	return b.String() + w.sched.Dump()
}

// sleep lets time go by in a task of the world.
func (w *world) sleep(d time.Duration) { w.group.Sleep(background, d) }
