package sanitize

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/twinlun/twinlun/target/keep"
)

// Disk is what is erased: the LUN with both of its replicas.
type Disk interface {
	WriteAt(ctx context.Context, p []byte, off int64, fua bool) error
	Zero(ctx context.Context, off, n int64, fua bool) error
	Sync(ctx context.Context) error
	Size() int64
}

// Unit is the logical unit as hosts see it.
type Unit interface {
	// Refuse says whether hosts are served from now on. It does not block.
	Refuse(Status)
	// EndCommands answers all commands of hosts, and returns when they have ended. The
	// error is the context's: some have not.
	EndCommands(ctx context.Context) error
	// Objection is why a host at the other site should not have the unit erased. It does
	// not block.
	Objection() Objection
	// Tell has Heard called at the other site, and returns its answer.
	Tell(ctx context.Context, body []byte) ([]byte, error)
}

// Status is why hosts are not served.
type Status struct {
	Phase    Phase
	Progress uint16 // of 65536
}

// Config is what a Sanitizer is made of.
type Config struct {
	Path      string   // of the file that keeps the State
	LUN       [16]byte // its UUID
	Disk      Disk
	BlockSize int // of a logical block, bytes
	// Copied tells whether all that was written here is durable at the other site, too.
	Copied func() bool
	// Solid is told whether zeros that the other site writes are to be written here as
	// well, rather than made holes: a hole overwrites nothing. nil: nobody is told.
	Solid func(yes bool)
	Rate  int64 // of overwriting, bytes per second; 0: no limit
	Log   *slog.Logger
}

// Sanitizer erases a logical unit. Its methods may be called concurrently.
type Sanitizer struct {
	cfg    Config
	unit   Unit // fixed by Attach
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup // erase, teller

	starting chan struct{} // holds one while Start or Exit runs
	talking  chan struct{} // holds one while this site tells
	kick     chan struct{} // wakes the teller

	mu      sync.Mutex
	state   State         // as the file has it, but for Done and abandoning
	changed chan struct{} // closed with the next change of what hosts see
	reached int64         // bytes written, of all passes together
	acked   bool          // the other site has answered to the present State
	asking  bool          // Start is at work on the order
	ready   bool          // and the commands of hosts here have ended: the other site's word counts
	quiet   Order         // Following it, and the commands of hosts here have ended
	shut    bool          // the LUN is erased, and the other site does not know yet
	agreed  bool          // and it does: the order is begun, and may have ended since
	erasing bool          // the task runs
}

