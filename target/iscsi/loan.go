package iscsi

import (
	"sync/atomic"
	"time"
)

// A small write takes the medium less time, as a rule, than it takes to wake another
// goroutine: its bytes go to the page cache. So the reader executes it and reads on
// afterwards. But any write may wait for the medium, and then somebody else must read.
// That is found out by a timer.
const (
	// loanTime is how long a command may keep the reader: at most twice as long, until
	// the timer has looked twice.
	loanTime = time.Millisecond
	// loanPause is for how many writes the reader is not lent after one that has kept
	// it: where the medium is slow, they had better go side by side.
	loanPause = 1000
)

// loan is whether the reader is lent to a command, and who has its role.
type loan struct {
	state atomic.Uint64 // odd: lent; goes up with every change
	armed atomic.Bool   // the timer runs
	timer *time.Timer
	seen  uint64 // state when the timer looked; the timer's

	pause int // writes to go before the reader is lent again; the reader's
}

func (l *loan) start(s *session) {
	l.timer = time.AfterFunc(time.Hour, func() { l.look(s) })
	l.timer.Stop() // until there is something to look at
}

// begin lends the reader; end gets what it returns.
func (l *loan) begin() uint64 {
	n := l.state.Add(1)
	if !l.armed.Load() && l.armed.CompareAndSwap(false, true) {
		l.timer.Reset(loanTime)
	}
	return n
}

// end tells whether the caller is the reader still.
func (l *loan) end(n uint64) bool { return l.state.CompareAndSwap(n, n+1) }

// look makes another worker the reader, if the reader was lent to the same command the
// last time. It goes on as long as there is something to look at.
func (l *loan) look(s *session) {
	n := l.state.Load()
	switch {
	case n != l.seen:
		l.seen = n
		l.timer.Reset(loanTime)
	case n%2 == 0:
		l.armed.Store(false)
		if l.state.Load() != n && l.armed.CompareAndSwap(false, true) { // begin may have missed that
			l.timer.Reset(loanTime)
		}
	case l.state.CompareAndSwap(n, n+1):
		l.pause = loanPause
		l.timer.Reset(loanTime)
		s.workers.submit((*reading)(s))
	default:
		l.timer.Reset(loanTime)
	}
}

// lendable tells whether the reader may execute a command that writes, and stay the
// reader.
func (s *session) lendable(c *command) bool {
	if s.trier == nil || c.turn != nil || c.xfer.want == 0 || c.xfer.want > s.small() || c.ctx.Err() != nil {
		return false
	}
	if s.loan.pause > 0 {
		s.loan.pause--
		return false
	}
	return true
}

// lend has the reader execute a command. reader: the caller is the reader still; done:
// the command has ended.
func (s *session) lend(c *command) (reader, done bool) {
	n := s.loan.begin()
	done = s.provide(c) && s.trier.TryExecute(&c.scsi)
	reader = s.loan.end(n)
	switch {
	case done:
		s.end(c)
	case !reader:
		s.execute(c)
		done = true
	}
	return reader, done
}
