package replication

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinlun/twinlun/replication/wire"
)

// linkConn is a LinkConn over TCP. Its goroutines, all ended before Down: one
// reader and one writer per stream, beat, and bury.
type linkConn struct {
	// Fixed by newLinkConn.
	link     *Link
	peer     string
	compress bool
	features uint32    // of both
	streams  []*stream // control, then bulk
	started  time.Time
	ctx      context.Context
	cancel   context.CancelCauseFunc

	farewell atomic.Pointer[error] // what to tell the peer before the sockets are closed
	heard    atomic.Int64          // when something was received last on any stream; see clock
	rtt      atomic.Int64          // nanoseconds, smoothed
	running  sync.WaitGroup
}

func newLinkConn(l *Link, calls []*linkCall) *linkConn {
	c := &linkConn{link: l, peer: calls[0].theirs.Node, started: time.Now()}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.features = calls[0].theirs.Features & l.cfg.features
	c.compress = l.cfg.Compress && c.features&wire.FeatureCompression != 0
	for i, call := range calls {
		c.streams = append(c.streams, newStream(c, i, call))
	}
	return c
}

// Streams implements LinkConn.
func (c *linkConn) Streams() int { return len(c.streams) - 1 }

// Peer implements LinkConn.
func (c *linkConn) Peer() string { return c.peer }

// Features implements LinkConn.
func (c *linkConn) Features() uint32 { return c.features }

// RTT implements LinkConn.
func (c *linkConn) RTT() time.Duration { return time.Duration(c.rtt.Load()) }

// Context implements LinkConn.
func (c *linkConn) Context() context.Context { return c.ctx }

// SendControl implements LinkConn.
func (c *linkConn) SendControl(lun uint32, m wire.Message) {
	c.send(c.streams[0], wire.ControlKinds, lun, m)
}

// SendBulk implements LinkConn.
func (c *linkConn) SendBulk(stream int, lun uint32, m wire.Message) {
	c.send(c.streams[1+stream], wire.BulkKinds, lun, m)
}

func (c *linkConn) send(s *stream, kinds wire.KindSet, lun uint32, m wire.Message) {
	if !kinds.Has(m.Kind()) {
		panic(fmt.Sprintf("replication: %v sent on the %s, where it is not allowed", m.Kind(), s))
	}
	if err := wire.Check(m); err != nil {
		panic("replication: message to be sent breaks its bounds: " + err.Error())
	}
	if !s.send(lun, m) {
		c.fail(fmt.Errorf("%s to %s: %d bytes: %w", s, c.peer, c.link.cfg.MaxQueue, ErrLinkOverflow))
	}
}

// Close implements LinkConn.
func (c *linkConn) Close(reason error) { c.failTelling(reason) }

// fail breaks the connection. It never blocks: bury does the rest.
func (c *linkConn) fail(why error) { c.cancel(why) }

// failTelling is fail, and tells the peer why.
func (c *linkConn) failTelling(why error) {
	if c.ctx.Err() == nil {
		c.farewell.CompareAndSwap(nil, &why)
	}
	c.fail(why)
}

// clock is the time since the connection began, in nanoseconds, more than 0.
func (c *linkConn) clock() int64 { return int64(time.Since(c.started)) + 1 }

// run takes the connection from Up to Down, and returns Down's error.
func (c *linkConn) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.Close(ErrLinkClosed) })
	defer stop()
	c.running.Go(c.bury)
	c.running.Go(c.beat)
	for _, s := range c.streams {
		c.running.Go(s.write)
	}
	c.link.handler.Up(c)
	for _, s := range c.streams {
		c.running.Go(s.read)
	}
	c.running.Wait()
	err := context.Cause(c.ctx)
	c.link.handler.Down(c, err)
	return err
}

// beat asks for a sign of life on every stream, at regular times.
func (c *linkConn) beat() {
	tick := time.NewTicker(c.link.cfg.Heartbeat)
	defer tick.Stop()
	for {
		for _, s := range c.streams {
			s.queue.ping()
		}
		select {
		case <-tick.C:
		case <-c.ctx.Done():
			return
		}
	}
}

// bury closes the sockets of a broken connection, which ends its readers and
// writers. If there is something to tell, the peer gets a moment to read it: the
// control stream's writer says it, and its reader ends when the peer has closed.
func (c *linkConn) bury() {
	<-c.ctx.Done()
	if c.farewell.Load() != nil {
		control := c.streams[0]
		control.conn.SetWriteDeadline(time.Now().Add(linkFarewell))
		enough := time.NewTimer(linkFarewell)
		defer enough.Stop()
		select {
		case <-control.readerDone:
		case <-enough.C:
		}
	}
	for _, s := range c.streams {
		s.conn.Close()
		s.queue.close()
	}
}

// received takes in what a stream has read. false: the stream has ended.
func (c *linkConn) received(s *stream, lun uint32, m wire.Message) bool {
	switch m := m.(type) {
	case *wire.Ping:
		s.queue.pong(m.ID)
	case *wire.Pong:
		c.ponged(s, m.ID)
	case *wire.Refuse:
		c.fail(&LinkRefused{Peer: c.peer, Reason: m.Reason})
		return false
	default:
		if c.ctx.Err() != nil {
			return false
		}
		c.deliver(s, lun, m)
	}
	return true
}

func (c *linkConn) deliver(s *stream, lun uint32, m wire.Message) {
	if s.number == 0 {
		c.link.handler.Control(c, lun, m)
	} else {
		c.link.handler.Bulk(c, s.number-1, lun, m)
	}
}

// ponged measures the round trip; a Ping's id is when it was sent. Only the
// control stream's reader calls it with effect.
func (c *linkConn) ponged(s *stream, id uint64) {
	sample := c.clock() - int64(id)
	if s.number != 0 || id == 0 || sample <= 0 {
		return
	}
	if old := c.rtt.Load(); old != 0 {
		sample = old + (sample-old)/8
	}
	c.rtt.Store(sample)
}

// broken ends the connection because a stream has failed.
func (c *linkConn) broken(s *stream, doing string, err error) {
	if errors.Is(err, io.EOF) {
		err = errors.New("closed by the peer")
	}
	err = fmt.Errorf("%s %s %s: %w", s, doing, c.peer, err)
	if errors.Is(err, wire.ErrCorrupt) {
		c.failTelling(err)
	} else {
		c.fail(err)
	}
}
