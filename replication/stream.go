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
}

func newStream(c *linkConn, number int, call *linkCall) *stream {
	kinds := wire.BulkKinds
	if number == 0 {
		kinds = wire.ControlKinds
	}
	call.in.Allow(kinds, wire.MaxBody)
	call.source.c = c
	return &stream{
		c: c, number: number, conn: call.conn, in: call.in,
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

// write is the stream's writer: it owns the sending half of the socket.
func (s *stream) write() {
	var batch wire.Batch
	for s.queue.wait(s.c.ctx) {
		s.fill(&batch)
		out := batch.Buffers()
		_, err := out.WriteTo(s.conn)
		batch.Reset()
		if err != nil {
			s.c.broken(s, "to", err)
			break
		}
	}
	if why := s.c.farewell.Load(); why != nil && s.number == 0 {
		s.sayFarewell(*why)
	}
}

// fill encodes what waits, up to about streamBatch bytes.
func (s *stream) fill(batch *wire.Batch) {
	ping, pong := s.queue.takeBeats()
	if ping {
		s.encode(batch, 0, &wire.Ping{ID: uint64(s.c.clock())})
	}
	if pong != 0 {
		s.encode(batch, 0, &wire.Pong{ID: pong})
	}
	for batch.Len() < streamBatch {
		q, ok := s.queue.take()
		if !ok {
			return
		}
		s.encode(batch, q.lun, q.m)
	}
}

func (s *stream) encode(batch *wire.Batch, lun uint32, m wire.Message) {
	before := batch.Len()
	batch.Add(lun, m, s.c.compress)
	s.c.link.counters.sent[m.Kind()].add(batch.Len() - before)
}

// sayFarewell is the writer's last act, under bury's deadline. A frame that was
// cut short by the deadline makes it unreadable; then the peer only sees the end.
func (s *stream) sayFarewell(why error) {
	if _, err := s.conn.Write(refusal(why)); err != nil {
		return
	}
	if half, ok := s.conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
}
