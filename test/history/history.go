// Package history tells whether a LUN behaves like one copy: it lets clients read
// and write a few blocks at random, notes when each operation began and ended and
// what it returned, and has porcupine look for an order that explains it all
// (linearizability, per block of 4 KiB).
//
// Every block written holds 128 stamps of 32 bytes, little endian, so that a read
// tells which write it sees, and whether it sees one whole write:
//
//	offset size
//	     0    4  "TWLH"
//	     4    2  client
//	     6    2  number of the stamp in its block
//	     8    8  sequence number of the write, per client, from 1
//	    16    8  number of the block
//	    24    4  run
//	    28    4  CRC-32C of the bytes before
//
// An operation whose outcome is not known (an error, or no answer before the end)
// may have happened. Such a read says nothing and is left out. Such a write may
// take effect at any later time, once. A client that repeats writes by itself
// (see Repeater) makes a write per try, and all but the last may have happened,
// while they lasted.
//
// A write of several blocks is one write per block, with the same interval:
// SCSI promises nothing about their order.
//
// A swap (COMPARE AND WRITE) of one block puts a value in the place of the one that it
// expects, at one moment, or finds that something else is there.
package history

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Op is one operation on one block.
//
// Call and Return are ticks of one counter for all clients, which orders them as
// the clock would, but never has two events at the same time: an operation that
// ended before another began has the smaller tick, and one tick stands for one
// event.
type Op struct {
	Client int
	Block  int64
	Write  bool
	Value  Value // written, or seen
	// Swap is a compare-and-write: if it is a Write, Expect was there and Value has taken
	// its place. If not, something else than Expect was there.
	Swap   bool
	Expect Value
	Call   int64
	Return int64 // Open if it never returned

	// Maybe is a write whose effect is not known: it happened between Call and
	// Return, or not at all. A swap does nothing either if something else was there.
	Maybe bool

	// For people: time since the start of the recording.
	From, To time.Duration
	Err      error // why it is Maybe
}

// Open is the Return of an operation that is not known to be over.
const Open = int64(1) << 62

// Recorder collects operations. Its methods may be called concurrently.
type Recorder struct {
	now   func() time.Time
	start time.Time
	tick  atomic.Int64

	mu  sync.Mutex
	ops []Op
	bad []error
}

// NewRecorder starts a recording. The clock is for people only.
func NewRecorder(now func() time.Time) *Recorder {
	return &Recorder{now: now, start: now()}
}

// begin stamps the start of an operation, before it is called.
func (r *Recorder) begin() (int64, time.Duration) {
	return r.tick.Add(1), r.now().Sub(r.start)
}

// end stamps the end of one, after it has returned.
func (r *Recorder) end() (int64, time.Duration) {
	return r.tick.Add(1), r.now().Sub(r.start)
}

func (r *Recorder) add(ops ...Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, ops...)
}

// blame notes content that no order of operations explains.
func (r *Recorder) blame(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bad = append(r.bad, err)
}

// Ops is what was recorded so far, by Call.
func (r *Recorder) Ops() []Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	ops := slices.Clone(r.ops)
	slices.SortStableFunc(ops, func(a, b Op) int { return int(a.Call - b.Call) })
	return ops
}

// Bad is what was read and cannot have been written: the errors of Parse, in the
// order of the reads.
func (r *Recorder) Bad() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.bad)
}
