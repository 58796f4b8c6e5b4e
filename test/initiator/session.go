package initiator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Session is an iSCSI session of one connection. All methods may be called
// concurrently, and as many commands as fit into the target's window and
// MaxCommands are in flight.
//
// A command runs in its caller's goroutine, which also sends its data when the
// target asks for it: the one that reads from the connection never writes to it,
// so two full socket buffers cannot block each other for good.
type Session struct {
	// Fixed by newSession.
	opts   Options
	params Params
	lun    [8]byte
	conn   net.Conn
	tasks  []task
	free   chan *task // slots without a task

	// Owned by receive.
	in        receiver
	expCmdSN  uint32
	expStatSN atomic.Uint32 // others read it
	heard     atomic.Uint64 // PDUs received; watch reads it

	maxCmdSN  atomic.Uint32 // set by receive
	cmdSN     atomic.Uint32 // the next one; set with sending held
	blockSize atomic.Int32  // 0: not known yet

	sending struct {
		sync.Mutex
		out     sender
		scratch header
		waiting atomic.Int32 // for the lock: the last of them flushes
	}
	window struct {
		sync.Mutex
		opens chan struct{} // closed when the window opens; nil: nobody waits
	}
	others struct {
		sync.Mutex
		next    uint32
		pending map[uint32]*exchange
	}

	// To attend, which does what receive and givers-up must not wait for.
	errands chan errand

	gone       chan struct{} // closed when the session has ended
	ending     sync.Once
	err        error // why; set before gone is closed
	background sync.WaitGroup
}

// errand is a PDU to be sent by attend.
type errand struct {
	ping    *header // answer this NOP-In …
	data    []byte  // … with its data
	abandon *task   // or abort this task …
	tag     uint32  // … of this tag
	probe   bool    // or ask whether the target is alive
}

func newSession(l *link, o Options, p Params, lg *login) *Session {
	s := &Session{
		opts: o, params: p, lun: EncodeLUN(o.LUN), conn: l.conn, in: l.in,
		tasks: make([]task, o.MaxCommands),
		free:  make(chan *task, o.MaxCommands),
		// Room for each task once, and for some pings: a sane target has one.
		errands:  make(chan errand, o.MaxCommands+16),
		gone:     make(chan struct{}),
		expCmdSN: lg.cmdSN,
	}
	for i := range s.tasks {
		s.tasks[i] = task{slot: uint32(i), events: make(chan event, p.MaxOutstandingR2T+1)}
		s.free <- &s.tasks[i]
	}
	s.sending.out = l.out
	s.others.pending = map[uint32]*exchange{}
	s.expStatSN.Store(lg.expStatSN)
	s.cmdSN.Store(lg.cmdSN)
	s.maxCmdSN.Store(lg.maxCmdSN)
	return s
}

// Params tells what the login has agreed upon.
func (s *Session) Params() Params { return s.params }

// Options are those of Dial, completed.
func (s *Session) Options() Options { return s.opts }

// Done is closed when the session has ended; Err then tells why.
func (s *Session) Done() <-chan struct{} { return s.gone }

// Err is nil as long as the session lives.
func (s *Session) Err() error {
	select {
	case <-s.gone:
		return s.err
	default:
		return nil
	}
}

// Close cuts the connection, without a logout, and waits for the session's
// goroutines.
func (s *Session) Close() error {
	s.end(ErrClosed)
	s.background.Wait()
	return nil
}

// Logout closes the session in order (RFC 7143 section 11.14).
func (s *Session) Logout(ctx context.Context) error {
	var h header
	h[0], h[1] = opLogoutRequest|immediate, final // reason 0: close the session
	r, err := s.exchange(ctx, &h, nil)
	s.Close()
	if err != nil {
		return fmt.Errorf("logout: %w", err)
	}
	if r.h.op() != opLogoutResponse || r.h[2] != 0 {
		return fmt.Errorf("logout: response %d", r.h[2])
	}
	return nil
}

// end ends the session; only the first reason counts.
func (s *Session) end(err error) {
	s.ending.Do(func() {
		s.err = err
		close(s.gone)
		s.conn.Close()
	})
}