// Open reads what this site was in when it stopped. An order that was not begun is not
// taken up: nobody was told that it would be.
func Open(cfg Config) (*Sanitizer, error) {
	s := &Sanitizer{
		cfg: cfg, changed: make(chan struct{}), kick: make(chan struct{}, 1),
		starting: make(chan struct{}, 1), talking: make(chan struct{}, 1),
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("read %s, which says whether the LUN is being sanitized: %w; "+
			"if you know that it is not, move the file away; if it is, move it away at both sites, and sanitize it again", cfg.Path, err)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

func (s *Sanitizer) load() error {
	b, err := keep.Read(s.cfg.Path, MaxEncoded)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	state, err := Decode(b, s.cfg.LUN)
	if err != nil {
		return err
	}
	s.state, s.reached = *state, state.Done
	switch o := &s.state.Order; {
	case s.state.objection != None, s.state.Phase == Running && o.Method == Overwrite && len(o.Pattern) == 0:
		return errors.New("what it says cannot be")
	case s.state.Phase == Starting:
		return s.toLocked(s.state.abandon())
	}
	return nil
}

// Attach gives the Sanitizer its unit, before hosts can reach that, and lets it go on
// with what was begun.
func (s *Sanitizer) Attach(u Unit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unit = u
	if s.state.Phase == Following {
		s.quiet = s.state.Order
	}
	s.effectLocked()
	s.tasks.Go(s.teller)
}

// Close stops the work at this site; it goes on with the next Open.
func (s *Sanitizer) Close() {
	s.mu.Lock()
	s.cancel()
	s.mu.Unlock()
	s.tasks.Wait()
}

// State is what this site is in.
func (s *Sanitizer) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// take waits for a place in a channel of one, and returns what gives it back.
func take(ctx context.Context, c chan struct{}) (give func(), err error) {
	select {
	case c <- struct{}{}:
		return func() { <-c }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Start begins an order for a host, whose number and id are made here. It returns when
// no host is served any more, at either site, and their commands have ended: endOthers
// ends all here but the one that asks. With an error nothing is erased: ErrBusy,
// ErrRestricted, ErrNoPeer, ErrConflict, ErrProtected, ErrAbsent; others say that the
// file cannot be written.
func (s *Sanitizer) Start(ctx context.Context, o Order, endOthers func() error) error {
	select {
	case s.starting <- struct{}{}:
		defer func() { <-s.starting }()
	default:
		return ErrBusy
	}
	rand.Read(o.ID[:]) // never fails
	// How the last order ended must be known at both sites before there is another.
	if _, err := s.exchange(ctx); err != nil {
		return err
	}
	o, err := s.begin(o)
	if err != nil {
		return err
	}
	if err := endOthers(); err != nil {
		return s.begun(o, State{}, fmt.Errorf("commands of hosts have not ended: %w", err))
	}
	s.mu.Lock()
	s.ready = true
	s.mu.Unlock()
	answer, err := s.exchange(ctx)
	return s.begun(o, answer, err)
}

// begin makes an order this site's, and refuses hosts.
func (s *Sanitizer) begin(o Order) (Order, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next, err := s.state.start(o)
	switch {
	case err != nil:
	case o.Method == Overwrite && len(o.Pattern) == 0:
		err = errors.New("nothing to overwrite it with")
	default:
		err = next.Order.check()
	}
	if err != nil {
		return o, err
	}
	s.asking, s.agreed, s.reached = true, false, 0
	err = s.toLocked(next)
	s.asking = err == nil
	return next.Order, err
}

// begun looks what came of an order: the other site follows, or it is given up.
func (s *Sanitizer) begun(o Order, answer State, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asking, s.ready = false, false
	s.wake()
	switch {
	case s.agreed:
		return nil
	case s.state.Phase == Starting && s.state.Order.same(&o):
		// If this cannot be written the teller goes on trying; it is never run.
		return errors.Join(err, s.toLocked(s.state.abandon()))
	case answer.objection != None:
		return answer.objection.err()
	}
	return ErrBusy
}

func (o Objection) err() error { return [...]error{nil, ErrConflict, ErrProtected, ErrAbsent}[o] }

// Wait returns when the LUN is not being sanitized any more, or with the context: then
// with its cause. ErrFailed.
func (s *Sanitizer) Wait(ctx context.Context) error {
	for {
		s.mu.Lock()
		phase, shut, changed := s.state.Phase, s.shut, s.changed
		s.mu.Unlock()
		switch {
		case phase == Idle && !shut:
			return nil
		case phase == Failed:
			return ErrFailed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Exit ends the failure mode, at both sites when the other one can be told. ErrBusy;
// ErrRestricted: the order did not allow that.
func (s *Sanitizer) Exit(ctx context.Context) error {
	give, err := take(ctx, s.starting)
	if err != nil {
		return err
	}
	defer give()
	s.mu.Lock()
	next, err := s.state.exit()
	if err == nil {
		err = s.toLocked(next)
	}
	s.mu.Unlock()
	if err == nil {
		s.exchange(ctx) // or the teller, when that is possible
	}
	return err
}

// toLocked goes to another State: durable first, then in effect.
func (s *Sanitizer) toLocked(next State) error {
	now := &s.state
	next.objection = None
	if next.Phase == now.Phase && next.Order.same(&now.Order) && next.Over == now.Over {
		if next.Phase == Following && s.reached != next.Done {
			s.reached = next.Done
			s.unit.Refuse(s.statusLocked())
		}
		return nil
	}
	if err := s.keep(next); err != nil {
		return err
	}
	if next.Phase != now.Phase || !next.Order.same(&now.Order) {
		s.cfg.Log.Info("sanitize", "phase", next.Phase, "before", now.Phase, "order", next.Order.Number)
		s.reached = next.Done
	}
	s.state, s.acked = next, false
	s.effectLocked()
	s.wake()
	return nil
}

func (s *Sanitizer) keep(state State) error {
	if err := keep.Replace(s.cfg.Path, state.Encode(s.cfg.LUN)); err != nil {
		return fmt.Errorf("keep the state of a sanitize operation: %w", err)
	}
	return nil
}

// wake has the teller look.
func (s *Sanitizer) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// effectLocked makes the State count.
func (s *Sanitizer) effectLocked() {
	if s.unit == nil {
		return
	}
	s.unit.Refuse(s.statusLocked())
	if s.cfg.Solid != nil {
		p := s.state.Phase
		s.cfg.Solid((p == Running || p == Following) && s.state.Order.Method == Overwrite)
	}
	close(s.changed)
	s.changed = make(chan struct{})
	if s.state.Phase == Running && !s.erasing && s.ctx.Err() == nil {
		s.erasing = true
		o := s.state.Order
		s.tasks.Go(func() { s.erase(o) })
	}
}

func (s *Sanitizer) statusLocked() Status {
	if s.shut && s.state.Phase == Idle {
		return Status{Phase: Running, Progress: 0xffff}
	}
	total := float64(s.cfg.Disk.Size()) * float64(s.state.Order.rounds())
	return Status{Phase: s.state.Phase, Progress: uint16(min(float64(s.reached)/total, 1) * 0xffff)}
}

func (s *Sanitizer) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.ctx.Done():
	}
}
