// Package task puts goroutines, waiting and time behind an interface, so that
// the same code runs on the operating system's and, in simulation, on a seed's.
//
// Code that is simulated (replication, target/volume) starts goroutines, waits
// and reads the clock only by way of a Runtime. Mutexes need nothing of it, as
// long as none is held across a wait.
package task

import (
	"context"
	"time"
)

// Runtime starts goroutines and tells the time.
type Runtime interface {
	// Go runs f in a new goroutine.
	Go(name string, f func())
	// Now is the present; only differences between two readings mean anything.
	Now() time.Time
	// Sleep waits for d, or until ctx ends; then it returns the context's cause.
	Sleep(ctx context.Context, d time.Duration) error
	// NewSignal makes a Signal that is not set.
	NewSignal() Signal
}

// Signal wakes one waiter. Setting it while nobody waits is remembered, once.
// At most one goroutine waits on a Signal at a time.
type Signal interface {
	// Set wakes the waiter, or lets the next Wait return at once. It never blocks.
	Set()
	// Wait returns after Set (and takes it back), or when ctx ends: then with
	// the context's cause.
	Wait(ctx context.Context) error
	// WaitFor is Wait with a limit of time; false means that the time is up.
	WaitFor(ctx context.Context, d time.Duration) (bool, error)
}
