package iscsi

import (
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// reply is something that the writer makes PDUs of: a *command or a *note.
type reply interface{ emit(w *writer) }

// note is an answer or a message other than that to a SCSI command.
type note struct {
	header header
	data   []byte
	slot   slot       // what the request that is answered took up
	status bool       // it uses up a StatSN
	last   bool       // the connection is closed after it
	home   *sync.Pool // where it goes when it is sent, or nil
}

func (n *note) emit(w *writer) {
	w.seq.release(n.slot)
	w.header = n.header
	w.put(n.data, n.status)
	w.last = w.last || n.last
	if n.home != nil {
		n.home.Put(n) // its header was copied, and it has no data
	}
}

// sequence numbers of a session that its reader and its writer share.
type sequenceNumbers struct {
	exp        atomic.Uint32 // ExpCmdSN; the reader alone changes it
	max        atomic.Uint32 // MaxCmdSN; never goes back
	immediates atomic.Int32  // immediate requests in flight
}

// release gives back what a request took up, when it is answered.
func (q *sequenceNumbers) release(s slot) {
	switch s {
	case slotWindow:
		q.max.Add(1)
	case slotImmediate:
		q.immediates.Add(-1)
	}
}

// noteLimit is how much the notes that wait for the writer may weigh, in bytes,
// before the reader waits for it: an initiator that asks and does not take the
// answers gets no further. (Commands are bounded by their window.) It is enough
// for 256 R2Ts.
const (
	noteLimit  = 256 << 10
	noteWeight = 1 << 10 // of a note, beside its data
)

// queue holds what waits to be sent. Those that push never wait.
type queue struct {
	mu      sync.Mutex
	filled  sync.Cond
	drained sync.Cond
	items   []reply
	weight  int // of the notes among items
	closed  bool
}

func newQueue() *queue {
	q := &queue{}
	q.filled.L, q.drained.L = &q.mu, &q.mu
	return q
}

func (q *queue) push(r reply) {
	q.mu.Lock()
	q.items = append(q.items, r)
	if n, ok := r.(*note); ok {
		q.weight += noteWeight + len(n.data)
	}
	q.mu.Unlock()
	q.filled.Signal()
}

// take waits for replies and returns all that there are; in exchange it gets an
// empty slice. nil: the queue was closed, and is empty.
func (q *queue) take(empty []reply) []reply {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 && !q.closed {
		q.filled.Wait()
	}
	if len(q.items) == 0 {
		return nil
	}
	batch := q.items
	q.items, q.weight = empty, 0
	q.drained.Signal()
	return batch
}

// throttle waits until few notes are left.
func (q *queue) throttle() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.weight >= noteLimit && !q.closed {
		q.drained.Wait()
	}
}

// close lets take return nil when all has been taken.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.filled.Broadcast()
	q.drained.Broadcast()
}

// Bounds of what is written with one system call.
const (
	batchBytes   = 1 << 20
	batchVectors = 512
	// A PDU without its data: header, header digest, padding, data digest.
	overhead = headerSize + 4 + 3 + 4
)

// writer sends PDUs. During login the connection's goroutine owns it, after that
// its own (run).
type writer struct {
	conn    net.Conn
	timeout time.Duration
	seq     *sequenceNumbers
	maxSend atomic.Uint32 // the initiator's MaxRecvDataSegmentLength

	addHdr, addSeg bool // digests
	statSN         uint32
	header         header // of the PDU that put sends

	arena    [8192]byte // what is around the data of PDUs
	used     int        // of arena
	tail     int        // where in the arena the last of vec starts; -1: it is data
	vec      net.Buffers
	sending  net.Buffers // vec, while it is written
	bytes    int         // in vec
	finished []*command  // to be freed when vec is written
	last     bool        // close the connection after the next flush
	err      error       // of a write; nothing is written any more
}

// run sends what comes through the queue, until that is closed. After a failed
// write it goes on to free commands.
func (w *writer) run(q *queue) {
	var batch []reply
	for {
		batch = q.take(batch[:0])
		if batch == nil {
			return
		}
		for i, r := range batch {
			r.emit(w)
			batch[i] = nil
		}
		w.flush()
	}
}

// put adds a PDU of w.header and data, which must stay untouched until flush.
// withStatus: it uses up a StatSN.
func (w *writer) put(data []byte, withStatus bool) {
	if w.used+overhead > len(w.arena) || len(w.vec)+3 > batchVectors || w.bytes >= batchBytes {
		w.flush()
	}
	w.stamp(withStatus)
	w.header.setDataLength(len(data))
	start := w.used
	w.used += copy(w.arena[w.used:], w.header[:])
	if w.addHdr {
		w.digest(digestOf(w.header[:]))
	}
	w.addArena(start)
	if len(data) > 0 {
		w.putData(data)
	}
}

func (w *writer) putData(data []byte) {
	w.vec = append(w.vec, data)
	w.bytes += len(data)
	w.tail = -1
	start := w.used
	for range padding(len(data)) {
		w.arena[w.used] = 0
		w.used++
	}
	if w.addSeg {
		w.digest(digestMore(digestOf(data), w.arena[start:w.used]))
	}
	if w.used > start {
		w.addArena(start)
	}
}

func (w *writer) stamp(withStatus bool) {
	w.header.put32(24, w.statSN)
	w.header.put32(28, w.seq.exp.Load())
	w.header.put32(32, w.seq.max.Load())
	if withStatus {
		w.statSN++
	}
}

func (w *writer) digest(crc uint32) {
	binary.LittleEndian.PutUint32(w.arena[w.used:], crc)
	w.used += 4
}

// addArena adds the arena's bytes from start on, as part of the vector before
// where that ends at start.
func (w *writer) addArena(start int) {
	w.bytes += w.used - start
	if n := len(w.vec); n > 0 && w.tail >= 0 {
		w.vec[n-1] = w.arena[w.tail:w.used]
		return
	}
	w.tail = start
	w.vec = append(w.vec, w.arena[start:w.used])
}

// flush writes what was put.
func (w *writer) flush() {
	if w.err == nil && len(w.vec) > 0 {
		w.err = w.conn.SetWriteDeadline(time.Now().Add(w.timeout))
	}
	if w.err == nil && len(w.vec) > 0 {
		w.sending = w.vec
		_, w.err = w.sending.WriteTo(w.conn)
	}
	if w.err != nil || w.last {
		w.conn.Close() // the reader notices and ends the session
	}
	clear(w.vec)
	w.vec, w.used, w.tail, w.bytes = w.vec[:0], 0, -1, 0
	for i, c := range w.finished {
		c.s.recycle(c)
		w.finished[i] = nil
	}
	w.finished = w.finished[:0]
}
