package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twinlun/twinlun/replication"
	"github.com/twinlun/twinlun/replication/wire"
	"github.com/twinlun/twinlun/task"
	"github.com/twinlun/twinlun/task/simtask"
)

// noticing is how long a node takes, at most, to see that its peer is gone.
const noticing = 2 * time.Second

// link joins the two sites: one connection at a time.
type link struct {
	w    *world
	ends [2]*conn // of the present connection, or the last one
	cut  bool     // no connection can be made

	stalled [2]bool // nothing that was sent to this side on the control stream arrives now
}

// stall holds back what a side is told on the control stream, or lets it come.
func (l *link) stall(side int, yes bool) {
	l.stalled[side] = yes
	if c := l.ends[side]; c != nil {
		c.lanes[0].wake.Set()
	}
}

// connector makes connections whenever both nodes run and are free. It is a task
// of the world, and never ends.
func (l *link) connector() {
	for {
		l.w.group.Sleep(background, 5*time.Millisecond+upTo(l.w.rand, 100*time.Millisecond))
		if !l.cut && l.free(0) && l.free(1) {
			l.connect()
		}
	}
}

// free tells whether a site could take part in a new connection.
func (l *link) free(i int) bool {
	s, c := l.w.sites[i], l.ends[i]
	return s.node != nil && s.group.Alive() && (c == nil || c.done || !c.group.Alive())
}

func (l *link) connect() {
	l.w.tracef("link: connected")
	for i, s := range l.w.sites {
		c := &conn{w: l.w, side: i, group: s.group, node: s.node, closed: s.group.NewSignal()}
		c.ctx, c.cancel = context.WithCancelCause(background)
		for range 1 + l.w.shape.streams {
			c.lanes = append(c.lanes, newLane(len(c.lanes), s.group))
		}
		l.ends[i] = c
	}
	l.ends[0].peer, l.ends[1].peer = l.ends[1], l.ends[0]
	for _, c := range l.ends {
		c.group.Go("link", c.run)
	}
}

// sever breaks the connection. Each side notices in its own time; what is on its
// way arrives or not.
func (l *link) sever(why error) { l.severWithin(why, noticing) }

// severWithin lets the two sides take up to max to notice.
func (l *link) severWithin(why error, max time.Duration) {
	for _, c := range l.ends {
		if c == nil || c.ctx.Err() != nil {
			continue
		}
		if chance(l.w.rand, 50) {
			c.deaf = true
		}
		c.mute = true
		d := upTo(l.w.rand, max)
		l.w.group.Go("notice", func() {
			l.w.group.Sleep(background, d)
			c.cancel(why)
		})
	}
}

// conn is one side of a connection: a replication.LinkConn.
type conn struct {
	w      *world
	side   int
	peer   *conn
	group  *simtask.Group
	node   *replication.Node
	ctx    context.Context
	cancel context.CancelCauseFunc
	lanes  []*lane // what is on its way to this side: control, bulk 0, …
	deaf   bool    // nothing arrives any more
	mute   bool    // what is sent is lost
	ended  int     // lanes whose task has ended
	closed task.Signal
	done   bool
}

// lane is one direction of a stream.
type lane struct {
	queue []parcel
	last  time.Duration // arrival of the one sent last
	wake  task.Signal

	// What a frame goes through.
	bytes bytes.Buffer
	frame *wire.Reader
}

func newLane(i int, g *simtask.Group) *lane {
	kinds := wire.BulkKinds
	if i == 0 {
		kinds = wire.ControlKinds
	}
	l := &lane{wake: g.NewSignal()}
	l.frame = wire.NewReader(&l.bytes, kinds, wire.MaxBody)
	return l
}

type parcel struct {
	at  time.Duration
	lun uint32
	m   wire.Message
}

