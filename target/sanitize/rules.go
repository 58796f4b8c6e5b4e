package sanitize

import "errors"

// Errors of Start, Wait and Exit.
var (
	ErrBusy       = errors.New("the LUN is being sanitized")
	ErrFailed     = errors.New("the LUN could not be sanitized")
	ErrRestricted = errors.New("the LUN could not be sanitized, and was to be without fail: it must be before it is used again")
	ErrNoPeer     = errors.New("the other site cannot be told: both must refuse hosts while a LUN is sanitized; try again when the sites are joined")
	ErrConflict   = errors.New("a host has reserved the LUN at the other site")
	ErrProtected  = errors.New("the LUN is write protected at the other site")
	ErrAbsent     = errors.New("the medium is ejected at the other site")
)

// The rules are functions from States to States. They rest on this:
//
//   - A site that leads is Starting, durably, before the other one hears of its order,
//     and Running before the first byte is erased, once the other one has answered that
//     it follows.
//   - A site that follows stays so until the other one says that the order is over or
//     has failed, or leads another order. It never erases by itself.
//   - An order that has ended is over by its number, at a site that has heard of it for
//     ever. So messages may be late, doubled or lost, in any order.

// start is the State of a site that begins to lead an order for a host.
func (s State) start(o Order) (State, error) {
	switch {
	case s.Phase == Failed && o.AUSE && !s.Order.AUSE:
		return s, ErrRestricted // SBC-4 4.11.1: no less strict than the one that failed
	case s.Phase == Failed && s.Order.AUSE:
		o.Before = FailedFree
	case s.Phase == Failed:
		o.Before = FailedRestricted
	case s.Phase != Idle:
		return s, ErrBusy
	}
	o.Number = max(s.Over, s.Order.Number) + 1
	return State{Phase: Starting, Order: o, Over: s.Over}, nil
}

// agree is what a Starting site goes to when the other one has answered with its State.
func (s State) agree(peer State) (next State, ok bool) {
	if s.Phase != Starting || !s.followedBy(peer) {
		return s, false
	}
	s.Phase = Running
	return s, true
}

// followedBy tells whether the other site follows this one's order.
func (s *State) followedBy(peer State) bool {
	return peer.Phase == Following && peer.Order.same(&s.Order)
}

// abandon ends an order that was not begun: the LUN is what it was before. The other
// site, which may follow, will hear of it.
func (s State) abandon() State {
	if s.Order.Before == InUse {
		return s.over()
	}
	return s.failed(s.Order.Before == FailedFree)
}

// over ends the order, for good.
func (s State) over() State { return State{Over: max(s.Over, s.Order.Number)} }

// failed ends the order in the failure mode.
func (s State) failed(ause bool) State {
	o := s.Order
	o.AUSE, o.Before, o.Pattern = ause, InUse, nil
	return State{Phase: Failed, Order: o, Over: s.Over, Done: s.Done}
}

// exit is EXIT FAILURE MODE.
func (s State) exit() (State, error) {
	switch {
	case s.Phase == Failed && s.Order.AUSE:
		return s.over(), nil
	case s.Phase == Failed:
		return s, ErrRestricted
	case s.Phase == Idle:
		return s, nil // there is nothing to leave
	}
	return s, ErrBusy
}

// object is the answer of a site that does not want to follow: the order is over before
// it has begun. After a failure the LUN stays Failed.
func (s State) object(peer State, why Objection) State {
	peer.Over = max(s.Over, peer.Over)
	next := peer.over()
	if s.Phase == Failed {
		next = peer.failed(s.Order.AUSE)
	}
	next.objection = why
	return next
}

// merge is a site's State after it has heard the other one's.
func merge(own, peer State) State {
	own.Over = max(own.Over, peer.Over)
	if own.Phase != Idle && own.Order.Number <= own.Over {
		own = State{Over: own.Over}
	}
	if peer.Phase == Idle || peer.Order.Number <= own.Over {
		return own
	}
	switch peer.Phase {
	case Starting, Running:
		return own.follow(peer)
	case Following:
		return own.lead(peer)
	default:
		return own.fail(peer)
	}
}

// mergeAnswer is merge for an answer. That the other site asks this one to follow is not to
// be taken from there: it asks, and is told yes or no.
func mergeAnswer(own, peer State) State {
	if peer.Phase == Starting && (own.Phase == Idle || own.Phase == Failed) {
		peer = State{Over: peer.Over}
	}
	return merge(own, peer)
}

// follow: the other site leads, or wants to.
func (s State) follow(peer State) State {
	o, p := &s.Order, &peer.Order
	stays := false
	switch s.Phase {
	case Starting:
		// Of two that were asked at once one counts; what has a lower number is late.
		stays = p.Number < o.Number || peer.Phase == Starting && o.older(p)
	case Running:
		stays = peer.Phase == Starting || p.Number <= o.Number
	case Following:
		if o.same(p) {
			s.Done = peer.Done
		}
		stays = p.Number < o.Number || p.Number == o.Number && (peer.Phase == Starting || o.same(p)) // it is late
	case Failed:
		stays = p.Number <= o.Number // the same
	}
	if stays {
		return s
	}
	return State{Phase: Following, Order: peer.told().Order, Over: s.Over, Done: peer.Done}
}

// lead: the other site follows. If this one should lead and does not know, its file is
// lost: how far it was nobody can tell, and to erase again what hosts may have written
// since would be the worst mistake. Hosts decide.
func (s State) lead(peer State) State {
	o, p := &s.Order, &peer.Order
	switch {
	case s.Phase == Idle, s.Phase == Following && (o.same(p) || o.Number < p.Number || o.Number == p.Number && p.older(o)):
		peer.Over = s.Over
		return peer.failed(p.AUSE)
	case s.Phase == Following && o.Number == p.Number:
		return s.failed(o.AUSE)
	}
	return s
}

// fail: the other site is Failed.
func (s State) fail(peer State) State {
	o, p := &s.Order, &peer.Order
	stays := false
	switch s.Phase {
	case Starting:
		stays = p.Number < o.Number // it is what failed before
	case Running:
		stays = true // so it will follow
	case Following:
		stays = p.Number < o.Number
	case Failed:
		stays = p.Number < o.Number || p.Number == o.Number && !p.older(o)
	}
	if stays {
		return s
	}
	return State{Phase: Failed, Order: *p, Over: s.Over, Done: peer.Done}
}

// told is what the other site hears of a State: not the pattern, which it has no use for.
func (s State) told() State {
	s.Order.Pattern = nil
	return s
}

// objects tells whether a site may object: only to what is not begun yet, and not when
// it has followed already.
func (s *State) objects(peer State) bool {
	return peer.Phase == Starting && merge(*s, peer).Phase == Following && s.Phase != Following
}
