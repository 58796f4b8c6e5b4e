package emulator

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// slabSize is the unit of a pipe's memory, in bytes: small reads share a slab,
// large ones take two or three to fill it.
const slabSize = 256 << 10

// minRead is the least room that is worth a read, in bytes.
const minRead = 16 << 10

// late is by how much a runtime timer may be late; the rest is the alarm's.
const late = 1500 * time.Microsecond

// maxPieces bounds how many pieces are written at once.
const maxPieces = 64

// pipe is one direction of one connection: what is on its way. fill puts it in
// at the near end, drain takes it out at the far end when it is due.
type pipe struct {
	c         *conn
	lane      *lane
	connected atomic.Bool
	more      chan struct{} // for drain: there is something new
	room      chan struct{} // for fill: there is room again

	// fill's.
	slab []byte // room that is left in the present slab
	base *[slabSize]byte

	mu      sync.Mutex
	queue   []piece // in the order of their coming
	bytes   int64
	dropped bool // nothing is wanted any longer
}

// piece is a run of bytes, or the stream's end.
type piece struct {
	data []byte
	due  time.Time
	slab *[slabSize]byte // to be given back after this piece; nil: not yet
	end  error           // not nil: io.EOF or what broke the stream
}

func newPipe(c *conn, d Direction) *pipe {
	return &pipe{c: c, lane: c.line.lanes[d], more: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// fill reads from src, at the lane's pace, until it ends. It is one goroutine.
// What a frozen connection still gets is thrown away.
func (p *pipe) fill(src net.Conn) {
	for {
		p.await()
		n, err := src.Read(p.space())
		if n > 0 {
			p.pause(p.push(n))
		}
		if err != nil {
			p.pushEnd(err)
			return
		}
	}
}

// await returns when the next bytes may come in. Before the far end is connected,
// some are taken in even if the lane is cut: that shows when the near end goes.
func (p *pipe) await() {
	if p.connected.Load() {
		p.lane.whole(p.c.live)
	}
	for !p.hasRoom() {
		select {
		case <-p.room:
		case <-p.c.live.Done():
			return
		}
	}
}

func (p *pipe) hasRoom() bool {
	bound := int64(minBound)
	if p.connected.Load() {
		bound = p.lane.state().bound()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dropped || p.bytes < bound
}

// space is where the next read goes: at most the connection's turn.
func (p *pipe) space() []byte {
	turn := p.lane.state().turn()
	if len(p.slab) < min(turn, minRead) {
		p.retire()
		p.base = p.c.line.slabs.Get().(*[slabSize]byte)
		p.slab = p.base[:]
	}
	return p.slab[:min(turn, len(p.slab))]
}

// retire lets the present slab go back behind the last piece that is in it.
func (p *pipe) retire() {
	if p.base != nil {
		p.append(piece{slab: p.base})
		p.base, p.slab = nil, nil
	}
}

// push sends the n bytes that were read on their way, and returns when they
// have left the near end.
func (p *pipe) push(n int) (left time.Time) {
	data := p.slab[:n:n]
	p.slab = p.slab[n:]
	p.lane.damage(data)
	left, due := p.lane.enter(n)
	p.append(piece{data: data, due: due})
	return left
}

func (p *pipe) pushEnd(err error) {
	p.retire()
	_, due := p.lane.enter(0)
	p.append(piece{due: due, end: err})
}

// pause keeps a connection from reading further ahead than slack.
func (p *pipe) pause(left time.Time) {
	if d := time.Until(left) - slack; d > 0 {
		sleep(p.c.live, d)
	}
}

func (p *pipe) append(pc piece) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dropped || p.c.live.Err() != nil {
		return // its slab may be in use by a write that has not ended yet
	}
	p.queue = append(p.queue, pc)
	p.bytes += int64(len(pc.data))
	p.lane.queued.Add(int64(len(pc.data)))
	rouse(p.more)
}

func rouse(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// drain writes what is due to dst until the stream ends, or nothing passes any
// longer. It is one goroutine.
func (p *pipe) drain(dst net.Conn) {
	defer p.drop()
	a, err := newAlarm()
	if err != nil {
		p.c.line.cfg.Log.Warn("link emulator: connection is reset", "error", err)
		p.c.close(true)
		return
	}
	defer a.close()
	for {
		pieces := p.take(a)
		if pieces == nil {
			return
		}
		err := p.write(dst, pieces)
		if err == nil {
			err = pieces[len(pieces)-1].end
		}
		if err != nil {
			p.finish(dst, err)
			return
		}
	}
}

// write hands the pieces' bytes to the socket, and gives their slabs back.
func (p *pipe) write(dst net.Conn, pieces []piece) error {
	var out net.Buffers
	total := int64(0)
	for _, pc := range pieces {
		if len(pc.data) > 0 {
			out = append(out, pc.data)
			total += int64(len(pc.data))
		}
	}
	p.lane.bytes.Add(uint64(total)) // before: whoever has read them finds them counted
	n, err := out.WriteTo(dst)
	p.lane.bytes.Add(uint64(n - total)) // what did not get out did not leave
	for _, pc := range pieces {
		if pc.slab != nil {
			p.c.line.slabs.Put(pc.slab)
		}
	}
	return err
}

// finish tells dst that the other end has closed, or has gone; an error of dst
// itself travels back on the other lane.
func (p *pipe) finish(dst net.Conn, err error) {
	if errors.Is(err, io.EOF) {
		if half, ok := dst.(*net.TCPConn); ok {
			half.CloseWrite()
		}
		return
	}
	back := p.c.line.lanes[1-p.lane.direction]
	if op := new(net.OpError); errors.As(err, &op) && op.Op != "read" && back.whole(p.c.live) {
		sleep(p.c.live, back.state().Delay)
	}
	if p.c.live.Err() == nil {
		p.c.close(true)
	}
}

// take waits for what is due, and takes it. nil: nothing passes any longer.
func (p *pipe) take(a *alarm) []piece {
	for p.c.live.Err() == nil {
		due, ok := p.first()
		switch d := time.Until(due); {
		case !ok:
			select {
			case <-p.more:
			case <-p.c.live.Done():
			}
		case d > late:
			sleep(p.c.live, d-late)
		case d > 0:
			a.wait(d) // if it fails, this loop is the clock
		case p.lane.whole(p.c.live):
			return p.takeDue()
		}
	}
	return nil
}

func (p *pipe) first() (due time.Time, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return due, false
	}
	return p.queue[0].due, true
}

func (p *pipe) takeDue() []piece {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, n := time.Now(), 0
	for n < len(p.queue) && n < maxPieces && !p.queue[n].due.After(now) {
		n++
	}
	pieces := append([]piece(nil), p.queue[:n]...)
	p.removeLocked(n)
	return pieces
}

func (p *pipe) removeLocked(n int) {
	for _, pc := range p.queue[:n] {
		p.bytes -= int64(len(pc.data))
		p.lane.queued.Add(-int64(len(pc.data)))
	}
	left := copy(p.queue, p.queue[n:])
	clear(p.queue[left:])
	p.queue = p.queue[:left]
	rouse(p.room)
}

// drop throws away what is on its way, and what will come.
func (p *pipe) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropped = true
	p.removeLocked(len(p.queue))
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
