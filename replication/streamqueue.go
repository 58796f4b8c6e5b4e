package replication

import (
	"context"
	"sync"

	"github.com/twinlun/twinlun/replication/wire"
)

// streamQueued is about what a queued message takes beside its body, in bytes.
const streamQueued = 128

// streamQueue has what waits to be sent, and the turn: whoever has it may use the
// sending half of the socket. Heartbeats are flags and not messages: they pass by
// what waits, and a peer that sends many pings gets few pongs.
type streamQueue struct {
	wake chan struct{} // there is something for the writer; wait takes it

	mu     sync.Mutex
	list   []streamItem // first in, first out, from head on
	head   int
	bytes  int64
	pinged bool   // a Ping is due
	ponged uint64 // the Ping to be answered; 0: none
	taken  bool   // somebody has the turn
	rest   bool   // the writer has to go on with what somebody else could not send
	closed bool
}

type streamItem struct {
	lun  uint32
	m    wire.Message
	size int64
}

func newStreamQueue() *streamQueue { return &streamQueue{wake: make(chan struct{}, 1)} }

// put appends a message. false: more than limit bytes would wait. A queue that
// is closed takes everything and keeps nothing.
func (q *streamQueue) put(lun uint32, m wire.Message, limit int64) bool {
	size := int64(wire.Size(m)) + streamQueued
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return true
	}
	if q.bytes+size > limit {
		return false
	}
	q.list = append(q.list, streamItem{lun, m, size})
	q.bytes += size
	q.rouseLocked()
	return true
}

// begin takes the turn for somebody who wants to send past the queue: if nothing is
// in it and nobody else is sending. The turn ends with end.
func (q *streamQueue) begin() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.taken || q.closed || q.someLocked() {
		return false
	}
	q.taken = true
	return true
}

// end gives the turn back. With rest, the writer has to go on where its holder
// stopped.
func (q *streamQueue) end(rest bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.taken, q.rest = false, rest
	if q.closed || q.someLocked() {
		q.rouseLocked()
	}
}

// seize closes the queue and takes the turn, for good. Whoever has it still does not
// keep it for long: only the writer, who is calling, waits while it has the turn.
func (q *streamQueue) seize() {
	q.close()
	for !q.lastTurn() {
		<-q.wake
	}
}

func (q *streamQueue) lastTurn() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.taken {
		return false
	}
	q.taken = true
	return true
}

func (q *streamQueue) ping() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pinged = true
	q.rouseLocked()
}

func (q *streamQueue) pong(id uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ponged = id
	q.rouseLocked()
}

func (q *streamQueue) rouseLocked() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// wait returns with the turn when there is something to send; false: ctx has ended.
func (q *streamQueue) wait(ctx context.Context) bool {
	for ctx.Err() == nil {
		if q.turn() {
			return true
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
		}
	}
	return false
}

// turn takes the writer's turn, if there is something to send and nobody is sending.
func (q *streamQueue) turn() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.taken || !q.someLocked() {
		return false
	}
	q.taken = true
	return true
}

func (q *streamQueue) someLocked() bool {
	return q.head < len(q.list) || q.pinged || q.ponged != 0 || q.rest
}

func (q *streamQueue) takeBeats() (ping bool, pong uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	ping, pong = q.pinged, q.ponged
	q.pinged, q.ponged = false, 0
	return ping, pong
}

func (q *streamQueue) take() (it streamItem, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.head == len(q.list) {
		return it, false
	}
	it = q.list[q.head]
	q.list[q.head] = streamItem{}
	q.bytes -= it.size
	if q.head++; q.head*2 >= len(q.list) {
		n := copy(q.list, q.list[q.head:])
		clear(q.list[n:])
		q.list, q.head = q.list[:n], 0
	}
	return it, true
}

// waiting is how many bytes wait.
func (q *streamQueue) waiting() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes
}

// close drops what waits, and all that comes.
func (q *streamQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed, q.list, q.head, q.bytes = true, nil, 0, 0
}
