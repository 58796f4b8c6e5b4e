package sanitize

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// asking bounds how long the other site may take to answer: it ends commands.
	asking = 15 * time.Second
	// again is how long after something failed it is tried again.
	again = time.Second
)

var errSlow = errors.New("the other site took too long to answer")

// exchange tells the other site what this one is in, and takes its answer into account,
// until that changes nothing any more. It returns the last answer. ErrNoPeer; others
// say that the file cannot be written.
func (s *Sanitizer) exchange(ctx context.Context) (answer State, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, asking, errSlow)
	defer cancel()
	give, err := take(ctx, s.talking)
	if err != nil {
		return answer, fmt.Errorf("%w: %w", ErrNoPeer, err)
	}
	defer give()
	why := None
	for range 4 { // two are enough for sites that keep to the rules
		told := s.tells()
		if answer, err = s.tell(ctx, told); err != nil {
			return answer, fmt.Errorf("%w: %w", ErrNoPeer, err)
		}
		why = max(why, answer.objection) // it is said once
		if done, err := s.answered(told, answer); done || err != nil {
			answer.objection = why
			return answer, err
		}
	}
	return answer, fmt.Errorf("%w: the sites do not agree about a sanitize operation; report this", ErrNoPeer)
}

// tells is what is told now.
func (s *Sanitizer) tells() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.state.told()
	t.Done = s.reached
	if t.Phase == Idle {
		t.Done = 0
	}
	return t
}

func (s *Sanitizer) tell(ctx context.Context, t State) (answer State, err error) {
	b, err := s.unit.Tell(ctx, t.Encode(s.cfg.LUN))
	if err != nil {
		return answer, err
	}
	if len(b) == 0 {
		return answer, errors.New("it cannot answer now; its log says why")
	}
	a, err := Decode(b, s.cfg.LUN)
	if err != nil {
		return answer, fmt.Errorf("its answer: %w", err)
	}
	return *a, nil
}

// answered takes an answer. Done: there is nothing to tell because of it.
func (s *Sanitizer) answered(told, answer State) (done bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := mergeAnswer(s.state, answer)
	agreed := false
	if s.ready {
		next, agreed = next.agree(answer)
	}
	if err := s.toLocked(next); err != nil {
		return false, err
	}
	s.agreed = s.agreed || agreed
	now := &s.state
	if now.Phase == told.Phase && now.Order.same(&told.Order) && now.Over == told.Over {
		s.acked = true
	}
	return s.acked, nil
}

// Heard takes what the other site tells, and returns the answer. False: it means nothing
// here. No answer: it cannot be given.
func (s *Sanitizer) Heard(ctx context.Context, body []byte) ([]byte, bool) {
	peer, err := Decode(body, s.cfg.LUN)
	if err != nil {
		s.cfg.Log.Error("what the other site tells of a sanitize operation is not understood", "err", err)
		return nil, false
	}
	answer, err := s.hear(*peer)
	if err == nil && answer.Phase == Following {
		err = s.quieten(ctx, answer.Order)
	}
	if err != nil {
		s.cfg.Log.Error("this site cannot follow the other one, which sanitizes the LUN", "err", err)
		return nil, true
	}
	return answer.Encode(s.cfg.LUN), true
}

func (s *Sanitizer) hear(peer State) (answer State, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := merge(s.state, peer)
	if s.state.objects(peer) {
		if why := s.unit.Objection(); why != None {
			next = s.state.object(peer, why)
		}
	}
	if err := s.toLocked(next); err != nil {
		return answer, err
	}
	answer = s.state.told()
	answer.objection = next.objection
	return answer, nil
}

// quieten ends the commands of hosts when this site follows. A host that has asked for
// the same at the same moment gets its answer first.
func (s *Sanitizer) quieten(ctx context.Context, o Order) error {
	s.mu.Lock()
	done := s.quiet.same(&o)
	s.mu.Unlock()
	if done {
		return nil
	}
	give, err := take(ctx, s.starting)
	if err != nil {
		return err
	}
	give()
	if err := s.unit.EndCommands(ctx); err != nil {
		return fmt.Errorf("commands of hosts have not ended: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quiet = o
	return nil
}

// Joined has the other site told again, after the replicas have joined: it may have
// missed something, or have lost its file.
func (s *Sanitizer) Joined() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retellLocked()
}

func (s *Sanitizer) retellLocked() {
	if s.state.Phase != Idle || s.state.Over > 0 {
		s.acked = false
		s.wake()
	}
}

// teller is the task that tells the other site what it has not answered to yet, until it
// does. It ends with s.ctx.
func (s *Sanitizer) teller() {
	for s.ctx.Err() == nil {
		select {
		case <-s.kick:
		case <-s.ctx.Done():
			return
		}
		if s.drop() && s.told() {
			continue
		}
		s.pause(again)
		s.wake()
	}
}

// told tells what is untold. False: it could not.
func (s *Sanitizer) told() bool {
	s.mu.Lock()
	acked := s.acked || s.asking || s.state.Phase == Idle && s.state.Over == 0
	s.mu.Unlock()
	if acked {
		return true
	}
	_, err := s.exchange(s.ctx)
	if err != nil {
		s.cfg.Log.Debug("the other site does not hear of a sanitize operation", "err", err, "next try", again)
	}
	return err == nil
}

// drop gives up an order that Start has left behind. False: it could not.
func (s *Sanitizer) drop() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.Phase != Starting || s.asking {
		return true
	}
	err := s.toLocked(s.state.abandon())
	if err != nil {
		s.cfg.Log.Error("a sanitize operation that was not begun cannot be given up; hosts are not served until it is", "err", err, "next try", again)
	}
	return err == nil
}
