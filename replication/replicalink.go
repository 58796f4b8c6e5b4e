package replication

import (
	"github.com/twinlun/twinlun/replication/coherence"
	"github.com/twinlun/twinlun/replication/wire"
	"github.com/twinlun/twinlun/task"
)

// maxStreams bounds the bulk streams.
const maxStreams = wire.MaxBulkStreams

// maxStoring is how many bytes of COPYs may wait to be stored before the readers
// of the bulk streams hold back: more than the peer's windows ever are, so it only
// stops a peer that keeps to no window.
const maxStoring = 8 * defaultCopyWindow

// storing counts the COPYs that are being stored. The replica's lock guards it.
type storing struct {
	bytes int64
	room  [maxStreams]task.Signal // one for each stream's reader
}

func (s *storing) start(rt task.Runtime) {
	for i := range s.room {
		s.room[i] = rt.NewSignal()
	}
}

func (s *storing) began(items []wire.Blocks) (bytes int64) {
	for i := range items {
		bytes += int64(len(items[i].Data))
	}
	s.bytes += bytes
	return bytes
}

func (s *storing) ended(bytes int64) {
	before := s.bytes
	s.bytes -= bytes
	if before > maxStoring && s.bytes <= maxStoring {
		for _, r := range s.room {
			r.Set()
		}
	}
}

// up: the link is there.
func (r *Replica) up(c LinkConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		return
	}
	r.conn = c
	r.telling.upLocked(c)
	r.verify.heard = 0
	r.copying.reset()
	r.stepLocked(coherence.Connected{Streams: c.Streams()})
}

// down: the link is gone, and nothing sent before arrives later.
func (r *Replica) down(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.downLocked(err)
}

func (r *Replica) downLocked(err error) {
	if r.conn == nil {
		return
	}
	r.conn, r.planes = nil, nil
	r.health.down = err
	r.telling.downLocked(err)
	r.stepLocked(coherence.Disconnected{})
	r.copying.reset()
	r.verify.wake.Set()
}

// control takes a message of the control stream. It may hold the stream back.
func (r *Replica) control(c LinkConn, m wire.Message) {
	if j, ok := m.(*wire.JoinMap); ok {
		r.receivePlanes(c, j)
		return
	}
	if !r.converse(c, m) && !r.mending(c, m) {
		r.received(c, coherence.Received{Msg: m})
	}
}

// fromBulk takes a message of a bulk stream. It may hold the stream back.
func (r *Replica) fromBulk(c LinkConn, stream int, m wire.Message) {
	r.received(c, coherence.ReceivedBulk{Stream: stream, Msg: m})
	for r.crowded() && r.storing.room[stream].Wait(c.Context()) == nil {
	}
}

func (r *Replica) crowded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.storing.bytes > maxStoring
}

// received applies what came over a connection, if it is still the one. The first
// blocks that the peer wants are read on the spot if they are at hand: an idle worker
// would take longer to wake than the page cache to read.
func (r *Replica) received(c LinkConn, ev coherence.Event) {
	now := r.stepReceived(c, ev)
	for _, a := range now.list[:now.n] {
		r.collectNow(a)
	}
}

// stepReceived is the part of received under the lock.
func (r *Replica) stepReceived(c LinkConn, ev coherence.Event) (now collectsNow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn == c {
		r.now.open = true
		r.stepLocked(ev)
		now, r.now = r.now, collectsNow{}
	}
	return now
}

// maxNow bounds what a stream's reader reads itself for one message; beyond it,
// several workers are faster.
const maxNow = 2

// collectsNow are Collects that received does itself.
type collectsNow struct {
	open bool // it is running
	n    int
	list [maxNow]coherence.Collect
}

// take has received do a Collect. False: it is for the pool.
func (c *collectsNow) take(a coherence.Collect) bool {
	if !c.open || c.n == maxNow {
		return false
	}
	c.list[c.n] = a
	c.n++
	return true
}
