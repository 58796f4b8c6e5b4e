package replication

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// Bounds of what callers can make the listening node keep.
const (
	linkGreeters = 64 // streams that have not said HELLO yet: two full connections, and then some
	linkMaxParts = 4  // connections that miss streams
)

// dial opens all streams of a new connection at once: control first in the slice.
func (l *Link) dial(ctx context.Context) ([]*linkCall, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Handshake)
	defer cancel()
	var id [16]byte
	rand.Read(id[:]) // never fails
	calls := make([]*linkCall, 1+l.cfg.Streams)
	errs := make([]error, len(calls))
	var all sync.WaitGroup
	for i := range calls {
		all.Go(func() {
			if calls[i], errs[i] = l.call(ctx, i, id); errs[i] != nil {
				cancel() // one missing is all missing
			}
		})
	}
	all.Wait()
	if err := firstCause(errs); err != nil {
		hangUp(calls)
		return nil, fmt.Errorf("connect with %s: %w", l.cfg.Peer, err)
	}
	return calls, nil
}

// firstCause is the first error that did not only follow from another one; nil:
// there is none at all.
func firstCause(errs []error) error {
	all := errors.Join(errs...)
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, net.ErrClosed) {
			return err
		}
	}
	return all
}

// call opens one stream.
func (l *Link) call(ctx context.Context, stream int, id [16]byte) (*linkCall, error) {
	conn, err := l.cfg.Dial(ctx, stream)
	if err != nil {
		return nil, err
	}
	call := newLinkCall(conn)
	defer call.limit(ctx, l.cfg.Handshake)()
	if err := call.say(l.cfg.hello(stream, id, l.cfg.Streams)); err != nil {
		conn.Close()
		return nil, err
	}
	err = call.listen(&l.cfg)
	if err == nil && (call.theirs.Connection != id || int(call.theirs.Stream) != stream) {
		err = fmt.Errorf("%s has answered for another stream", l.cfg.Peer)
	}
	if err != nil {
		call.refuse(err)
		return nil, err
	}
	return call, nil
}

func hangUp(calls []*linkCall) {
	for _, call := range calls {
		if call != nil {
			call.conn.Close()
		}
	}
}

// greet takes in one stream: one goroutine of accept's each.
func (l *Link) greet(ctx context.Context, conn net.Conn) {
	call := newLinkCall(conn)
	done := call.limit(ctx, l.cfg.Handshake)
	err := call.listen(&l.cfg)
	if err == nil {
		err = call.say(l.cfg.hello(int(call.theirs.Stream), call.theirs.Connection, int(call.theirs.Streams)))
	}
	done()
	if err != nil {
		l.refused(fmt.Errorf("stream from %v: %w", conn.RemoteAddr(), err))
		call.refuse(err)
		return
	}
	l.join(ctx, call)
}

// linkParts are the streams of a connection that is not complete yet.
type linkParts struct {
	id      [16]byte
	calls   []*linkCall
	missing int
	expire  *time.Timer
}

// join adds a stream to its connection. When it is complete, it takes the place
// of the one that is up: the peer would not have called if that were any good.
func (l *Link) join(ctx context.Context, call *linkCall) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.partsLocked(call.theirs.Connection, int(call.theirs.Streams))
	i := int(call.theirs.Stream)
	if ctx.Err() != nil || len(p.calls) != int(call.theirs.Streams)+1 || p.calls[i] != nil {
		call.conn.Close() // Run is ending, or the peer contradicts itself
		return
	}
	p.calls[i] = call
	if p.missing--; p.missing > 0 {
		return
	}
	l.forgetLocked(p)
	hangUp(l.mu.next)
	l.mu.next = p.calls
	if l.mu.current != nil {
		l.mu.current.fail(ErrLinkSuperseded)
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// partsLocked finds or makes the connection that a stream belongs to.
func (l *Link) partsLocked(id [16]byte, streams int) *linkParts {
	for _, p := range l.mu.parts {
		if p.id == id {
			return p
		}
	}
	if len(l.mu.parts) == linkMaxParts {
		oldest := l.mu.parts[0]
		l.forgetLocked(oldest)
		hangUp(oldest.calls)
	}
	p := &linkParts{id: id, calls: make([]*linkCall, streams+1), missing: streams + 1}
	p.expire = time.AfterFunc(l.cfg.Handshake, func() { l.expire(p) })
	l.mu.parts = append(l.mu.parts, p)
	return p
}

func (l *Link) forgetLocked(p *linkParts) {
	p.expire.Stop()
	l.mu.parts = slices.DeleteFunc(l.mu.parts, func(q *linkParts) bool { return q == p })
}

// expire gives up a connection whose streams did not all come in time.
func (l *Link) expire(p *linkParts) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Contains(l.mu.parts, p) {
		l.forgetLocked(p)
		hangUp(p.calls)
	}
}

func (l *Link) takeNext() []*linkCall {
	l.mu.Lock()
	defer l.mu.Unlock()
	calls := l.mu.next
	l.mu.next = nil
	return calls
}

// dropParts closes what never came up, at the end of Run.
func (l *Link) dropParts() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.mu.parts) > 0 {
		p := l.mu.parts[0]
		l.forgetLocked(p)
		hangUp(p.calls)
	}
	hangUp(l.mu.next)
	l.mu.next = nil
}
