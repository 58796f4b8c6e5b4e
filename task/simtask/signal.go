package simtask

import (
	"context"
	"time"

	"github.com/twinlun/twinlun/task"
)

// signal is a task.Signal.
type signal struct {
	group  *Group
	set    bool
	waiter *coro
}

// NewSignal implements task.Runtime.
func (g *Group) NewSignal() task.Signal { return &signal{group: g} }

// lateness is how late a waiter may run, at most, and late in how many of 100 cases it
// is: time in which it is aborted, say, or what it waits for is taken away.
const (
	lateness = 10 * time.Millisecond
	late     = 10
)

// Set implements task.Signal.
func (n *signal) Set() {
	n.set = true
	if n.waiter == nil || !n.waiter.waiting { // one that is to run already must not be woken from its next wait
		return
	}
	if s := n.group.sched; s.Rand().IntN(100) < late {
		s.timers.push(timer{when: s.now + time.Duration(s.Rand().Int64N(int64(lateness))), task: n.waiter, park: n.waiter.park})
	} else {
		s.wake(n.waiter, wokenBySet)
	}
}

// Wait implements task.Signal.
func (n *signal) Wait(ctx context.Context) error {
	set, err := n.wait(ctx, "signal", -1)
	if !set && err == nil {
		panic("simtask: a task was woken for nothing")
	}
	return err
}

// WaitFor implements task.Signal.
func (n *signal) WaitFor(ctx context.Context, d time.Duration) (bool, error) {
	return n.wait(ctx, "signal or time", max(d, 0))
}

func (n *signal) wait(ctx context.Context, what string, d time.Duration) (bool, error) {
	if set, err := n.take(ctx); set || err != nil {
		return set, err
	}
	if n.waiter != nil {
		panic("simtask: two tasks wait for one signal: " + n.waiter.name + " and " + n.group.sched.current.name)
	}
	n.group.wait(ctx, what, d, n)
	return n.take(ctx)
}

// take looks for what ends a wait. When the signal is set and the context has ended,
// either may come first, as in the operating system's runtime.
func (n *signal) take(ctx context.Context) (set bool, err error) {
	if err := context.Cause(ctx); err != nil && (!n.set || n.group.sched.Rand().IntN(2) == 0) {
		return false, err
	}
	set, n.set = n.set, false
	return set, nil
}
