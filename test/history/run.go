package history

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/twinlun/twinlun/task"
)

// Client is one user of the LUN. Run calls its methods one at a time. Offsets and
// lengths are in bytes and multiples of BlockSize. Both return when ctx ends.
type Client interface {
	ReadAt(ctx context.Context, p []byte, off int64) error
	WriteAt(ctx context.Context, p []byte, off int64) error
}

// Repeater is a Client that sends a write again when it does not know what became
// of it. It calls again between two tries, at a time when the former one can have
// no effect any more that it has not had yet.
type Repeater interface {
	WriteAtTries(ctx context.Context, p []byte, off int64, again func()) error
}

// Swapper is a Client that can compare and write: it puts a block in the place of another
// one if that is there, and tells whether it was. It calls again as a Repeater does; what
// it tells is of the last try.
type Swapper interface {
	CompareAndWriteTries(ctx context.Context, old, new []byte, off int64, again func()) (done bool, err error)
}

// Straggler is a Client with several ways to the LUN. It sends a write again by another
// way when it does not know what became of it, and what was sent before may be carried
// out still: earlier than the next try, later, even after that was answered. It calls
// sent before each sending, and over, which that returns, when that try can have no
// effect any more that it has not had yet: at any time, from any goroutine, or never. What
// it returns is of the last try, for which it need not call over.
type Straggler interface {
	WriteAtStraggling(ctx context.Context, p []byte, off int64, sent func() (over func())) error
	CompareAndWriteStraggling(ctx context.Context, old, new []byte, off int64, sent func() (over func())) (done bool, err error)
}

// Area is a run of adjacent blocks. One that lies across the border of two
// extents makes the writes of several blocks do so too.
type Area struct{ First, Blocks int64 }

// Workload says what Run does.
type Workload struct {
	Seed  uint64
	Areas []Area
	// Ops is how many operations each client does; 0: until ctx ends.
	Ops int
	// WritePercent of the operations write; default 50.
	WritePercent int
	// SwapPercent of the operations compare and write, if the client is a Swapper;
	// default 0.
	SwapPercent int
	// MultiPercent of the operations are on 2 to 4 adjacent blocks; default 25.
	MultiPercent int
	// Timeout ends an operation, which then may have happened; 0: never.
	Timeout time.Duration
	// Pause is the longest pause between two operations of a client.
	Pause time.Duration
	// Runtime starts the clients; default task.System.
	Runtime task.Runtime
	// FirstClient numbers the clients from there, so that several runs of the same
	// Seed on the same blocks can share a Recorder.
	FirstClient int
}

func (w *Workload) complete(clients int) error {
	if w.WritePercent == 0 {
		w.WritePercent = 50
	}
	if w.MultiPercent == 0 {
		w.MultiPercent = 25
	}
	if w.Runtime == nil {
		w.Runtime = task.System
	}
	if len(w.Areas) == 0 || clients == 0 || w.FirstClient+clients > 1<<16-1 {
		return errors.New("history: a workload needs areas, and from 1 to 65534 clients")
	}
	for _, a := range w.Areas {
		if a.First < 0 || a.Blocks < 1 {
			return fmt.Errorf("history: area %+v", a)
		}
	}
	return nil
}

// RunID is the run number that is stamped into blocks.
func (w *Workload) RunID() uint32 { return uint32(w.Seed) ^ uint32(w.Seed>>32) }

// Run has the clients do the workload, and records it. Before the first run the
// blocks have to be zeros. An operation that fails is recorded and no reason to
// stop. Run returns when all clients are done, or when ctx has ended and the
// operations under way have returned.
func Run(ctx context.Context, rec *Recorder, w Workload, clients []Client) error {
	if err := w.complete(len(clients)); err != nil {
		return err
	}
	var left atomic.Int64
	left.Store(int64(len(clients)))
	all := w.Runtime.NewSignal()
	for i, c := range clients {
		u := newUser(rec, &w, i, c)
		w.Runtime.Go(fmt.Sprintf("history client %d", u.id), func() {
			u.run(ctx)
			if left.Add(-1) == 0 {
				all.Set()
			}
		})
	}
	return all.Wait(context.WithoutCancel(ctx))
}

