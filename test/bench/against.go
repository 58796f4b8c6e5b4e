package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/twinlun/twinlun/cmd/twinlund/status"
	"github.com/twinlun/twinlun/test/initiator"
)

const (
	againstSize  = 256 << 20
	againstRound = 100 * time.Millisecond
)

// tgtLoads are what tgtRow measures.
var tgtLoads = []tgtLoad{
	{what: "4 KiB random reads", size: 4 << 10, depth: 1, aim: 1.5},
	{what: "4 KiB random reads", size: 4 << 10, depth: 8},
	{what: "4 KiB random reads", size: 4 << 10, depth: 32, aim: 2},
	{what: "4 KiB random writes", size: 4 << 10, depth: 1, write: true, aim: 1.5},
	{what: "4 KiB random writes", size: 4 << 10, depth: 8, write: true},
	{what: "4 KiB random writes", size: 4 << 10, depth: 32, write: true, aim: 2},
	{what: "64 KiB sequential reads", size: 64 << 10, depth: 8},
	{what: "64 KiB sequential writes", size: 64 << 10, depth: 8, write: true},
	{what: "1 MiB sequential reads", size: 1 << 20, depth: 8, aim: 1.5},
	{what: "1 MiB sequential writes", size: 1 << 20, depth: 8, write: true, aim: 1.5},
	{what: "4 KiB random reads, 4 sessions", size: 4 << 10, depth: 32, sessions: 4},
	{what: "4 KiB random writes, 4 sessions", size: 4 << 10, depth: 32, sessions: 4, write: true},
}

// tgtLoad is one kind of load.
type tgtLoad struct {
	what     string
	write    bool
	size     int // bytes of a command
	depth    int // of each session
	sessions int // 0: one
	aim      float64
}

func (l *tgtLoad) random() bool { return l.size == 4<<10 }

// next makes the offsets of one session, in one round.
func (l *tgtLoad) next(r *rand.Rand) func() int64 {
	units := int64(againstSize / l.size)
	if l.random() {
		return func() int64 { return r.Int64N(units) * int64(l.size) }
	}
	at := r.Int64N(units)
	return func() int64 {
		at = (at + 1) % units
		return at * int64(l.size)
	}
}

// contender is a target with some sessions, and what its process has used.
type contender struct {
	pid   int
	opts  initiator.Options
	pumps []*initiator.Pump
	seed  uint64
	n     int64         // commands …
	cpu   time.Duration // … and the target's processor time for them
	mine  time.Duration // and this process's
	wall  time.Duration // of all rounds
}

// tgtRow compares the daemon of a pair, twinlund at site a, with tgtd. Both have a
// file in the same folder, the same client, and as many sessions. All extents are
// OWNED at site a, and copies wait.
func tgtRow(b *bench) (results []result, err error) {
	tgt, err := b.newTgtd(againstSize)
	if errors.Is(err, errNoTgt) {
		return []result{{what: err.Error()}}, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, tgt.stop()) }()
	d, err := b.newDaemons(againstSize)
	if err != nil {
		return nil, err
	}
	if err := d.configure(noCopies); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	if _, err := d.start(b, 0, 1); err != nil {
		return nil, err
	}
	twin := &contender{pid: d.sites[0].cmd.Process.Pid, opts: d.options()}
	other := &contender{pid: tgt.cmd.Process.Pid, opts: tgt.options()}
	defer twin.close()
	defer other.close()
	return b.contest(twin, other, &d.sites[0])
}

func (d *daemons) options() initiator.Options {
	return initiator.Options{Address: d.sites[0].ISCSI, TargetIQN: daemonIQN}
}

// contest measures every load, and makes sure that site a needed its peer for none.
func (b *bench) contest(twin, other *contender, site *daemonSite) (results []result, err error) {
	for _, c := range []*contender{twin, other} {
		if err := c.login(b, 1); err != nil {
			return nil, err
		}
		if err := fill(c.pumps[0]); err != nil {
			return nil, err
		}
	}
	asked := func() (n uint64) {
		site.lun(b.ctx, func(l *status.LUN) bool { n = l.Marks + l.Fetches; return true })
		return n
	}
	before := asked()
	for i := range tgtLoads {
		lines, err := b.compare(&tgtLoads[i], twin, other)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", tgtLoads[i].what, err)
		}
		results = append(results, lines...)
	}
	if asked() != before {
		return nil, errors.New("the daemon has asked its peer: not all extents were owned")
	}
	return results, nil
}

