package scsi

import (
	"context"
	"errors"
	"sync"

	"github.com/twinlun/twinlun/target/reservation"
	"github.com/twinlun/twinlun/target/sam"
)

// watchReservations follows a unit's reservations: what they let through, what nexuses
// are to be told, and whose commands end. The Reserver may hold a lock while it calls us,
// so that Device.mu must not be held while we call it.
func (u *unit) watchReservations() {
	u.reservations.Watch(func(events []reservation.Event) {
		u.followReservations()
		u.target.tellReservations(u, events)
		u.abortOf(events)
	})
	u.followReservations()
}

func (u *unit) followReservations() {
	u.restrict(func(g *guard) {
		s := u.reservations.Load()
		if g.unknown = s == nil; !s.Reserved() {
			s = nil
		}
		g.persistent = s
	})
}

func (t *Device) tellReservations(u *unit, events []reservation.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range events {
		if p := t.named[e.Nexus]; p != nil {
			p.establishOn(u, attentionOf(e.Notice))
		}
	}
}

func attentionOf(n reservation.Notice) uint32 {
	switch n {
	case reservation.ReservationsPreempted:
		return attentionReservationsPreempted
	case reservation.ReservationsReleased:
		return attentionReservationsReleased
	}
	return attentionRegistrationsPreempted
}

// aborting are the commands of preempted nexuses that are being ended.
type aborting struct {
	mu   sync.Mutex
	last chan struct{} // closed when those of the last ones, and all before, have ended; nil: there were none
}

// abortOf begins to end the commands that preempted nexuses have on the unit, those that
// the guard lets through no more. It does not wait. A task of it lasts as long as the
// medium takes for what it has begun.
func (u *unit) abortOf(events []reservation.Event) {
	nexuses := u.target.abortedBy(events)
	if len(nexuses) == 0 {
		return
	}
	a, done := &u.aborting, make(chan struct{})
	a.mu.Lock()
	before := a.last
	a.last = done
	a.mu.Unlock()
	go func() {
		defer close(done)
		u.endCommandsOf(nexuses, &sam.Command{Ctx: context.Background()}, u.answersAborted.Load())
		if before != nil {
			<-before
		}
	}()
}

func (t *Device) abortedBy(events []reservation.Event) (all []*nexus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range events {
		if p := t.named[e.Nexus]; p != nil && e.Abort {
			all = append(all, p.open...)
		}
	}
	return all
}

// wait returns when all commands have ended that were to. False: ctx ended before.
func (a *aborting) wait(ctx context.Context) bool {
	a.mu.Lock()
	last := a.last
	a.mu.Unlock()
	if last == nil {
		return true
	}
	select {
	case <-last:
		return true
	case <-ctx.Done():
		return false
	}
}

var errNotAborted = errors.New("the other site is still ending commands of preempted hosts")

// awaitAborts returns when the commands of those preempted have ended at all sites: a
// preempted host writes nothing any more when the preempting one hears GOOD.
func (u *unit) awaitAborts(ctx context.Context) error {
	if !u.aborting.wait(ctx) {
		return context.Cause(ctx)
	}
	s, shared := u.reservations.(Shared)
	if !shared {
		return nil
	}
	return s.Elsewhere(ctx, func(ctx context.Context) error {
		if u.twin.way == nil {
			return errors.New("there is no way to the other site")
		}
		ctx, cancel := context.WithTimeoutCause(ctx, twinLimit, errTwinSlow)
		defer cancel()
		answer, err := u.twin.way.Tell(ctx, topicAborts, nil)
		if err == nil && (len(answer) != 1 || answer[0] == 0) {
			err = errNotAborted
		}
		return err
	})
}

// heardAborts waits until the commands of those preempted have ended here.
func (u *unit) heardAborts(ctx context.Context) (answer []byte) {
	ctx, cancel := context.WithTimeoutCause(ctx, hearLimit, errTwinSlow)
	defer cancel()
	return []byte{flag(u.aborting.wait(ctx))}
}
