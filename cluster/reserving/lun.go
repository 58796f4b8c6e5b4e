package reserving

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/target/reservation"
)

// ErrUnavailable ends a command at a node that does not serve the LUN, or has stopped to
// while the command waited: it may be in force or not. Hosts go to the other node.
var ErrUnavailable error = unavailable{}

type unavailable struct{}

func (unavailable) Error() string         { return "the LUN is served by the other node" }
func (unavailable) SCSIUnavailable() bool { return true }

// Reservations are those of one LUN: a scsi.Shared.
type Reservations struct {
	// Fixed by Hub.LUN.
	hub *Hub
	lun catalog.UUID

	state atomic.Pointer[reservation.State] // nil: not known yet

	// Under Hub.mu.
	watch   func([]reservation.Event)
	changed uint64 // index of the last command that changed the state
	here    *span  // this node serves; nil: it does not
	pair    *span  // so does the other one; nil: it does not
	other   catalog.NodeID
	settled uint64 // what the other one has applied, as far as it was asked in this span
}

// span is a time: its context ends with it.
type span struct {
	context.Context
	end context.CancelFunc
}

func newSpan() *span {
	ctx, cancel := context.WithCancel(context.Background())
	return &span{ctx, cancel}
}

// Load gives the state; nil: it is not known yet.
func (r *Reservations) Load() *reservation.State { return r.state.Load() }

// Durable is true: the catalog outlives any node.
func (r *Reservations) Durable() bool { return true }

// Watch has a function called after every change, under the Hub's lock.
func (r *Reservations) Watch(changed func([]reservation.Event)) {
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	r.watch = changed
}

func (r *Reservations) becomeLocked(s *reservation.State, events []reservation.Event) {
	if r.state.Swap(s) != s || len(events) > 0 {
		r.watch(events)
	}
}

// servesLocked begins and ends the spans.
func (r *Reservations) servesLocked(here bool, other catalog.NodeID) {
	if r.pair != nil && (!here || other != r.other) {
		r.pair.end()
		r.pair, r.settled = nil, 0
	}
	if r.here != nil && !here {
		r.here.end()
		r.here = nil
	}
	if r.here == nil && here {
		r.here = newSpan()
	}
	if r.pair == nil && here && other != "" {
		r.pair, r.other = newSpan(), other
	}
}

// Apply has the cluster carry out a command, and returns when that is in force at all
// nodes that serve the LUN.
func (r *Reservations) Apply(ctx context.Context, c reservation.Command) (reservation.Outcome, error) {
	r.hub.mu.Lock()
	here := r.here
	r.hub.mu.Unlock()
	if here == nil {
		return 0, ErrUnavailable
	}
	during, stop := within(ctx, here)
	defer stop()
	result, err := r.hub.cluster.Do(during, "a host", bodyOf(r.lun, c))
	switch {
	case err != nil && here.Err() != nil:
		return 0, errors.Join(ErrUnavailable, err)
	case err != nil:
		return 0, fmt.Errorf("change reservations of LUN %v: %w", r.lun, err)
	}
	return result.Reservation, r.Settle(ctx)
}

// within is a context that ends with ctx and with a span.
func within(ctx context.Context, s *span) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

func bodyOf(lun catalog.UUID, c reservation.Command) *catalog.ReserveOut {
	b := &catalog.ReserveOut{
		LUN: lun, Action: c.Action, From: catalog.Nexus(c.From), Key: c.Key, NewKey: c.NewKey, Type: c.Type,
		Ports: c.Ports, Listed: c.Listed, Others: c.Others, Persist: c.Persist, Leave: c.Leave,
	}
	if c.Action == reservation.RegisterAndMove {
		to := catalog.Nexus(c.To)
		b.To = &to
	}
	return b
}

// Settle returns when all nodes that serve the LUN have applied what Load gave before the
// call.
func (r *Reservations) Settle(ctx context.Context) error {
	r.hub.mu.Lock()
	index := r.changed
	done := r.pair != nil && r.settled >= index
	r.hub.mu.Unlock()
	if done {
		return nil
	}
	return r.elsewhere(ctx, func(ctx context.Context, s *span, other catalog.NodeID) error {
		if err := r.hub.cluster.PeerApplied(ctx, string(other), index); err != nil {
			return err
		}
		r.settle(s, index)
		return nil
	})
}

func (r *Reservations) settle(s *span, index uint64) {
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	if r.pair == s {
		r.settled = max(r.settled, index)
	}
}

// Elsewhere has ask called until it succeeds, as long as another node serves the LUN. With
// an error this one does not, or ctx has ended.
func (r *Reservations) Elsewhere(ctx context.Context, ask func(ctx context.Context) error) error {
	return r.elsewhere(ctx, func(ctx context.Context, _ *span, _ catalog.NodeID) error { return ask(ctx) })
}

// askAgain is the pause before the other node is asked again.
const askAgain = 100 * time.Millisecond

func (r *Reservations) elsewhere(ctx context.Context, ask func(context.Context, *span, catalog.NodeID) error) error {
	for {
		r.hub.mu.Lock()
		here, pair, other := r.here, r.pair, r.other
		r.hub.mu.Unlock()
		switch {
		case here == nil:
			return ErrUnavailable
		case pair == nil:
			return nil
		}
		err := during(ctx, pair, func(ctx context.Context) error { return ask(ctx, pair, other) })
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// during calls ask with a context that ends with a span. When that goes on, and ask has
// failed, it returns after a pause.
func during(ctx context.Context, s *span, ask func(context.Context) error) error {
	ctx, stop := within(ctx, s)
	defer stop()
	err := ask(ctx)
	if err == nil {
		return nil
	}
	pause := time.NewTimer(askAgain)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
	}
	return err
}
