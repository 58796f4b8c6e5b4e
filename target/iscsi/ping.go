package iscsi

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// pinger finds out whether an initiator is still there: after an idle interval
// it sends a NOP-In that wants an answer; if nothing at all comes until the
// timeout, the session ends.
type pinger struct {
	received *atomic.Uint64 // bytes that came over the connection

	mu      sync.Mutex
	timer   *time.Timer
	seen    uint64    // received at the last look
	pinged  time.Time // when a NOP-In was sent that nothing has come after; else zero
	stopped bool
}

func (p *pinger) start(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = p.received.Load()
	p.timer = time.AfterFunc(s.srv.cfg.Limits.PingInterval, func() { p.look(s) })
}

// look runs in the timer's goroutine.
func (p *pinger) look(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &s.srv.cfg.Limits
	received, idle := p.received.Load(), time.Since(p.pinged)
	switch {
	case p.stopped:
	case received != p.seen:
		p.seen, p.pinged = received, time.Time{}
		p.timer.Reset(l.PingInterval)
	case p.pinged.IsZero():
		p.pinged = time.Now()
		n := &note{}
		ping := nopIn{tag: noTag, transferTag: 0}
		ping.put(&n.header)
		s.queue.push(n, true)
		p.timer.Reset(min(l.PingInterval, l.PingTimeout))
	case idle < l.PingTimeout:
		p.timer.Reset(min(l.PingInterval, l.PingTimeout-idle))
	default:
		s.kill(fmt.Sprintf("the initiator did not answer for %v", l.PingTimeout))
	}
}

func (p *pinger) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	p.timer.Stop()
}
