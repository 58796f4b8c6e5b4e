package task

import (
	"context"
	"time"
)

// System is the operating system's runtime.
var System Runtime = system{}

type system struct{}

func (system) Go(_ string, f func()) { go f() }
func (system) Now() time.Time        { return time.Now() }
func (system) NewSignal() Signal     { return signal(make(chan struct{}, 1)) }

func (system) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

type signal chan struct{}

func (s signal) Set() {
	select {
	case s <- struct{}{}:
	default: // already set
	}
}

func (s signal) Wait(ctx context.Context) error {
	select {
	case <-s:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s signal) WaitFor(ctx context.Context, d time.Duration) (bool, error) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-s:
		return true, nil
	case <-t.C:
		return false, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}
