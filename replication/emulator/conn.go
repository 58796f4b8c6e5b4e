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
	way  *way
	near net.Conn // of who has connected
	// Ends with the connection, before its sockets are closed.
	ctx context.Context
	end context.CancelFunc
	// Ends with ctx, or when the connection is frozen: nothing passes any longer.
	live context.Context
	stop context.CancelFunc

	mu     sync.Mutex
	far    net.Conn // nil: not connected yet
	closed bool
}

func newConn(l *Line, w *way, near net.Conn) *conn {
	c := &conn{line: l, way: w, near: near}
	c.ctx, c.end = context.WithCancel(l.ctx)
	c.live, c.stop = context.WithCancel(c.ctx)
	shrinkBuffers(near)
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
	forth, back := newPipe(c, c.way.out), newPipe(c, 1-c.way.out)
	waiting, giveUp := context.WithCancel(c.live)
	var all sync.WaitGroup
	all.Go(func() {
		forth.fill(c.near)
		giveUp()
	})
	if far := c.connect(waiting); far != nil {
		forth.connected.Store(true)
		back.connected.Store(true)
		all.Go(func() { back.fill(far) })
		all.Go(func() { back.drain(c.near) })
		forth.drain(far)
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
	far, err := d.DialContext(c.live, "tcp", c.way.target)
	if err != nil {
		c.line.cfg.Log.Debug("link emulator: target does not answer", "target", c.way.target, "error", err)
		return nil
	}
	shrinkBuffers(far)
	return c.adopt(far)
}

func (c *conn) adopt(far net.Conn) net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		far.Close()
		return nil
	}
	c.far = far
	return far
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
	for _, s := range []net.Conn{c.near, c.far} {
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
	for _, s := range []net.Conn{c.near, c.far} {
		if s != nil {
			s.SetWriteDeadline(time.Now()) // ends a write that is under way
		}
	}
}
