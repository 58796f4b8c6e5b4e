// Package sim runs two whole nodes in one goroutine's time: the engine, the shell
// around it, the map file, the copier, the volume and what decides who serves as they
// are, on simulated disks and a simulated link, with virtual time. A seed decides everything: the
// shape of the LUN, what the hosts do, who runs next, what crashes when and what a
// crash leaves of the writes that were not flushed. The same seed is the same run.
//
// Checked all along:
//   - I1 and I2 of the coherence protocol, after every step while both serve;
//   - I4: what every read returns, against the history of each 512-byte sector
//     (history.go says how, and what an operating system crash may take away);
//   - what one site tells the other (replication.Twin) has been heard when it says so;
//   - that no read shows a part of an atomic write, whatever has crashed;
//   - that comparing the replicas, at any time, finds nothing;
//   - no panic, no error that a host should not see.
//
// In half of the seeds the two sites are a cluster: each has the real roles.Keeper, with
// its failover.Machine, over the real catalog, behind a model of raft (raft.go). Checked is, beside that:
//   - while a site serves alone, the other one answers no host;
//   - nobody is answered while the role of a site changes.
//
// Operators force sites there, too (force.go): when the other one is dead, when it goes on, or
// both. Hosts may see two versions of the LUN then, each of which is checked (fork.go):
//   - until one of the two cannot know what was agreed upon, and no longer;
//   - when they join it is the right one that stays, extent by extent, at both sites;
//   - what was acknowledged and is given up is in a salvage file, as it was.
//
// And at the end, when everything is healed and the hosts rest: nothing is stuck, both
// sites serve again, nothing stays dirty, both know what hosts made of the unit, and both
// replicas are the same, byte for byte (I3).
package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twinlun/twinlun/dirtymap"
)

// Options is what a run takes beside its seed.
type Options struct {
	Time  time.Duration // virtual, of hosts and trouble; 0: 15 s
	Trace func(line string)

	mutation mutation     // with it there is a cluster, whatever the seed says
	script   func(*world) // all trouble that there is; nil: that of the seed
}

// Result is what came of a run.
type Result struct {
	Hash     uint64 // of all steps and results
	Steps    uint64
	Ops      int // host commands that ended
	Crashes  int
	Joins    uint64
	Resets   int           // sectors whose contents a crash left open
	Grown    int           // times that a site's map was made larger
	Atomics  int           // atomic writes that ended
	Compared int64         // bytes of both replicas that were compared while they were used
	Parted   int           // reads that saw other sectors than an atomic write's where it went
	Healed   time.Duration // from the end of all trouble until the hosts had nothing to wait for
	// Of runs with a cluster: times that a site served alone, that data was given up, and that
	// a drained site has left.
	Takes, Salvages, Left int
	Forks                 int // times that hosts of the two sites may have seen different versions
	Late                  int // and one of them was given up for that
}

// shape is what a seed makes of the world.
type shape struct {
	geo       dirtymap.Geometry // when it has grown
	start     int64             // size at first, in bytes
	streams   int
	delay     time.Duration // of the link, at most
	clients   int           // at each site
	hot       int           // blocks that most commands go to
	subBlock  bool          // commands of single sectors too
	coldAfter time.Duration
	trouble   time.Duration // between two troubles, on average
	osCrashes bool
	destroy   bool // a site's replica and map file may be lost
	think     time.Duration
	syncs     int // of 100 commands
	zeroes    int
	updates   int
	atomics   int
	aborts    int
	now       int // of 100 reads and writes are tried without waiting
	raises    int
	widely    bool // the product's predictor, not a random one
	cluster   bool // which decides who serves
	awkward   int  // of 100 of its decisions are followed by trouble at once
	force     int  // of 100 of its troubles an operator forces a site
}

// healing is how long the end of a run may take, in virtual time.
const healing = 3 * time.Minute

// Run runs a seed. The error says what was wrong.
func Run(seed uint64, o Options) (Result, error) {
	if o.Time == 0 {
		o.Time = 15 * time.Second
	}
	w := newWorld(seed, o)
	defer w.sched.Close()
	w.start()
	err := w.sched.Run(o.Time, w.check)
	if err == nil {
		w.heal()
		err = w.sched.Run(o.Time+healing, w.check)
	}
	if err == nil && !w.finished {
		err = fmt.Errorf("stuck: not at rest %v after the end of all trouble\n%s", healing, w.describe())
	}
	return w.result(), err
}

func newShape(r *rand.Rand) shape {
	extent := int64(4096) << []int{0, 1, 2, 2, 4}[r.IntN(5)]
	s := shape{
		geo:       dirtymap.Geometry{ExtentSize: extent, Size: extent * int64(2+r.IntN(10))},
		streams:   1 + r.IntN(3),
		delay:     []time.Duration{200 * time.Microsecond, 5 * time.Millisecond, 40 * time.Millisecond}[r.IntN(3)],
		clients:   1 + r.IntN(4),
		hot:       1 + r.IntN(6),
		subBlock:  r.IntN(4) == 0,
		coldAfter: []time.Duration{500 * time.Millisecond, 2 * time.Second, time.Minute}[r.IntN(3)],
		trouble:   []time.Duration{400 * time.Millisecond, 2 * time.Second, 6 * time.Second}[r.IntN(3)],
		osCrashes: r.IntN(4) != 0,
		destroy:   r.IntN(4) == 0,
		think:     []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond}[r.IntN(3)],
		syncs:     []int{2, 20}[r.IntN(2)],
		zeroes:    []int{0, 10}[r.IntN(2)],
		updates:   []int{0, 10, 20}[r.IntN(3)],
		atomics:   []int{0, 10, 20}[r.IntN(3)],
		aborts:    []int{0, 5}[r.IntN(2)],
		now:       []int{0, 80}[r.IntN(2)],
		widely:    r.IntN(2) == 0,
		raises:    []int{0, 3, 15}[r.IntN(3)],
	}
	if s.cluster = r.IntN(2) == 0; s.cluster {
		s.awkward = []int{0, 20, 60}[r.IntN(3)]
		s.force = []int{0, 5, 30}[r.IntN(3)]
	}
	if s.geo.Size > extent && extent > dirtymap.BlockSize {
		s.geo.Size -= int64(r.IntN(int(extent/dirtymap.BlockSize))) * dirtymap.BlockSize // the last extent may be short
	}
	if s.start = s.geo.Size; r.IntN(3) == 0 {
		s.start = dirtymap.BlockSize * (1 + r.Int64N(s.geo.Size/dirtymap.BlockSize))
	}
	return s
}

// chance is true in n of 100 cases.
func chance(r *rand.Rand, n int) bool { return r.IntN(100) < n }

// upTo is a random duration below d.
func upTo(r *rand.Rand, d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(r.Int64N(int64(d)))
}
