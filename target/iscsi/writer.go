package iscsi

import (
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinlun/twinlun/socket"
)

// reply is something that the writer makes PDUs of: a *command or a *note.
type reply interface {
	emit(w *writer)
	size() (pdus, bytes int) // about
}

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

func (n *note) size() (pdus, bytes int) { return 1, len(n.data) }

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

// Bounds of what is written with one system call.
const (
	batchBytes   = 1 << 20
	batchVectors = 512
	directPDUs   = 128 // for which the writer's arena and vectors surely suffice
	// A PDU without its data: header, header digest, padding, data digest.
	overhead = headerSize + 4 + 3 + 4
	// What is sent directly has no more data than batchBytes, and must not wait.
	batchLimit = batchBytes + directPDUs*overhead
)

// writer sends PDUs. During login the connection's goroutine owns it, after that
// whoever the queue gives it to.
type writer struct {
	conn    net.Conn
	now     *socket.Sender // over conn, what that takes at once
	timeout time.Duration
	seq     *sequenceNumbers
	maxSend atomic.Uint32 // the initiator's MaxRecvDataSegmentLength

	addHdr, addSeg bool // digests
	statSN         uint32
	header         header // of the PDU that put sends

	batch    []reply
	arena    [8192]byte // what is around the data of PDUs
	used     int        // of arena
	tail     int        // where in the arena the last of vec starts; -1: it is data
	vec      net.Buffers
	sending  net.Buffers // what of vec is not written yet
	bytes    int         // in vec
	finished []*command  // to be freed when vec is written
	last     bool        // close the connection after the next flush
	err      error       // of a write; nothing is written any more
}

func newWriter(conn net.Conn, timeout time.Duration, seq *sequenceNumbers) *writer {
	return &writer{conn: conn, now: socket.NewSender(conn), timeout: timeout, seq: seq, tail: -1}
}

// run sends what comes through the queue, until that is closed. After a failed
// write it goes on to free commands.
func (w *writer) run(q *queue) {
	for q.take(&w.batch) {
		w.emit()
		w.flush()
		q.release(false)
	}
}

// sendNow sends what waits in the queue, without waiting: what the connection
// does not take is left to the writer's goroutine.
func (w *writer) sendNow(q *queue, reader bool) {
	if !q.takeNow(&w.batch, reader) {
		return
	}
	w.emit()
	q.release(!w.flushNow())
}

// emit makes PDUs of the batch.
func (w *writer) emit() {
	for i, r := range w.batch {
		r.emit(w)
		w.batch[i] = nil
	}
	w.batch = w.batch[:0]
}

// put adds a PDU of w.header and data, which must stay untouched until flush.
// withStatus: it uses up a StatSN.
func (w *writer) put(data []byte, withStatus bool) {
	if w.used+overhead > len(w.arena) || len(w.vec)+3 > batchVectors || w.bytes >= batchLimit {
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

// writeSome writes what the connection takes at once of w.sending; true: all.
func (w *writer) writeSome() bool {
	w.sending, w.err = w.now.Send(w.sending)
	return w.err == nil && len(w.sending) == 0
}

// flush writes what was put.
func (w *writer) flush() {
	if w.flushNow() {
		return
	}
	if w.err = w.conn.SetWriteDeadline(time.Now().Add(w.timeout)); w.err == nil {
		_, w.err = w.sending.WriteTo(w.conn)
	}
	w.flushed()
}

// flushNow writes what was put, or is left of it, as far as that goes without
// waiting. False: not all is written.
func (w *writer) flushNow() bool {
	if len(w.sending) == 0 {
		w.sending = w.vec
	}
	if w.err == nil && len(w.sending) > 0 && !w.writeSome() && w.err == nil {
		return false
	}
	w.flushed()
	return true
}

// flushed frees what was put.
func (w *writer) flushed() {
	if w.err != nil || w.last {
		w.conn.Close() // the reader notices and ends the session
	}
	clear(w.vec)
	w.vec, w.sending, w.used, w.tail, w.bytes = w.vec[:0], nil, 0, -1, 0
	for i, c := range w.finished {
		c.s.recycle(c)
		w.finished[i] = nil
	}
	w.finished = w.finished[:0]
}
