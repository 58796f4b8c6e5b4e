package initiator

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Resilient is a session that comes back: when the connection is lost it logs in
// again, with the same ISID, and repeats the command, until that ends or ctx does.
// So does a host whose multipath layer queues when it has no path. It repeats a
// command too after a status that says "later" or "perhaps not done": unit
// attention, BUSY, TASK SET FULL, TASK ABORTED, ABORTED COMMAND and NOT READY.
//
// # What a repeated write means
//
// A write is done at least once. A try that got no answer may have been carried
// out or not; but it is over, before the next one is sent: a login with the same
// ISID makes the target end the old session's tasks before it answers
// (RFC 7143 section 6.3.5).
//
// It is tempting to take such a write for one that lies anywhere between the first
// try and the last answer. That is wrong as soon as others write the same block:
//
//	ours    |--- write 1, lost ---|          |--- write 1 again ---|
//	other                            |- write 2 -|
//	read                      1                   2                  1
//
// is correct behaviour, and no single place of write 1 explains it. What is true:
// every try but the last is a write of its own that may have happened, between
// its start and the start of the next; the last one is an ordinary write. Whoever
// checks histories needs to know where one try ends and the next begins, and gets
// it from WriteAtTries.
type Resilient struct {
	opts  Options
	limit time.Duration

	lock    chan struct{} // holds one token while nobody owns current
	current *Session
	logins  int

	life context.Context // ends with Close
	end  context.CancelFunc
}

// NewResilient makes one; it logs in when it is first used. A try that takes
// longer than limit counts as lost, with its connection; 0: no limit.
func NewResilient(o Options, limit time.Duration) (*Resilient, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	r := &Resilient{opts: o, limit: limit, lock: make(chan struct{}, 1)}
	r.life, r.end = context.WithCancel(context.Background())
	r.lock <- struct{}{}
	return r, nil
}

// ReadAt is Session.ReadAt, repeated.
func (r *Resilient) ReadAt(ctx context.Context, p []byte, off int64) error {
	return r.Run(ctx, nil, func(ctx context.Context, s *Session) error { return s.ReadAt(ctx, p, off) })
}

// WriteAt is Session.WriteAt, repeated: at least once, see above.
func (r *Resilient) WriteAt(ctx context.Context, p []byte, off int64) error {
	return r.WriteAtTries(ctx, p, off, nil)
}

// WriteAtTries is WriteAt, and calls again between one try and the next, when the
// former can have no effect any more. It writes pieces of MaxTransfer all anew.
func (r *Resilient) WriteAtTries(ctx context.Context, p []byte, off int64, again func()) error {
	return r.Run(ctx, again, func(ctx context.Context, s *Session) error { return s.WriteAt(ctx, p, off) })
}

// CompareAndWriteTries is Session.CompareAndWrite, repeated; see WriteAtTries. Whether it
// was done is what the last try says: one before it may have been done, and then the last
// one finds what that has written.
func (r *Resilient) CompareAndWriteTries(ctx context.Context, old, new []byte, off int64, again func()) (done bool, err error) {
	err = r.Run(ctx, again, func(ctx context.Context, s *Session) (err error) {
		done, err = s.CompareAndWrite(ctx, old, new, off)
		return err
	})
	return done, err
}

// WriteAtomic is Session.WriteAtomic, repeated: at least once, see above.
func (r *Resilient) WriteAtomic(ctx context.Context, p []byte, off int64) error {
	return r.Run(ctx, nil, func(ctx context.Context, s *Session) error { return s.WriteAtomic(ctx, p, off) })
}

// Sync is Session.Sync, repeated.
func (r *Resilient) Sync(ctx context.Context) error {
	return r.Run(ctx, nil, func(ctx context.Context, s *Session) error { return s.Sync(ctx) })
}

// Run does f with a live session until it ends with nil or an error that is no
// passing one. Between two tries it calls again, if that is not nil.
func (r *Resilient) Run(ctx context.Context, again func(), f func(context.Context, *Session) error) error {
	delay := time.Millisecond
	for try := 0; ; try++ {
		s, err := r.session(ctx)
		if err != nil {
			return err
		}
		if try > 0 && again != nil {
			again()
		}
		if err = r.try(ctx, s, f); err == nil || !passing(err) {
			return err
		}
		if !pause(ctx, delay) {
			return fmt.Errorf("%w; %d tries, the last: %w", context.Cause(ctx), try+1, err)
		}
		delay = min(2*delay, 100*time.Millisecond)
	}
}

// try does f once. A try that ends without an answer takes its session with it,
// so that the next login ends what is left of it at the target.
func (r *Resilient) try(ctx context.Context, s *Session, f func(context.Context, *Session) error) error {
	limited := ctx
	if r.limit > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, r.limit)
		defer cancel()
	}
	err := f(limited, s)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		s.lose(fmt.Errorf("no answer within %v", r.limit))
		return fmt.Errorf("%w: no answer within %v", ErrConnectionLost, r.limit)
	}
	return err
}

// passing tells whether trying again makes sense.
func passing(err error) bool {
	var breach *ProtocolError
	if errors.As(err, &breach) {
		return false // to be seen, not to be smoothed over
	}
	var check *CheckCondition
	if errors.As(err, &check) {
		return check.Key == SenseUnitAttention || check.Key == SenseNotReady || check.Key == SenseAborted || check.held()
	}
	var status *StatusError
	if errors.As(err, &status) {
		return status.Status == StatusBusy || status.Status == StatusTaskSetFull || status.Status == StatusTaskAborted
	}
	return errors.Is(err, ErrConnectionLost) || errors.Is(err, ErrAborted)
}

// session returns the live session, or logs in until one is there.
func (r *Resilient) session(ctx context.Context) (*Session, error) {
	select {
	case <-r.lock:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { r.lock <- struct{}{} }()
	for delay := 10 * time.Millisecond; r.current == nil || r.current.Err() != nil; delay = min(2*delay, 500*time.Millisecond) {
		if r.life.Err() != nil {
			return nil, ErrClosed
		}
		s, err := r.login(ctx)
		if err == nil {
			r.current = s
			r.logins++
			break
		}
		if final := loginIsFinal(err); final || !pause(ctx, delay) {
			return nil, err
		}
	}
	return r.current, nil
}

// login dials, for no longer than a portal that answers would take.
func (r *Resilient) login(ctx context.Context) (*Session, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	defer context.AfterFunc(r.life, cancel)()
	return Dial(ctx, r.opts)
}

// loginIsFinal tells whether another login would end no better: the target has
// said that the fault is ours, or has broken the protocol.
func loginIsFinal(err error) bool {
	var refused *LoginError
	var breach *ProtocolError
	return errors.As(err, &breach) || errors.As(err, &refused) && refused.Class != 3
}

// Logins is how many times it has logged in.
func (r *Resilient) Logins() int {
	<-r.lock
	defer func() { r.lock <- struct{}{} }()
	return r.logins
}

// Close ends it; commands that wait return ErrClosed.
func (r *Resilient) Close() error {
	r.end()
	<-r.lock
	defer func() { r.lock <- struct{}{} }()
	if r.current != nil {
		return r.current.Close()
	}
	return nil
}
