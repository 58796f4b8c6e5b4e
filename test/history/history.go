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
// while they lasted. One with several ways to the LUN (see Straggler) makes a write per
// try as well, but one that got no answer may happen until it is known to be over, while
// the next ones are under way and after they were answered.
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

// pending is one operation that was recorded before it has ended: where its blocks are in
// Recorder.ops.
type pending struct{ first, n int }

// open records an operation on n blocks from its beginning, as one that may have happened.
func (r *Recorder) open(op Op, first, n int64) pending {
	op.Call, op.From = r.begin()
	op.Return, op.Maybe = Open, true
	r.mu.Lock()
	defer r.mu.Unlock()
	p := pending{len(r.ops), int(n)}
	for i := range n {
		op.Block = first + i
		r.ops = append(r.ops, op)
	}
	return p
}

// close says that it has had what effect it has; the second time, it says nothing.
func (r *Recorder) close(p pending, why error) {
	r.settle(p, func(op *Op) { op.Err = why })
}

// settle is close, with what became known of it.
func (r *Recorder) settle(p pending, known func(op *Op)) {
	ret, to := r.end()
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range p.n {
		if op := &r.ops[p.first+i]; op.Return == Open {
			op.Return, op.To = ret, to
			known(op)
		}
	}
}

// excuse says why it is not known what became of it, or ever will be.
func (r *Recorder) excuse(p pending, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range p.n {
		r.ops[p.first+i].Err = err
	}
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
