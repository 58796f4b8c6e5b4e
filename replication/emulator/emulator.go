// Package emulator is a TCP proxy that behaves like a long line: what comes in at
// one end leaves the other one after a delay, and no faster than a rate.
//
//	A ── connects to ──► Listen ══ delay, rate, cuts ══► Target ── B
//
// A second way, over the same line, lets B connect to A.
//
// Each direction is a lane of its own. All connections share its rate, in turns
// of about a millisecond, and each connection's bytes keep their order. A lane
// takes in what its line can hold (rate × delay, and some more) and then lets TCP
// push back, so memory is bounded by connections × the bound of one.
//
// While a lane is cut, bytes are held and neither end is told anything, as with
// TCP over a line that loses every packet: when it is healed they go on. New
// connections wait until both lanes are whole; their ends see a connection that
// is open and silent. Freeze makes the present connections silent for ever.
package emulator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// maxConns bounds the connections that exist at a time; further ones are reset.
const maxConns = 1024

// dialTimeout bounds how long the target may take to accept.
const dialTimeout = 10 * time.Second

// socketBuffer keeps the kernel from holding seconds of a slow line's data, where
// the line's rate has no say, in bytes.
const socketBuffer = 256 << 10

// Config says between what the line runs.
type Config struct {
	Listen string // host:port; port 0: any
	Target string // host:port
	Back   Way    // for connections from B to A; zero: there are none
	State  State  // to begin with
	Log    *slog.Logger
}

// Way is where connections come in, and where they lead.
type Way struct {
	Listen string // host:port; port 0: any
	Target string // host:port
}

// State is what can be set while the line is in use.
type State struct {
	Delay time.Duration // one way, 0 to MaxDelay
	Rate  int64         // bits per second in each direction, at least MinRate; 0: no limit
	Cut   Cut
}

// Bounds of a State.
const (
	MaxDelay = 10 * time.Second
	MinRate  = 8000
)

// Check tells what is wrong with a state.
func (s State) Check() error {
	switch {
	case s.Delay < 0 || s.Delay > MaxDelay:
		return fmt.Errorf("delay %v: must be 0 to %v", s.Delay, MaxDelay)
	case s.Rate != 0 && s.Rate < MinRate:
		return fmt.Errorf("rate %d: must be 0 (no limit) or at least %d bits per second", s.Rate, MinRate)
	case s.Cut&^CutBoth != 0:
		return fmt.Errorf("unknown cut %d", s.Cut)
	}
	return nil
}

// Line is a running emulator.
type Line struct {
	// Fixed by Start.
	cfg    Config
	ways   []*way
	lanes  [2]*lane // by Direction
	ctx    context.Context
	cancel context.CancelFunc
	total  atomic.Uint64 // connections so far
	slabs  sync.Pool     // of *[slabSize]byte

	running sync.WaitGroup

	mu    sync.Mutex
	conns map[*conn]struct{}
}

// Start listens and returns at once.
func Start(cfg Config) (*Line, error) {
	if err := cfg.State.Check(); err != nil {
		return nil, fmt.Errorf("link emulator: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	l := &Line{cfg: cfg, conns: make(map[*conn]struct{})}
	if err := l.listen(); err != nil {
		return nil, err
	}
	l.slabs.New = func() any { return new([slabSize]byte) }
	l.ctx, l.cancel = context.WithCancel(context.Background())
	for d := range l.lanes {
		l.lanes[d] = newLane(Direction(d), cfg.State)
	}
	for _, w := range l.ways {
		l.running.Go(func() { l.accept(w) })
	}
	return l, nil
}

// way is a Way that listens.
type way struct {
	ln     net.Listener
	target string
	out    Direction // of what who connects sends
}

func (l *Line) listen() error {
	for d, w := range []Way{{l.cfg.Listen, l.cfg.Target}, l.cfg.Back} {
		if w == (Way{}) {
			continue
		}
		ln, err := net.Listen("tcp", w.Listen)
		if err != nil {
			l.hangUp()
			return fmt.Errorf("link emulator to %s: %w", w.Target, err)
		}
		l.ways = append(l.ways, &way{ln, w.Target, Direction(d)})
	}
	return nil
}

func (l *Line) hangUp() (err error) {
	for _, w := range l.ways {
		err = errors.Join(err, w.ln.Close())
	}
	return err
}

// Addr is where the line's end A is: host:port.
func (l *Line) Addr() string { return l.ways[0].ln.Addr().String() }

// BackAddr is where its end B is, if it has a way back.
func (l *Line) BackAddr() string { return l.ways[1].ln.Addr().String() }

// State is what was set last.
func (l *Line) State() State {
	s := l.lanes[AToB].state()
	if l.lanes[BToA].state().Cut != 0 {
		s.Cut |= CutBToA
	}
	return s
}

// Set changes the line. Bytes that are on their way keep the time of arrival that
// they had, unless they are held by a cut.
func (l *Line) Set(s State) error {
	if err := s.Check(); err != nil {
		return err
	}
	for _, lane := range l.lanes {
		lane.set(s)
	}
	return nil
}

// Reset breaks all connections; both ends are told at once, even through a cut.
func (l *Line) Reset() {
	for _, c := range l.present() {
		c.close(true)
	}
}

// Freeze makes the present connections silent for ever: what comes is thrown
// away, and neither end hears of the other again, not even of its end.
func (l *Line) Freeze() {
	for _, c := range l.present() {
		c.freeze()
	}
}

// Flip inverts one bit of the byte that comes through direction d as the skip'th
// from now on, counted from 0 over all connections.
func (l *Line) Flip(d Direction, skip int64) { l.lanes[d].flip(skip) }

// Close breaks all connections, and returns when nothing of the line is left.
func (l *Line) Close() error {
	l.cancel()
	err := l.hangUp()
	l.Reset()
	l.running.Wait()
	return err
}

func (l *Line) present() (all []*conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		all = append(all, c)
	}
	return all
}

// accept owns a listener. It ends with it.
func (l *Line) accept(w *way) {
	for {
		near, err := w.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors: passes
			l.cfg.Log.Warn("link emulator: accept", "error", err)
			sleep(l.ctx, 50*time.Millisecond)
			continue
		}
		l.open(w, near)
	}
}

// open takes a connection in and runs it.
func (l *Line) open(w *way, near net.Conn) {
	c := newConn(l, w, near)
	l.mu.Lock()
	full := len(l.conns) >= maxConns
	if !full {
		l.conns[c] = struct{}{}
	}
	l.mu.Unlock()
	if full {
		c.close(true)
		return
	}
	l.total.Add(1)
	l.running.Go(func() {
		c.run()
		l.mu.Lock()
		delete(l.conns, c)
		l.mu.Unlock()
	})
	if l.ctx.Err() != nil { // Close has come in between, and has not seen it
		c.close(true)
	}
}
