package replication

import (
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twinlun/twinlun/replication/wire"
)

// streamBatch is about how much a writer hands to the system at once, in bytes:
// enough to make system calls cheap, little enough to keep few copies of it.
const streamBatch = 1 << 20

// stream is one TCP stream of a connection.
type stream struct {
	// Fixed by newStream.
	c          *linkConn
	number     int // 0: control; else bulk
	conn       net.Conn
	readerDone chan struct{} // closed when the reader has ended

	in    *wire.Reader // the reader's
	queue *streamQueue

	// Whoever has the queue's turn.
	out   streamSender
	batch wire.Batch
	left  bool // out has not sent all of batch yet
}

func newStream(c *linkConn, number int, call *linkCall) *stream {
	kinds := wire.BulkKinds
	if number == 0 {
		kinds = wire.ControlKinds
	}
	call.in.Allow(kinds, wire.MaxBody)
	call.source.c = c
	return &stream{
		c: c, number: number, conn: call.conn, in: call.in, out: newStreamSender(call.conn),
		readerDone: make(chan struct{}),
		queue:      newStreamQueue(),
	}
}

func (s *stream) String() string {
	if s.number == 0 {
		return "control stream"
	}
	return fmt.Sprintf("bulk stream %d", s.number-1)
}

// read is the stream's reader: it owns the receiving half of the socket, and
// calls the handler.
func (s *stream) read() {
	defer close(s.readerDone)
	for {
		lun, m, err := s.in.Next()
		if err != nil {
			s.c.broken(s, "from", err)
			break
		}
		s.c.link.counters.received[m.Kind()].add(s.in.FrameLen())
		if !s.c.received(s, lun, m) {
			break
		}
	}
	if s.c.farewell.Load() != nil {
		s.conn.SetReadDeadline(time.Now().Add(linkFarewell))
		io.Copy(io.Discard, s.conn) // until the peer has closed, or bury
	}
}

// write is the stream's writer: it sends what send has left.
func (s *stream) write() {
	for s.queue.wait(s.c.ctx) {
		var out net.Buffers
		if !s.left {
			s.fill()
			out = s.batch.Buffers()
		}
		err := s.out.Send(out)
		s.batch.Reset()
		s.left = false
		s.queue.end(false)
		if err != nil {
			s.c.broken(s, "to", err)
			break
		}
	}
	if why := s.c.farewell.Load(); why != nil && s.number == 0 {
		s.sayFarewell(*why)
	}
}

// maxSendNow is the largest message that send sends itself, in bytes: what a FETCH
// brings of an extent of the default size. To copy it into the socket takes about as
// long as to wake the writer.
const maxSendNow = 80 << 10

// send sends a message, or has the writer send it. It never waits. A message that
// finds the stream idle goes out at once: to wake the writer takes tens of
// microseconds, and somebody waits for the answer. false: too much is waiting.
func (s *stream) send(lun uint32, m wire.Message) bool {
	size := wire.Size(m)
	if size > maxSendNow || s.c.compress && size >= wire.CompressMin || !s.queue.begin() {
		return s.queue.put(lun, m, s.c.link.cfg.MaxQueue)
	}
	s.encode(lun, m)
	if s.left = !s.out.TrySend(s.batch.Buffers()); !s.left {
		s.batch.Reset()
	}
	s.queue.end(s.left)
	return true
}

// fill encodes what waits, up to about streamBatch bytes.
func (s *stream) fill() {
	ping, pong := s.queue.takeBeats()
	if ping {
		s.encode(0, &wire.Ping{ID: uint64(s.c.clock())})
	}
	if pong != 0 {
		s.encode(0, &wire.Pong{ID: pong})
	}
	for s.batch.Len() < streamBatch {
		q, ok := s.queue.take()
		if !ok {
			return
		}
		s.encode(q.lun, q.m)
	}
}

func (s *stream) encode(lun uint32, m wire.Message) {
	before := s.batch.Len()
	s.batch.Add(lun, m, s.c.compress)
	s.c.link.counters.sent[m.Kind()].add(s.batch.Len() - before)
}

// sayFarewell is the writer's last act, under bury's deadline. A frame that was
// cut short by the deadline makes it unreadable; then the peer only sees the end.
func (s *stream) sayFarewell(why error) {
	s.queue.seize()
	if err := s.out.Send(net.Buffers{refusal(why)}); err != nil {
		return
	}
	if half, ok := s.conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
}
