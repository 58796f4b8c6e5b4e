// Package failover measures how long hosts stand still when something breaks: a table of
// faults, each struck some times at a running cluster, while a host at the site that
// survives has many small commands in flight.
//
// Three times are taken in each run:
//
//	stall  the longest that any command took from its sending to its answer, of those
//	       that were under way at the fault or sent in the time after: what an
//	       application feels. The aim is for this one.
//	gap    the longest time without any answer
//	first  from the fault to the first answer to a command sent after it
//
// The gap and the first answer alone would flatter: reads of what the site owns go on when
// writes wait for the other one.
package failover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// The aim: so long hosts may stand still. Linux gives a command up after 30 s, and most
// cluster software a node after 10 s.
const (
	AimP95 = 4 * time.Second
	AimMax = 8 * time.Second
)

// Role names a node.
type Role string

// The nodes. Site A is the one that survives, where it is for the cluster to choose.
const (
	SiteA   Role = "site a"
	SiteB   Role = "site b"
	Witness Role = "witness"
)

// Cluster is a running one, with real daemons, that can be broken.
type Cluster interface {
	Kill(Role) error // SIGKILL
	Halt(Role) error // SIGSTOP
	Cut(x, y Role) error
	CutOneWay(from, to Role) error
	Isolate(Role) error // from all others, and from hosts
	// Mend undoes all of that, and returns when both sites serve and hold the same.
	Mend(context.Context) error
	// Host is one that has its only path to that site.
	Host(context.Context, Role) (Host, error)
}

// Host sends commands until they are answered; many at a time.
type Host interface {
	ReadAt(ctx context.Context, p []byte, off int64) error
	WriteAt(ctx context.Context, p []byte, off int64) error
	Close() error
}

// Fault is one thing that breaks.
type Fault struct {
	Name     string
	Survivor Role // whose host is looked at
	Strike   func(Cluster) error
}

// Faults are all that is measured.
var Faults = []Fault{
	{"the other site is killed", SiteA, func(c Cluster) error { return c.Kill(SiteB) }},
	{"the other site hangs", SiteA, func(c Cluster) error { return c.Halt(SiteB) }},
	{"the other site is cut off", SiteA, func(c Cluster) error { return c.Isolate(SiteB) }},
	{"site a is killed", SiteB, func(c Cluster) error { return c.Kill(SiteA) }},
	{"site a hangs", SiteB, func(c Cluster) error { return c.Halt(SiteA) }},
	{"site a is cut off", SiteB, func(c Cluster) error { return c.Isolate(SiteA) }},
	{"the link is cut", SiteA, func(c Cluster) error { return c.Cut(SiteA, SiteB) }},
	{"the link is cut from a to b", SiteA, func(c Cluster) error { return c.CutOneWay(SiteA, SiteB) }},
	{"the link is cut from b to a", SiteA, func(c Cluster) error { return c.CutOneWay(SiteB, SiteA) }},
	{"the witness is killed", SiteA, func(c Cluster) error { return c.Kill(Witness) }},
	{"the witness is cut off", SiteA, func(c Cluster) error { return c.Isolate(Witness) }},
}

// Options say how to measure.
type Options struct {
	Runs  int           // of each fault; default 20
	Depth int           // commands in flight; default 32
	Limit time.Duration // a run without answers for so long has failed; default 1 min
	Load  time.Duration // before the fault; default 2 s
	After time.Duration // at least, under load; default AimMax: some faults are found out late
	Size  int64         // bytes of the LUN that are used; default 64 MiB
}

func (o *Options) complete() {
	set := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	set(&o.Limit, time.Minute)
	set(&o.Load, 2*time.Second)
	set(&o.After, AimMax)
	if o.Runs == 0 {
		o.Runs = 20
	}
	if o.Depth == 0 {
		o.Depth = 32
	}
	if o.Size == 0 {
		o.Size = 64 << 20
	}
}

// Run strikes each fault as often as asked for, and prints the table. It goes on after a
// fault that the cluster did not survive: its row says so, and so does the error.
func Run(ctx context.Context, w io.Writer, c Cluster, faults []Fault, o Options) error {
	o.complete()
	var rows []row
	var errs []error
	for _, f := range faults {
		r := row{fault: f.Name}
		for range o.Runs {
			if err := c.Mend(ctx); err != nil {
				return errors.Join(append(errs, fmt.Errorf("before %q: %w", f.Name, err))...)
			}
			s, err := measure(ctx, c, f, o)
			if err != nil {
				r.failed++
				errs = append(errs, fmt.Errorf("%s: %w", f.Name, err))
				continue
			}
			r.add(s)
		}
		rows = append(rows, r)
		if !r.met() {
			errs = append(errs, fmt.Errorf("%s: the aim is missed", f.Name))
		}
	}
	return errors.Join(append(errs, table(w, rows))...)
}

// measure strikes a fault once.
func measure(ctx context.Context, c Cluster, f Fault, o Options) (stall, error) {
	h, err := c.Host(ctx, f.Survivor)
	if err != nil {
		return stall{}, fmt.Errorf("host at %s: %w", f.Survivor, err)
	}
	defer h.Close()
	m := newMeter(o, time.Now)
	loaded, end := context.WithCancel(ctx)
	defer m.wait()
	defer end()
	m.load(loaded, h)
	if err := m.settle(ctx); err != nil {
		return stall{}, fmt.Errorf("before the fault: %w", err)
	}
	m.strike()
	if err := f.Strike(c); err != nil {
		return stall{}, fmt.Errorf("strike: %w", err)
	}
	if err := m.recover(ctx); err != nil {
		return stall{}, fmt.Errorf("after the fault: %w", err)
	}
	return m.result(), nil
}
