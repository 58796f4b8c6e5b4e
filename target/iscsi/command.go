package iscsi

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twinlun/twinlun/target/sam"
)

// slot says what a request takes up until it is answered.
type slot byte

const (
	slotNone      slot = iota
	slotWindow         // a place in the command window
	slotImmediate      // one of the immediate requests
)

// maxSense is the most sense data that a device may give, in bytes.
const maxSense = 252

// command is a SCSI command in flight. It belongs to one goroutine at a time:
// the session's reader, a worker, or the writer; while it is parked, waiting for
// Data-Out, to nobody.
type command struct {
	s    *session
	scsi sam.Command
	ctx  taskContext
	slot slot
	job  func(*session, *command) // what the worker does that gets it
	xfer transfer
	// ended: the outcome is set; only data that is under way is waited for.
	ended bool

	attribute attribute
	turn      *fence // the commands that it has to wait for before it is executed, or nil

	data    *buffer // for Data-Out or Data-In, or nil
	charged int64   // bytes that data takes of the session's budget
	whole   bool    // data holds all Data-Out, not just the first burst

	r2ts  [maxR2T]*note // room for those that askForData makes
	cdb   [16 + maxExtended]byte
	sense [2 + maxSense]byte // as it stands on the wire

	// Guarded by tasks.mu.
	parked  bool
	aborted bool
	tell    bool     // aborted, and answered with TASK ABORTED
	fences  []*fence // of those that wait for the end of it
}

func newCommand(s *session) *command {
	c := &command{s: s}
	c.ctx.done = make(chan struct{})
	return c
}

// fill makes a command of what the initiator sent.
func (c *command) fill(q *scsiCommand, h *header, sl slot) {
	copy(c.cdb[:], h[32:48])
	n := 16 + copy(c.cdb[16:], q.extended)
	c.slot, c.attribute = sl, q.attribute
	c.scsi = sam.Command{LUN: q.lun, Tag: q.tag, CDB: c.cdb[:n], Ctx: &c.ctx}
	if q.read {
		c.scsi.ExpectIn = q.expected
	} else if q.write {
		c.scsi.ExpectOut = q.expected
	}
}

// reset makes the command ready for its next use.
func (c *command) reset() {
	c.ctx.reset()
	c.scsi = sam.Command{}
	c.xfer = transfer{}
	c.job, c.ended, c.data, c.charged, c.whole = nil, false, nil, 0, false
	c.attribute, c.turn = untagged, nil
	c.parked, c.aborted, c.tell, c.fences = false, false, false, c.fences[:0]
}

// fail ends the command with CHECK CONDITION, unless it has ended before.
func (c *command) fail(s sense) {
	if c.ended {
		return
	}
	c.end(sam.CheckCondition, s)
}

// end sets an outcome without data.
func (c *command) end(status sam.Status, s sense) {
	c.ended = true
	c.scsi.Status, c.scsi.Sense = status, s
	c.scsi.InLen, c.scsi.Needed = 0, 0
}

// run lets a worker do the command's present job.
func (c *command) run() { c.job(c.s, c) }

// residual is by how much the command differs from what was expected of it
// (RFC 7143 section 11.4.5). A read that gave less than it should is short by
// what was not sent.
func (c *command) residual() residual {
	expected, moved := c.scsi.ExpectOut, c.scsi.Needed
	if c.scsi.ExpectIn > 0 {
		expected = c.scsi.ExpectIn
		if moved <= expected {
			moved = c.scsi.InLen
		}
	}
	switch {
	case moved > expected:
		return residual{over: true, count: moved - expected}
	case moved < expected:
		return residual{under: true, count: expected - moved}
	}
	return residual{}
}

// emit writes the command's Data-In and its status: in the last Data-In where
// that is allowed, else in a response of its own.
func (c *command) emit(w *writer) {
	w.seq.release(c.slot)
	good := c.scsi.Status == sam.Good && len(c.scsi.Sense) == 0
	sent := c.emitData(w, good)
	if !good || sent == 0 {
		c.emitStatus(w, sent)
	}
	w.finished = append(w.finished, c)
}

// size is for the queue.
func (c *command) size() (pdus, bytes int) {
	n := int(c.scsi.InLen)
	return 2 + n/int(c.s.writer.maxSend.Load()) + n/int(c.s.params.maxBurst), n
}

// emitData cuts In into Data-In and returns their number.
func (c *command) emitData(w *writer, withStatus bool) (sent uint32) {
	if int(c.scsi.InLen) > len(c.scsi.In) {
		panic(fmt.Sprintf("device says %d bytes of a buffer of %d are data", c.scsi.InLen, len(c.scsi.In)))
	}
	data := c.scsi.In[:c.scsi.InLen]
	d := dataIn{tag: c.scsi.Tag, status: byte(c.scsi.Status), residual: c.residual()}
	maxBurst, burst := c.s.params.maxBurst, uint32(0)
	for len(data) > 0 {
		n := min(uint32(len(data)), w.maxSend.Load(), maxBurst-burst)
		burst += n
		d.length = int(n)
		d.last = withStatus && int(n) == len(data)
		d.final = int(n) == len(data) || burst == maxBurst
		d.put(&w.header)
		w.put(data[:n], d.last)
		if d.final {
			burst = 0
		}
		data = data[n:]
		d.offset += n
		d.dataSN++
	}
	return d.dataSN
}

func (c *command) emitStatus(w *writer, sent uint32) {
	r := scsiResponse{tag: c.scsi.Tag, status: byte(c.scsi.Status), expDataSN: sent, residual: c.residual()}
	if n := copy(c.sense[2:], c.scsi.Sense); n > 0 {
		binary.BigEndian.PutUint16(c.sense[:], uint16(n))
		r.senseSize = 2 + n
	}
	r.put(&w.header)
	w.put(c.sense[:r.senseSize], true)
}

// taskContext is the context of a command. It is part of the command, so that
// a command costs no allocation; only one that was aborted needs a new channel.
type taskContext struct {
	done  chan struct{}
	ended atomic.Bool
}

func (x *taskContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (x *taskContext) Done() <-chan struct{}       { return x.done }
func (x *taskContext) Value(any) any               { return nil }

func (x *taskContext) Err() error {
	if x.ended.Load() {
		return context.Canceled
	}
	return nil
}

// end ends the context. It is called once at most between two resets.
func (x *taskContext) end() {
	x.ended.Store(true)
	close(x.done)
}

func (x *taskContext) reset() {
	if x.ended.Load() {
		x.done = make(chan struct{})
		x.ended.Store(false)
	}
}
