package multipath

import (
	"context"
	"errors"
	"time"

	"github.com/twinlun/twinlun/test/initiator"
)

// rank says how good a path is; a higher one is better.
type rank int

const (
	dead rank = iota // no session, or the port does not take commands
	nonOptimized
	optimized
	preferred // and optimized
)

// path is one session that comes back.
type path struct {
	client *Client
	opts   initiator.Options
	poke   chan struct{} // look at the path now

	// Under client.mu.
	rank       rank
	session    *initiator.Session // the last one, perhaps dead; nil: none so far
	stragglers []func()           // tries without an answer: to be told when they are over
}

// tend keeps the path alive, until the client is closed. It owns the session.
func (p *path) tend() {
	const first = 10 * time.Millisecond
	for delay := first; p.client.life.Err() == nil; delay = min(2*delay, p.client.opts.Check) {
		s, err := p.login()
		if err == nil {
			delay = first
			p.up(s)
			p.watch(s)
			p.down(s)
		}
		pause(p.client.life, delay)
	}
}

func (p *path) login() (*initiator.Session, error) {
	ctx, cancel := context.WithTimeout(p.client.life, p.client.opts.Timeout)
	defer cancel()
	return initiator.Dial(ctx, p.opts)
}

// up takes over a new session: what was sent by older ones is over.
func (p *path) up(s *initiator.Session) {
	p.client.mu.Lock()
	over := p.stragglers
	p.session, p.stragglers = s, nil
	p.client.mu.Unlock()
	for _, f := range over {
		f()
	}
}

// down ends a session.
func (p *path) down(s *initiator.Session) {
	p.setRank(s, dead)
	s.Close()
}

// watch looks at the path from time to time, as long as the session lives.
func (p *path) watch(s *initiator.Session) {
	tick := time.NewTicker(p.client.opts.Check)
	defer tick.Stop()
	for {
		r, err := p.look(s)
		if err != nil {
			return
		}
		p.setRank(s, r)
		select {
		case <-tick.C:
		case <-p.poke:
		case <-s.Done():
			return
		case <-p.client.life.Done():
			return
		}
	}
}

// look asks for the path's state. With an error the session is of no use any more.
func (p *path) look(s *initiator.Session) (r rank, err error) {
	ctx, cancel := context.WithTimeout(p.client.life, p.client.opts.Timeout)
	defer cancel()
	// In this order: a unit attention that ends the first is older than what the second says.
	err = attentive(func() error { return s.TestUnitReady(ctx) })
	if err == nil {
		err = attentive(func() error {
			r, err = access(ctx, s)
			return err
		})
	}
	if judge(err, ctx.Err() != nil) == unanswered {
		return dead, err
	}
	if err != nil {
		r = dead
	}
	return r, nil
}

// attentive does f again after a unit attention; there may be several.
func attentive(f func() error) error {
	const most = 8
	var err error
	for range most {
		err = f()
		var check *initiator.CheckCondition
		if !errors.As(err, &check) || check.Key != initiator.SenseUnitAttention {
			break
		}
	}
	return err
}

// setRank notes what a session is good for, unless there is another one.
func (p *path) setRank(s *initiator.Session, r rank) {
	p.client.mu.Lock()
	defer p.client.mu.Unlock()
	if p.session == s && p.rank != r {
		p.rank = r
		p.client.changedLocked()
	}
}

// straggle keeps in mind a try without an answer. If the path is to blame, its session ends.
func (p *path) straggle(s *initiator.Session, over func(), blame bool) {
	p.client.mu.Lock()
	settled := p.session != s // by a login after the session that it went by
	if !settled {
		p.stragglers = append(p.stragglers, over)
	}
	p.client.mu.Unlock()
	if settled {
		over()
	}
	if blame {
		p.down(s)
	}
}

// heed takes an answer that was none to heart. A path that has refused a command rests
// until its turn to be looked at comes: one that answers all but reads and writes would have
// the command back at once, and the other path never.
func (p *path) heed(s *initiator.Session, v verdict) {
	switch v {
	case refused:
		p.setRank(s, dead)
	case attention:
		select {
		case p.poke <- struct{}{}:
		default: // somebody has said so
		}
	}
}
