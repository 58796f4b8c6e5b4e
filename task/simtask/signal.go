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

// Set implements task.Signal.
func (n *signal) Set() {
	n.set = true
	if n.waiter != nil {
		n.group.sched.wake(n.waiter, wokenBySet)
	}
}

// Wait implements task.Signal.
func (n *signal) Wait(ctx context.Context) error {
	_, err := n.wait(ctx, "signal", -1)
	return err
}

// WaitFor implements task.Signal.
func (n *signal) WaitFor(ctx context.Context, d time.Duration) (bool, error) {
	return n.wait(ctx, "signal or time", max(d, 0))
}

func (n *signal) wait(ctx context.Context, what string, d time.Duration) (bool, error) {
	if n.set {
		n.set = false
		return true, nil
	}
	if err := context.Cause(ctx); err != nil {
		return false, err
	}
	if n.waiter != nil {
		panic("simtask: two tasks wait for one signal: " + n.waiter.name + " and " + n.group.sched.current.name)
	}
	why := n.group.wait(ctx, what, d, n)
	switch {
	case n.set:
		n.set = false
		return true, nil
	case why == wokenByContext:
		return false, context.Cause(ctx)
	}
	return false, nil
}