// compare runs rounds of one load in turns.
func (b *bench) compare(l *tgtLoad, twin, other *contender) ([]result, error) {
	for _, c := range []*contender{twin, other} {
		c.reset()
		if err := c.login(b, max(1, l.sessions)); err != nil {
			return nil, err
		}
	}
	s, err := rounds(pick(b, 60, 10), func() (float64, error) { return twin.round(l) }, func() (float64, error) { return other.round(l) })
	if err != nil {
		return nil, err
	}
	ratio, text := s.ratio()
	show := func(v []float64) string {
		if l.random() {
			return fmt.Sprintf("%.0f IOPS", median(v))
		}
		return fmt.Sprintf("%.0f MB/s", median(v)*float64(l.size)/1e6)
	}
	first := result{
		what: fmt.Sprintf("%s, QD %d", l.what, l.depth), figure: show(s.a), against: "tgt " + show(s.b),
		ratio: text, met: ratio >= l.aim,
	}
	if l.aim > 0 {
		first.aim = fmt.Sprintf("≥ %.1f", l.aim)
	}
	return []result{first, {
		what:   "… processor seconds for 10⁶ commands",
		figure: fmt.Sprintf("%.1f s", twin.perMillion(twin.cpu)), against: fmt.Sprintf("tgt %.1f s", other.perMillion(other.cpu)),
		ratio: fmt.Sprintf("%.2f", twin.perMillion(twin.cpu)/other.perMillion(other.cpu)),
	}, {
		what:   "… and the client's, and how busy it was",
		figure: twin.client(l), against: "tgt " + other.client(l),
	}}, nil
}

func (c *contender) perMillion(d time.Duration) float64 { return d.Seconds() * 1e6 / float64(c.n) }

// client tells what the client took, and what part of its time it worked: a client
// that works all the time is what is being measured.
func (c *contender) client(l *tgtLoad) string {
	busy := c.mine.Seconds() / c.wall.Seconds() / float64(max(1, l.sessions))
	return fmt.Sprintf("%.1f s, %.0f %%", c.perMillion(c.mine), 100*busy)
}

func (c *contender) reset() { c.n, c.cpu, c.mine, c.wall = 0, 0, 0, 0 }

// login opens sessions until there are so many, or closes some: a session that a load
// leaves idle answers no pings, and would be ended by its target.
func (c *contender) login(b *bench, sessions int) error {
	for len(c.pumps) > sessions {
		last := len(c.pumps) - 1
		c.pumps[last].Close()
		c.pumps = c.pumps[:last]
	}
	for len(c.pumps) < sessions {
		c.opts.InitiatorIQN = fmt.Sprintf("iqn.2026-01.org.example:client%d", len(c.pumps))
		p, err := initiator.NewPump(b.ctx, c.opts)
		if err != nil {
			return err
		}
		c.pumps = append(c.pumps, p)
	}
	return nil
}

func (c *contender) close() {
	for _, p := range c.pumps {
		p.Close()
	}
}

// fill writes every byte of a LUN of againstSize once.
func fill(p *initiator.Pump) error {
	at := int64(-1 << 20)
	w := initiator.Work{Write: true, Size: 1 << 20, Depth: 4, Count: againstSize >> 20, Next: func() int64 { at += 1 << 20; return at }}
	_, err := p.Run(w)
	return err
}

// round is one round of a load: commands per second.
func (c *contender) round(l *tgtLoad) (float64, error) {
	before, err := cpuTime(c.pid)
	if err != nil {
		return 0, err
	}
	mine, err := cpuTime(os.Getpid())
	if err != nil {
		return 0, err
	}
	began := time.Now()
	n, err := c.run(l, began.Add(againstRound))
	took := time.Since(began)
	if err != nil {
		return 0, err
	}
	after, err := cpuTime(c.pid)
	if err != nil {
		return 0, err
	}
	c.n, c.cpu, c.wall = c.n+n, c.cpu+after-before, c.wall+took
	now, err := cpuTime(os.Getpid())
	c.mine += now - mine
	return float64(n) / took.Seconds(), err
}

// run drives all sessions of a load at once.
func (c *contender) run(l *tgtLoad, until time.Time) (int64, error) {
	pumps := c.pumps[:max(1, l.sessions)]
	counts, errs := make([]int64, len(pumps)), make([]error, len(pumps))
	var all sync.WaitGroup
	for i, p := range pumps {
		c.seed++
		r := rand.New(rand.NewPCG(c.seed, 1))
		all.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			counts[i], errs[i] = p.Run(initiator.Work{Write: l.write, Size: l.size, Depth: l.depth, Next: l.next(r), Until: until})
		})
	}
	all.Wait()
	sum := int64(0)
	for _, n := range counts {
		sum += n
	}
	return sum, errors.Join(errs...)
}