// lose ends the session by a fault of the connection or of the target.
func (s *Session) lose(err error) {
	s.end(fmt.Errorf("%w: %s at %s: %w", ErrConnectionLost, s.opts.TargetIQN, s.opts.Address, err))
}

// lockSending takes the right to write to the connection.
func (s *Session) lockSending() {
	s.sending.waiting.Add(1)
	s.sending.Lock()
	s.sending.waiting.Add(-1)
}

// unlockSending gives it back. What was written leaves at once, unless another
// caller waits to write more: then it leaves with that, and many commands cost
// one system call.
func (s *Session) unlockSending() {
	var err error
	if s.sending.waiting.Load() == 0 {
		err = s.sending.out.w.Flush()
	}
	s.sending.Unlock()
	if err != nil {
		s.lose(err)
	}
}

// lockWindow is lockSending once the target's command window is open
// (RFC 7143 section 4.2.2.1).
func (s *Session) lockWindow(ctx context.Context) error {
	for {
		s.lockSending()
		if s.windowIsOpen() {
			return nil
		}
		s.unlockSending()
		if err := s.awaitWindow(ctx); err != nil {
			return err
		}
	}
}

func (s *Session) windowIsOpen() bool { return int32(s.maxCmdSN.Load()-s.cmdSN.Load()) >= 0 }

func (s *Session) awaitWindow(ctx context.Context) error {
	s.window.Lock()
	if s.window.opens == nil {
		s.window.opens = make(chan struct{})
	}
	opens := s.window.opens
	s.window.Unlock()
	if s.windowIsOpen() { // it opened before we were registered
		return nil
	}
	select {
	case <-opens:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.gone:
		return s.err
	}
}

// openWindow takes a new MaxCmdSN over. Called by receive.
func (s *Session) openWindow(n uint32) {
	if int32(n-s.maxCmdSN.Load()) <= 0 {
		return
	}
	s.maxCmdSN.Store(n)
	s.window.Lock()
	if s.window.opens != nil {
		close(s.window.opens)
		s.window.opens = nil
	}
	s.window.Unlock()
}

// attend answers the target's pings and aborts tasks that were given up, until
// the session ends.
func (s *Session) attend() {
	for {
		select {
		case e := <-s.errands:
			if err := s.runErrand(e); err != nil {
				s.lose(err)
			}
		case <-s.gone:
			return
		}
	}
}

func (s *Session) runErrand(e errand) error {
	var h header
	switch {
	case e.ping != nil:
		h[0], h[1] = opNopOut|immediate, final
		copy(h[atLUN:], e.ping[atLUN:atLUN+8])
		h.set32(atITT, noTag)
		h.set32(atTTT, e.ping.u32(atTTT))
		return s.sendImmediate(&h, e.data)
	case e.abandon != nil:
		return s.sendAbort(e.abandon, e.tag)
	}
	s.nopOut(&h)
	h.set32(atITT, s.register(&exchange{}))
	return s.sendImmediate(&h, nil)
}

func (s *Session) nopOut(h *header) {
	h[0], h[1] = opNopOut|immediate, final
	h.set32(atTTT, noTag)
}

// Ping sends a NOP-Out and waits for its answer.
func (s *Session) Ping(ctx context.Context, data []byte) ([]byte, error) {
	var h header
	s.nopOut(&h)
	r, err := s.exchange(ctx, &h, data)
	if err != nil {
		return nil, fmt.Errorf("ping: %w", err)
	}
	if r.h.op() != opNopIn {
		return nil, fmt.Errorf("ping: answered by PDU %#02x", r.h.op())
	}
	return r.data, nil
}

var errSilent = errors.New("the target is silent")

// watch ends the session when the target is silent for too long.
func (s *Session) watch() {
	if s.opts.PingInterval < 0 {
		return
	}
	tick := time.NewTicker(s.opts.PingInterval)
	defer tick.Stop()
	last, probed := s.heard.Load(), false
	for {
		select {
		case <-tick.C:
		case <-s.gone:
			return
		}
		now := s.heard.Load()
		if now == last && probed {
			s.lose(errSilent)
			return
		}
		probed = now == last
		last = now
		if probed {
			select {
			case s.errands <- errand{probe: true}:
			default: // so many wait to be sent that this one would say no more
			}
		}
	}
}
