package replication

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/dirtymap/mapfile"
	"github.com/twinlun/twinlun/replication/coherence"
	"github.com/twinlun/twinlun/replication/wire"
	"github.com/twinlun/twinlun/task"
)

const (
	// joinPiece is the largest JoinMap: heartbeats and other LUNs get their turn
	// between two of them.
	joinPiece = 1 << 20
	// maxPlanesWaiting is how much of the peer's planes waits to be unpacked before
	// the control stream holds back.
	maxPlanesWaiting = 4 << 20
)

// sendPlanesLocked starts the task that sends the planes over the present
// connection.
func (r *Replica) sendPlanesLocked() {
	if c := r.conn; c != nil {
		r.pacing.run("planes out", func() { r.sendPlanes(c) })
	}
}

// sendPlanes is that task. It needs no lock: nothing changes the map until the
// peer has answered the planes. What goes into a connection that is broken
// meanwhile is dropped there.
func (r *Replica) sendPlanes(c LinkConn) {
	w := &planesOut{conn: c, lun: r.cfg.Number}
	err := mapfile.WritePlanes(w, r.cfg.identity(), r.m.Runs(r.m.All(), dirtymap.Durable))
	if err == nil {
		w.send(true)
	}
}

// planesOut cuts planes into JoinMap messages.
type planesOut struct {
	conn LinkConn
	lun  uint32
	buf  []byte
}

func (w *planesOut) Write(p []byte) (int, error) {
	if err := context.Cause(w.conn.Context()); err != nil {
		return 0, err
	}
	n := len(p)
	for len(p) > 0 {
		k := min(len(p), joinPiece-len(w.buf))
		w.buf = append(w.buf, p[:k]...)
		if p = p[k:]; len(w.buf) == joinPiece {
			w.send(false)
		}
	}
	return n, nil
}

func (w *planesOut) send(last bool) {
	w.conn.SendControl(w.lun, &wire.JoinMap{Last: last, Data: w.buf})
	w.buf = nil
}

// planesIn has the peer's planes between the control stream's reader, which calls
// push, and the task that unpacks them.
type planesIn struct {
	r    *Replica
	conn LinkConn
	data task.Signal // for the task
	room task.Signal // for the control stream's reader

	// Under r.mu.
	waiting bytes.Buffer
	last    bool
	ended   bool // the task has
}

// receivePlanes takes a piece of the peer's planes. It returns when there is room
// for the next one, and for the last one when all are with the engine: what the
// peer sends behind them must find them there.
func (r *Replica) receivePlanes(c LinkConn, m *wire.JoinMap) {
	p := r.planesFor(c)
	if p == nil {
		return
	}
	if !p.push(m) {
		c.Close(fmt.Errorf("LUN %d: more planes came behind the last ones", r.cfg.Number))
		return
	}
	for p.full(m.Last) {
		if p.room.Wait(c.Context()) != nil {
			return
		}
	}
}

// planesFor is the connection's planesIn; nil: the connection is gone.
func (r *Replica) planesFor(c LinkConn) *planesIn {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != c {
		return nil
	}
	if r.planes == nil {
		p := &planesIn{r: r, conn: c, data: r.run.NewSignal(), room: r.run.NewSignal()}
		r.planes = p
		r.pacing.run("planes in", p.work)
	}
	return r.planes
}

func (p *planesIn) push(m *wire.JoinMap) bool {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	if p.last {
		return false
	}
	p.waiting.Write(m.Data)
	p.last = m.Last
	p.data.Set()
	return true
}

func (p *planesIn) full(last bool) bool {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	return !p.ended && (last || p.waiting.Len() > maxPlanesWaiting)
}

// work unpacks the planes and gives them to the engine. It ends with them, or with
// the connection.
func (p *planesIn) work() {
	err := mapfile.ReadPlanes(p, p.r.cfg.identity(), func(extents dirtymap.Range, states []dirtymap.State) error {
		p.r.received(p.conn, coherence.PeerStates{Extents: extents, States: states})
		return context.Cause(p.conn.Context())
	})
	if err != nil {
		p.conn.Close(fmt.Errorf("LUN %d: %w", p.r.cfg.Number, err))
	}
	p.r.mu.Lock()
	p.ended = true
	p.r.mu.Unlock()
	p.room.Set()
}

// Read is for ReadPlanes. It waits for data.
func (p *planesIn) Read(b []byte) (int, error) {
	for {
		n, last := p.pull(b)
		switch {
		case n > 0 || len(b) == 0:
			p.room.Set()
			return n, nil
		case last:
			return 0, io.EOF
		}
		if err := p.data.Wait(p.conn.Context()); err != nil {
			return 0, err
		}
	}
}

func (p *planesIn) pull(b []byte) (int, bool) {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	n, _ := p.waiting.Read(b)
	return n, p.last
}