// user drives one client; its goroutine owns it.
type user struct {
	rec    *Recorder
	w      *Workload
	client Client
	id     int
	rand   *rand.Rand
	seq    uint64
	buf    []byte          // for reads
	known  map[int64]Value // what it has read or written last
}

func newUser(rec *Recorder, w *Workload, i int, c Client) *user {
	id := w.FirstClient + i
	return &user{rec: rec, w: w, client: c, id: id, rand: rand.New(rand.NewPCG(w.Seed, uint64(id))), buf: make([]byte, 4*BlockSize), known: map[int64]Value{}}
}

func (u *user) run(ctx context.Context) {
	for n := 0; (u.w.Ops == 0 || n < u.w.Ops) && ctx.Err() == nil; n++ {
		if u.w.Pause > 0 {
			u.w.Runtime.Sleep(ctx, time.Duration(u.rand.Int64N(int64(u.w.Pause)+1)))
		}
		u.step(ctx)
	}
}

// step does one operation.
func (u *user) step(ctx context.Context) {
	area := u.w.Areas[u.rand.IntN(len(u.w.Areas))]
	n := int64(1)
	if u.rand.IntN(100) < u.w.MultiPercent {
		n = min(2+u.rand.Int64N(3), area.Blocks)
	}
	first := area.First + u.rand.Int64N(area.Blocks-n+1)
	write := u.rand.IntN(100) < u.w.WritePercent
	if u.w.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, u.w.Timeout)
		defer cancel()
	}
	switch {
	case u.swaps() && u.rand.IntN(100) < u.w.SwapPercent:
		u.swap(ctx, first)
	case write:
		u.write(ctx, first, n)
	default:
		u.read(ctx, first, n)
	}
}

// swaps tells whether the client can compare and write.
func (u *user) swaps() bool {
	switch u.client.(type) {
	case Swapper, Straggler:
		return true
	}
	return false
}

// swap records every try of a compare-and-write. It mostly looks first what is there, as
// hosts do; else it expects what may be long gone.
func (u *user) swap(ctx context.Context, block int64) {
	if u.rand.IntN(4) > 0 {
		u.read(ctx, block, 1)
	}
	expect := u.known[block]
	v := u.next()
	old, put := make([]byte, BlockSize), make([]byte, BlockSize)
	if expect != (Value{}) {
		Fill(old, u.w.RunID(), block, expect)
	}
	Fill(put, u.w.RunID(), block, v)
	t := &tries{user: u, op: Op{Client: u.id, Write: true, Value: v, Swap: true, Expect: expect}, first: block, n: 1}
	done, err := t.swapBy(ctx, old, put)
	if err == nil && !done {
		t.miss()
		return
	}
	t.last(err)
	u.known[block] = v
}

// next is the value of another write.
func (u *user) next() Value {
	u.seq++
	return Value{uint16(u.id + 1), u.seq} // no client is 0: that are zeros
}

// read records what a read saw, unless it failed.
func (u *user) read(ctx context.Context, first, n int64) {
	p := u.buf[:n*BlockSize]
	for i := range p {
		p[i] = 0xdb // what a read does not fill is no zero and no stamp
	}
	call, from := u.rec.begin()
	err := u.client.ReadAt(ctx, p, first*BlockSize)
	ret, to := u.rec.end()
	if err != nil {
		u.buf = make([]byte, len(u.buf)) // the old one may be written to still
		return
	}
	for i := range n {
		block := first + i
		v, err := Parse(p[i*BlockSize:(i+1)*BlockSize], u.w.RunID(), block)
		if err != nil {
			u.rec.blame(fmt.Errorf("client %d, read from %v to %v: %w", u.id, from, to, err))
			continue
		}
		u.rec.add(Op{Client: u.id, Block: block, Value: v, Call: call, Return: ret, From: from, To: to})
		u.known[block] = v
	}
}

// write records every try of a write. A buffer of its own, since a client that
// has given up may have somebody read from it still.
func (u *user) write(ctx context.Context, first, n int64) {
	v := u.next()
	p := make([]byte, n*BlockSize)
	for i := range n {
		Fill(p[i*BlockSize:(i+1)*BlockSize], u.w.RunID(), first+i, v)
		u.known[first+i] = v
	}
	t := &tries{user: u, op: Op{Client: u.id, Write: true, Value: v}, first: first, n: n}
	t.last(t.writeBy(ctx, p))
}
