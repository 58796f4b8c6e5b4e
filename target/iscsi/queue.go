package iscsi

import "sync"

// noteLimit is how much the notes that wait for the writer may weigh, in bytes,
// before the reader waits for it: an initiator that asks and does not take the
// answers gets no further. (Commands are bounded by their window.) It is enough
// for 256 R2Ts.
const (
	noteLimit  = 256 << 10
	noteWeight = 1 << 10 // of a note, beside its data
)

// Turns are after how much the reader sends, though it has not run out of requests yet:
// the initiator has something to do meanwhile.
const (
	turn      = 8         // PDUs to be sent
	turnTaken = 128 << 10 // bytes taken
)

// queue holds what waits to be sent, and says who may use the writer: its own
// goroutine, or the reader or a worker that sends without it.
//
// Those that push never wait. While the reader is at work nobody is woken for
// them: before it waits, and every few PDUs, it sends what there is.
type queue struct {
	mu      sync.Mutex
	filled  sync.Cond
	drained sync.Cond
	items   []reply
	weight  int // of the notes among items
	pdus    int // that items make, about
	bytes   int // of data in them
	closed  bool

	attended bool // the reader is at work
	taken    bool // somebody has the writer
	rest     bool // … and leaves it to its goroutine, with something not written
}

func newQueue() *queue {
	q := &queue{}
	q.filled.L, q.drained.L = &q.mu, &q.mu
	return q
}

// push adds a reply. Without wake, the caller calls writer.sendNow afterwards.
func (q *queue) push(r reply, wake bool) {
	pdus, bytes := r.size()
	q.mu.Lock()
	q.items = append(q.items, r)
	q.pdus += pdus
	q.bytes += bytes
	if _, ok := r.(*note); ok {
		q.weight += noteWeight + bytes
	}
	wake = wake && !q.attended
	q.mu.Unlock()
	if wake {
		q.filled.Signal()
	}
}

// take waits for replies, or for a batch to be written whose beginning was, and
// gives the writer to its goroutine; batch gets the replies. False: the queue was
// closed, and is empty.
func (q *queue) take(batch *[]reply) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		switch {
		case q.rest:
			q.rest = false
			return true
		case q.taken:
		case len(q.items) > 0:
			q.takeLocked(batch)
			return true
		case q.closed:
			return false
		}
		q.filled.Wait()
	}
}

// takeNow is take for another goroutine, which may not wait. It gets no more than
// one system call can write. False: it need not send, or cannot.
func (q *queue) takeNow(batch *[]reply, reader bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.taken, len(q.items) == 0, q.attended && !reader:
		return false
	case q.pdus > directPDUs, q.bytes > batchBytes:
		q.filled.Signal()
		return false
	}
	q.takeLocked(batch)
	return true
}

// takeLocked moves all replies to batch, whose memory the queue gets.
func (q *queue) takeLocked(batch *[]reply) {
	*batch, q.items = q.items, (*batch)[:0]
	q.weight, q.pdus, q.bytes, q.taken = 0, 0, 0, true
	q.drained.Signal()
}

// release gives the writer back; with rest, to its goroutine.
func (q *queue) release(rest bool) {
	q.mu.Lock()
	q.taken, q.rest = rest, rest
	wake := rest || q.closed || len(q.items) > 0 && !q.attended
	q.mu.Unlock()
	if wake {
		q.filled.Signal()
	}
}

// attend tells whether the reader is at work.
func (q *queue) attend(at bool) {
	q.mu.Lock()
	q.attended = at
	q.mu.Unlock()
}

// due tells the reader that it is its turn to send. It waits until few notes are
// left.
func (q *queue) due() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.weight >= noteLimit && !q.closed {
		q.attended = false
		q.filled.Signal()
		q.drained.Wait()
	}
	q.attended = true
	return q.pdus >= turn
}

// data tells whether there is data to be sent.
func (q *queue) data() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes > 0
}

// close lets take return false when all has been taken.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.filled.Broadcast()
	q.drained.Broadcast()
}
