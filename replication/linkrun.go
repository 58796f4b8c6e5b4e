package replication

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Link keeps this node connected with its peer. Run owns it.
type Link struct {
	// Fixed by NewLink.
	cfg      LinkConfig
	handler  LinkHandler
	counters linkCounters
	log      linkLog

	mu struct {
		sync.Mutex
		current *linkConn    // that is up or going down; nil: none
		next    []*linkCall  // listening: a complete connection that waits for Run
		parts   []*linkParts // listening: connections that miss streams, oldest first
	}
	wake chan struct{} // mu.next was set
}

// NewLink checks the configuration. The link does nothing before Run.
func NewLink(cfg LinkConfig, h LinkHandler) (*Link, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	l := &Link{cfg: cfg, handler: h, wake: make(chan struct{}, 1)}
	l.log.Logger = cfg.Log.With("link", cfg.Self+"-"+cfg.Peer)
	return l, nil
}

// Run connects with the peer, again and again, until ctx ends or the listener
// fails for good. It calls the handler's Up and Down, and returns when the last
// Down has and every goroutine of the link has ended. It is called once.
func (l *Link) Run(ctx context.Context) error {
	if LinkDials(l.cfg.Self, l.cfg.Peer) {
		return l.runDialing(ctx)
	}
	return l.runListening(ctx)
}

// serve runs a connection from Up to Down.
func (l *Link) serve(ctx context.Context, calls []*linkCall) error {
	c := newLinkConn(l, calls)
	l.mu.Lock()
	l.mu.current = c
	superseded := l.mu.next != nil
	l.mu.Unlock()
	if superseded {
		c.fail(ErrLinkSuperseded)
	}
	l.counters.connections.Add(1)
	l.log.up(c)
	err := c.run(ctx)
	l.mu.Lock()
	l.mu.current = nil
	l.mu.Unlock()
	return err
}

// failed notes why there is no connection.
func (l *Link) failed(err error) {
	text := err.Error()
	l.counters.lastError.Store(&text)
	l.log.failed(err)
}

// refused notes that a stream was not taken in: the reason for having no
// connection, unless there is one.
func (l *Link) refused(err error) {
	l.mu.Lock()
	up := l.mu.current != nil
	l.mu.Unlock()
	if up {
		l.log.refused(err)
	} else {
		l.failed(err)
	}
}

// linkBackoff is the wait after a failure: doubled each time, with a quarter of
// jitter so that many links do not come back in step.
type linkBackoff struct {
	min, max, next time.Duration
}

func (b *linkBackoff) reset() { b.next = 0 }

func (b *linkBackoff) wait(ctx context.Context) {
	b.next = min(max(2*b.next, b.min), b.max)
	d := b.next*3/4 + time.Duration(rand.Int64N(int64(b.next/4)+1))
	linkSleep(ctx, d)
}

func linkSleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// runDialing is Run of the node that dials.
func (l *Link) runDialing(ctx context.Context) error {
	backoff := linkBackoff{min: l.cfg.BackoffMin, max: l.cfg.BackoffMax}
	for ctx.Err() == nil {
		calls, err := l.dial(ctx)
		if err == nil {
			began := time.Now()
			err = l.serve(ctx, calls)
			if time.Since(began) > l.cfg.BackoffMax {
				backoff.reset()
			}
		}
		if ctx.Err() == nil {
			l.failed(err)
			backoff.wait(ctx)
		}
	}
	return context.Cause(ctx)
}

// runListening is Run of the node that listens.
func (l *Link) runListening(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { l.cfg.Listener.Close() })
	defer stop()
	var greeters sync.WaitGroup
	greeters.Go(func() { cancel(l.accept(ctx, &greeters)) })
	for {
		select {
		case <-l.wake:
			if calls := l.takeNext(); calls != nil {
				l.serveNext(ctx, calls)
			}
		case <-ctx.Done():
			greeters.Wait()
			l.dropParts()
			return context.Cause(ctx)
		}
	}
}

func (l *Link) serveNext(ctx context.Context, calls []*linkCall) {
	if err := l.serve(ctx, calls); ctx.Err() == nil {
		l.failed(err)
	}
}

// accept takes streams in until the listener is closed. It runs for as long as
// Run does.
func (l *Link) accept(ctx context.Context, greeters *sync.WaitGroup) error {
	slots := make(chan struct{}, linkGreeters)
	for {
		conn, err := l.cfg.Listener.Accept()
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return fmt.Errorf("link of %s: listener on %v: %w", l.cfg.Self, l.cfg.Listener.Addr(), errors.Join(err, context.Cause(ctx)))
		case err != nil: // out of descriptors or memory: passes
			l.failed(fmt.Errorf("accept on %v: %w", l.cfg.Listener.Addr(), err))
			linkSleep(ctx, l.cfg.BackoffMin)
			continue
		}
		select {
		case slots <- struct{}{}:
			greeters.Go(func() {
				l.greet(ctx, conn)
				<-slots
			})
		default: // a flood of strangers
			conn.Close()
		}
	}
}
