// Package simtask is the simulation's task.Runtime: goroutines of which exactly
// one runs at a time, virtual time, and a seed that chooses who runs next.
//
// A Scheduler owns everything; it runs its tasks as coroutines inside Run. Tasks
// belong to a Group, which stands for a process: it can be paused; and killed, and its
// tasks then end where they are waiting. The same seed gives the same run, step by step,
// as long as the tasks themselves depend on nothing but their Runtime: no map
// order, no select among several ready channels, no other goroutine.
//
// A task that is killed ends by a panic that no task must recover from; its
// deferred functions run, and may only touch what belongs to its own group. What
// outlives a process (a disk, a network) asks Group.Alive before it changes.
//
// A Mutex that is held while its holder waits would stop the whole simulation:
// the coroutine that wants it blocks, and nobody else runs.
package simtask

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/twinlun/twinlun/task"
)

// Scheduler runs tasks. It belongs to the goroutine that calls Run, and to the
// task that runs at the moment.
type Scheduler struct {
	rand    *rand.Rand
	now     time.Duration
	timers  timers
	ready   []*coro
	tasks   []*coro // all that have not ended, in order of their creation
	dying   []*coro
	current *coro
	steps   uint64
	hash    uint64
	failure error
}

// New makes a scheduler for a seed.
func New(seed uint64) *Scheduler {
	return &Scheduler{rand: rand.New(rand.NewPCG(seed, 0x7477696e)), hash: 14695981039346656037}
}

// Rand is the seed's source of chance, for the tasks too.
func (s *Scheduler) Rand() *rand.Rand { return s.rand }

// Elapsed is the virtual time since the beginning.
func (s *Scheduler) Elapsed() time.Duration { return s.now }

// Steps is how often a task was resumed.
func (s *Scheduler) Steps() uint64 { return s.steps }

// Hash sums up the run so far: every step, its task and its time, and all that
// was given to Mix.
func (s *Scheduler) Hash() uint64 { return s.hash }

// Mix puts something that must be the same in each run of the seed into the hash.
func (s *Scheduler) Mix(v uint64) { s.hash = (s.hash ^ v) * 1099511628211 }

// Fail ends Run with an error at the end of the present step. The first counts.
func (s *Scheduler) Fail(err error) {
	if s.failure == nil {
		s.failure = err
	}
}

// Run runs tasks until done says so (asked after every step), until the virtual
// time limit, or until something fails. Nothing left to run before that is an
// error: a deadlock.
func (s *Scheduler) Run(limit time.Duration, done func() bool) error {
	for s.failure == nil && !done() {
		switch {
		case len(s.dying) > 0:
			s.bury()
		case len(s.ready) > 0:
			s.step()
		case !s.advance(limit):
			return s.failure
		}
	}
	return s.failure
}

// advance moves time on to the next timer; false: there is none before limit.
func (s *Scheduler) advance(limit time.Duration) bool {
	t, ok := s.timers.first()
	switch {
	case !ok:
		s.Fail(fmt.Errorf("deadlock at %v, nothing can run any more:\n%s", s.now, s.Dump()))
		return false
	case t.when > limit:
		s.now = max(s.now, limit)
		return false
	}
	s.timers.pop()
	s.now = max(s.now, t.when)
	if t.task.park == t.park {
		s.wake(t.task, wokenByTime)
	}
	return true
}

// step lets one of those that are ready run until it waits.
func (s *Scheduler) step() {
	i := s.rand.IntN(len(s.ready))
	t := s.ready[i]
	last := len(s.ready) - 1
	s.ready[i] = s.ready[last]
	s.ready = s.ready[:last]
	s.steps++
	s.Mix(t.id)
	s.Mix(uint64(s.now))
	s.resume(t)
	s.wakeCancelled()
}

func (s *Scheduler) resume(t *coro) {
	if t.next == nil {
		t.next, t.stop = iter.Pull(t.run)
	}
	before := s.current
	s.current = t
	_, alive := t.next()
	s.current = before
	if !alive {
		s.forget(t)
	}
}

func (s *Scheduler) forget(t *coro) {
	t.ended = true
	for i := range s.tasks {
		if s.tasks[i] == t {
			s.tasks = append(s.tasks[:i], s.tasks[i+1:]...)
			return
		}
	}
}

// bury ends the tasks of killed groups.
func (s *Scheduler) bury() {
	list := s.dying
	s.dying = nil
	for _, t := range list {
		if t.ended || t == s.current {
			continue
		}
		t.killed = true
		if t.stop != nil {
			before := s.current
			s.current = t
			t.stop()
			s.current = before
		}
		s.forget(t)
	}
}

// wakeCancelled wakes those whose context has ended during the last step.
func (s *Scheduler) wakeCancelled() {
	for _, t := range s.tasks {
		if t.ctx != nil && t.waiting && t.ctx.Err() != nil {
			s.wake(t, wokenByContext)
		}
	}
}

func (s *Scheduler) wake(t *coro, why woken) {
	if !t.waiting || t.group.dead {
		return
	}
	t.waiting, t.woken = false, why
	t.park++
	s.enqueue(t)
}

