package emulator

import (
	"context"
	"net"
	"sync"
	"time"
)

// conn is one connection through the line. run owns it; up to four more
// goroutines, two for each direction, end before it.
type conn struct {
	line *Line
	a    net.Conn
	// Ends with the connection, before its sockets are closed.
	ctx context.Context
	end context.CancelFunc
	// Ends with ctx, or when the connection is frozen: nothing passes any longer.
	live context.Context
	stop context.CancelFunc

	mu     sync.Mutex
	b      net.Conn // nil: not connected yet
	closed bool
}

func newConn(l *Line, a net.Conn) *conn {
	c := &conn{line: l, a: a}
	c.ctx, c.end = context.WithCancel(l.ctx)
	c.live, c.stop = context.WithCancel(c.ctx)
	shrinkBuffers(a)
	return c
}

// shrinkBuffers is a wish; a socket that cannot is as good.
func shrinkBuffers(s net.Conn) {
	if tcp, ok := s.(*net.TCPConn); ok {
		tcp.SetReadBuffer(socketBuffer)
		tcp.SetWriteBuffer(socketBuffer)
	}
}

// run lets the bytes through until both directions have ended.
func (c *conn) run() {
	defer c.close(false)
	forth, back := newPipe(c, AToB), newPipe(c, BToA)
	waiting, giveUp := context.WithCancel(c.live)
	var all sync.WaitGroup
	all.Go(func() {
		forth.fill(c.a)
		giveUp()
	})
	if b := c.connect(waiting); b != nil {
		forth.connected.Store(true)
		back.connected.Store(true)
		all.Go(func() { back.fill(b) })
		all.Go(func() { back.drain(c.a) })
		forth.drain(b)
	} else if c.live.Err() == nil {
		c.close(true)
	}
	forth.drop()
	all.Wait()
}

// connect opens the far end as soon as the line is whole. nil: it cannot be
// opened, or waiting has ended before: the near end has gone.
func (c *conn) connect(waiting context.Context) net.Conn {
	for _, ln := range c.line.lanes {
		if !ln.whole(waiting) {
			return nil
		}
	}
	d := net.Dialer{Timeout: dialTimeout}
	b, err := d.DialContext(c.live, "tcp", c.line.cfg.Target)
	if err != nil {
		c.line.cfg.Log.Debug("link emulator: target does not answer", "target", c.line.cfg.Target, "error", err)
		return nil
	}
	shrinkBuffers(b)
	return c.adopt(b)
}

func (c *conn) adopt(b net.Conn) net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		b.Close()
		return nil
	}
	c.b = b
	return b
}

// close ends the connection, with a RST instead of a FIN if reset.
func (c *conn) close(reset bool) {
	c.end()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	for _, s := range []net.Conn{c.a, c.b} {
		if tcp, ok := s.(*net.TCPConn); ok && reset {
			tcp.SetLinger(0)
		}
		if s != nil {
			s.Close()
		}
	}
}

// freeze lets nothing pass any longer, not even the end of the connection.
func (c *conn) freeze() {
	c.stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range []net.Conn{c.a, c.b} {
		if s != nil {
			s.SetWriteDeadline(time.Now()) // ends a write that is under way
		}
	}
}
