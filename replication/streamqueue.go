package replication

import (
	"context"
	"sync"

	"github.com/twinlun/twinlun/replication/wire"
)

// streamQueued is about what a queued message takes beside its body, in bytes.
const streamQueued = 128

// streamQueue has what waits for a stream's writer. Heartbeats are flags and not
// messages: they pass by what waits, and a peer that sends many pings gets few
// pongs.
type streamQueue struct {
	wake chan struct{} // there is something; wait takes it

	mu     sync.Mutex
	list   []streamItem // first in, first out, from head on
	head   int
	bytes  int64
	pinged bool   // a Ping is due
	ponged uint64 // the Ping to be answered; 0: none
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

// wait returns when there is something to take; false: ctx has ended.
func (q *streamQueue) wait(ctx context.Context) bool {
	for ctx.Err() == nil {
		if q.some() {
			return true
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
		}
	}
	return false
}

func (q *streamQueue) some() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.head < len(q.list) || q.pinged || q.ponged != 0
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