// enqueue lets a task run when its turn comes; not before its group goes on.
func (s *Scheduler) enqueue(t *coro) {
	if t.group.paused {
		t.group.held = append(t.group.held, t)
	} else {
		s.ready = append(s.ready, t)
	}
}

// Close ends all tasks, so that nothing is left behind.
func (s *Scheduler) Close() {
	for len(s.tasks) > 0 {
		for _, t := range s.tasks {
			t.group.dead = true
		}
		s.dying = append(s.dying, s.tasks...)
		s.bury()
	}
	s.ready = nil
}

// Dump tells, for each task, what it waits for.
func (s *Scheduler) Dump() string {
	var b strings.Builder
	for _, t := range s.tasks {
		state := "ready"
		if t.waiting {
			state = t.what
		}
		fmt.Fprintf(&b, "  %s/%s #%d: %s\n", t.group.name, t.name, t.id, state)
	}
	return b.String()
}

// Group is a process: a Runtime whose tasks can be killed together.
type Group struct {
	sched  *Scheduler
	name   string
	dead   bool
	paused bool
	held   []*coro // paused: they would be ready
}

var _ task.Runtime = (*Group)(nil)

// Group makes a process.
func (s *Scheduler) Group(name string) *Group { return &Group{sched: s, name: name} }

// Alive tells whether the group was not killed.
func (g *Group) Alive() bool { return !g.dead }

// Kill ends the group's tasks: those that wait, before the next step; the one
// that runs, if it is the group's own, as soon as it waits. New ones do not start.
func (g *Group) Kill() {
	if g.dead {
		return
	}
	g.dead, g.held = true, nil
	s := g.sched
	for _, t := range s.tasks {
		if t.group == g {
			s.dying = append(s.dying, t)
		}
	}
	s.ready = slices.DeleteFunc(s.ready, func(t *coro) bool { return t.group == g })
}

// Pause gives the group's tasks no turn until Resume: time goes on, and what they wait
// for happens. The one that runs goes on until it waits.
func (g *Group) Pause() {
	g.paused = true
	s := g.sched
	s.ready = slices.DeleteFunc(s.ready, func(t *coro) bool {
		if t.group == g {
			g.held = append(g.held, t)
		}
		return t.group == g
	})
}

// Resume ends Pause.
func (g *Group) Resume() {
	g.paused = false
	g.sched.ready = append(g.sched.ready, g.held...)
	g.held = nil
}

// Paused tells whether the group is paused.
func (g *Group) Paused() bool { return g.paused }

// Go implements task.Runtime.
func (g *Group) Go(name string, f func()) {
	if g.dead {
		return
	}
	s := g.sched
	s.timers.made++
	t := &coro{sched: s, group: g, name: name, id: s.timers.made, f: f}
	s.tasks = append(s.tasks, t)
	s.enqueue(t)
}

// Now implements task.Runtime.
func (g *Group) Now() time.Time { return time.Unix(1e9, 0).Add(g.sched.now) }

// Sleep implements task.Runtime.
func (g *Group) Sleep(ctx context.Context, d time.Duration) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if g.wait(ctx, "sleep", max(d, 0), nil) == wokenByContext {
		return context.Cause(ctx)
	}
	return nil
}

// woken says what ended a wait.
type woken uint8

const (
	wokenBySet woken = iota
	wokenByTime
	wokenByContext
)

// coro is a task.
type coro struct {
	sched  *Scheduler
	group  *Group
	name   string
	id     uint64
	f      func()
	next   func() (struct{}, bool)
	stop   func()
	yield  func(struct{}) bool
	killed bool
	ended  bool

	// While it waits. park counts the waits, so that a late timer is known.
	waiting bool
	what    string
	ctx     context.Context // nil: cannot end
	park    uint64
	woken   woken
}

// killed is what a task ends by.
type killedPanic struct{}

func (t *coro) run(yield func(struct{}) bool) {
	t.yield = yield
	defer func() {
		switch p := recover().(type) {
		case nil, killedPanic:
		default:
			if !t.killed {
				t.sched.Fail(fmt.Errorf("panic in %s/%s: %v\n%s", t.group.name, t.name, p, debug.Stack()))
			}
		}
	}()
	t.f()
}

// wait parks the running task, which must be of this group; d < 0: no limit.
func (g *Group) wait(ctx context.Context, what string, d time.Duration, sig *signal) woken {
	s := g.sched
	t := s.current
	if t == nil {
		panic("simtask: wait outside of any task: " + what)
	}
	if g.dead || t.killed || t.group.dead {
		panic(killedPanic{})
	}
	t.waiting, t.what, t.ctx = true, what, nil
	if ctx.Done() != nil {
		t.ctx = ctx
	}
	if sig != nil {
		sig.waiter = t
	}
	if d >= 0 {
		s.timers.push(timer{when: s.now + d, task: t, park: t.park})
	}
	if !t.yield(struct{}{}) || t.killed {
		panic(killedPanic{})
	}
	t.ctx = nil
	if sig != nil {
		sig.waiter = nil
	}
	return t.woken
}