// run takes the side from Up to Down. It is a task of the node.
func (c *conn) run() {
	c.group.Sleep(background, upTo(c.w.rand, c.w.shape.delay))
	c.node.Up(c)
	for i := range c.lanes {
		c.group.Go(fmt.Sprint("lane ", i), func() { c.deliver(i) })
	}
	for c.ended < len(c.lanes) {
		c.closed.Wait(background)
	}
	c.w.tracef("link: down at %d: %v", c.side, context.Cause(c.ctx))
	c.node.Down(c, context.Cause(c.ctx))
	c.done = true
}

// deliver hands what arrives on a lane to the node.
func (c *conn) deliver(i int) {
	l := c.lanes[i]
	for c.ctx.Err() == nil {
		if len(l.queue) == 0 || c.deaf || i == 0 && c.w.link.stalled[c.side] {
			l.wake.Wait(c.ctx)
			continue
		}
		if wait := l.queue[0].at - c.w.sched.Elapsed(); wait > 0 {
			c.group.Sleep(c.ctx, wait)
			continue
		}
		p := l.queue[0]
		l.queue = l.queue[1:]
		c.handle(i, p)
	}
	c.ended++
	c.closed.Set()
}

func (c *conn) handle(i int, p parcel) {
	l := c.lanes[i]
	l.bytes.Write(wire.AppendFrame(nil, p.lun, p.m, chance(c.w.rand, 50)))
	lun, m, err := l.frame.Next()
	if err != nil {
		c.w.sched.Fail(fmt.Errorf("frame of %#v: %w", p.m, err))
		return
	}
	c.w.traceMessage("arrives at", c.side, i, m)
	if i == 0 {
		c.node.Control(c, lun, m)
	} else {
		c.node.Bulk(c, i-1, lun, m)
	}
}

// SendControl implements replication.LinkConn.
func (c *conn) SendControl(lun uint32, m wire.Message) { c.send(0, lun, m) }

// SendBulk implements replication.LinkConn.
func (c *conn) SendBulk(stream int, lun uint32, m wire.Message) { c.send(1+stream, lun, m) }

func (c *conn) send(i int, lun uint32, m wire.Message) {
	if err := wire.Check(m); err != nil {
		panic(fmt.Sprintf("%T breaks its bounds: %v", m, err))
	}
	if c.ctx.Err() != nil || c.mute || !c.group.Alive() || c.peer.ctx.Err() != nil {
		return
	}
	c.w.traceMessage("sent by", c.side, i, m)
	l := c.peer.lanes[i]
	delay := upTo(c.w.rand, c.w.shape.delay)
	if i > 0 && chance(c.w.rand, 10) {
		delay += upTo(c.w.rand, 200*time.Millisecond)
	}
	l.last = max(l.last, c.w.sched.Elapsed()+delay)
	l.queue = append(l.queue, parcel{l.last, lun, m})
	l.wake.Set()
}

// Streams implements replication.LinkConn.
func (c *conn) Streams() int { return len(c.lanes) - 1 }

// Peer implements replication.LinkConn.
func (c *conn) Peer() string { return c.w.sites[1-c.side].name }

// Features implements replication.LinkConn.
func (c *conn) Features() uint32 {
	features := uint32(wire.FeatureTell | wire.FeatureVerify)
	if c.w.cluster != nil {
		features |= wire.FeatureLease
	}
	return features
}

// RTT implements replication.LinkConn.
func (c *conn) RTT() time.Duration { return c.w.shape.delay }

// Context implements replication.LinkConn.
func (c *conn) Context() context.Context { return c.ctx }

// Close implements replication.LinkConn. The peer notices a little later.
func (c *conn) Close(reason error) {
	if !c.group.Alive() {
		return
	}
	c.cancel(reason)
	if peer := c.peer; peer.ctx.Err() == nil {
		peer.deaf = peer.deaf || chance(c.w.rand, 50)
		peer.mute = true
		d := upTo(c.w.rand, c.w.shape.delay)
		c.w.group.Go("notice", func() {
			c.w.group.Sleep(background, d)
			peer.cancel(errors.New("closed by the peer"))
		})
	}
}
