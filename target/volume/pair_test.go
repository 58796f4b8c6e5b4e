package volume

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication"
	"github.com/twinlun/twinlun/replication/salvage"
	"github.com/twinlun/twinlun/replication/wire"
	"github.com/twinlun/twinlun/task"
)

// memory is a backing.Store. fail, if set, is what every access returns.
type memory struct {
	mu    sync.Mutex
	data  []byte
	fail  error
	syncs int
}

func (m *memory) do(f func()) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail == nil {
		f()
	}
	return m.fail
}

func (m *memory) ReadAt(p []byte, off int64) error  { return m.do(func() { copy(p, m.data[off:]) }) }
func (m *memory) WriteAt(p []byte, off int64) error { return m.do(func() { copy(m.data[off:], p) }) }
func (m *memory) Zero(off, n int64) error           { return m.do(func() { clear(m.data[off : off+n]) }) }
func (m *memory) Sync() error                       { return m.do(func() { m.syncs++ }) }
func (m *memory) Size() int64                       { return int64(len(m.data)) }
func (m *memory) Close() error                      { return nil }

func (m *memory) setFail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

// mapMemory is a mapfile.File.
type mapMemory struct {
	mu   sync.Mutex
	data []byte
}

func (f *mapMemory) ReadAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *mapMemory) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if end := off + int64(len(p)); end > int64(len(f.data)) {
		f.data = append(f.data, make([]byte, end-int64(len(f.data)))...)
	}
	return copy(f.data[off:], p), nil
}

func (f *mapMemory) Truncate(size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.data = append(f.data, make([]byte, max(0, size-int64(len(f.data))))...)[:size]
	return nil
}

func (f *mapMemory) Size() (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int64(len(f.data)), nil
}

func (f *mapMemory) Sync() error  { return nil }
func (f *mapMemory) Close() error { return nil }

// conn is one side of a link in memory: a replication.LinkConn.
type conn struct {
	ctx   context.Context
	close context.CancelCauseFunc
	lanes []chan parcel // to the peer: control, bulk
	lacks uint32        // features that one of the two does not have
}

type parcel struct {
	lun uint32
	m   wire.Message
}

func (c *conn) send(lane int, p parcel) {
	select {
	case c.lanes[lane] <- p:
	case <-c.ctx.Done():
	}
}

func (c *conn) SendControl(lun uint32, m wire.Message)     { c.send(0, parcel{lun, m}) }
func (c *conn) SendBulk(s int, lun uint32, m wire.Message) { c.send(1+s, parcel{lun, m}) }
func (c *conn) Streams() int                               { return len(c.lanes) - 1 }
func (c *conn) Peer() string                               { return "peer" }
func (c *conn) Close(reason error)                         { c.close(reason) }
func (c *conn) Features() uint32                           { return (wire.FeatureTell | wire.FeatureVerify) &^ c.lacks }
func (c *conn) RTT() time.Duration                         { return 0 }
func (c *conn) Context() context.Context                   { return c.ctx }

// journalMemory is a journal.File. writes, if set, is told of each write.
type journalMemory struct {
	mapMemory
	writes func()
}

func (f *journalMemory) WriteAt(p []byte, off int64) (int, error) {
	if f.writes != nil {
		f.writes()
	}
	return f.mapMemory.WriteAt(p, off)
}

// side is one of two joined nodes.
type side struct {
	store   *memory
	mapFile *mapMemory
	journal *journalMemory
	rep     *replication.Replica
	node    *replication.Node
	vol     *Volume
	saved   salvaged
}

// pair joins two nodes over a link in memory, and ends with the test.
type pair struct {
	sides [2]*side
	cut   func()
	lacks uint32 // as conn's, of the next connection
}

var geometry = dirtymap.Geometry{Size: 1<<20 - 8192, ExtentSize: 64 << 10}

func newPair(t testing.TB) *pair { return newPairRate(t, 0) }

// newPairRate limits the rate of copying, in bytes per second.
func newPairRate(t testing.TB, rate int64) *pair {
	t.Helper()
	p := &pair{}
	for i := range p.sides {
		p.sides[i] = newSide(t, i, rate)
	}
	p.connect(t)
	return p
}

func newSide(t testing.TB, i int, rate int64) *side {
	t.Helper()
	return newLUN(t, i, replication.NewNode(slog.New(slog.DiscardHandler)), 0, rate)
}

// newLUN gives a node a LUN.
func newLUN(t testing.TB, i int, node *replication.Node, number uint32, rate int64) *side {
	t.Helper()
	s := &side{store: &memory{data: make([]byte, geometry.Size)}, mapFile: &mapMemory{}, journal: &journalMemory{}, node: node}
	rep, err := replication.OpenReplica(replication.ReplicaConfig{
		Number: number, UUID: [16]byte{1, byte(number)}, Preferred: i == 0,
		Geometry: geometry, Store: s.store, MapFile: s.mapFile, Journal: s.journal, Blank: true,
		Boot: [16]byte{1}, Proposal: [16]byte{byte(1 + i)}, CopyRate: rate,
		Salvage: func(uint64) (salvage.File, error) { return &s.saved, nil }, Place: "here",
		Runtime: task.System, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.rep, s.vol = rep, New(rep)
	if err := node.Add(rep); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		node.Remove(rep)
		if err := rep.Close(); err != nil && s.store.fail == nil {
			t.Error(err)
		}
	})
	return s
}

// connect joins the two. The link goes down with p.cut, or at the end of the test.
func (p *pair) connect(t testing.TB) {
	ctx, cancel := context.WithCancelCause(context.Background())
	var ends [2]*conn
	for i := range ends {
		ends[i] = &conn{ctx: ctx, close: cancel, lacks: p.lacks}
		for range 3 {
			ends[i].lanes = append(ends[i].lanes, make(chan parcel, 1<<16))
		}
	}
	var running sync.WaitGroup
	for i, s := range p.sides {
		running.Go(func() { s.lead(ends[i], ends[1-i].lanes) })
	}
	p.cut = func() {
		cancel(errors.New("cut by the test"))
		running.Wait()
	}
	t.Cleanup(p.cut)
}

// lead takes one side of a connection from Up to Down.
func (s *side) lead(c *conn, in []chan parcel) {
	s.node.Up(c)
	var running sync.WaitGroup
	for i, lane := range in {
		running.Go(func() {
			for {
				select {
				case m := <-lane:
					if i == 0 {
						s.node.Control(c, m.lun, m.m)
					} else {
						s.node.Bulk(c, i-1, m.lun, m.m)
					}
				case <-c.ctx.Done():
					return
				}
			}
		})
	}
	running.Wait()
	s.node.Down(c, context.Cause(c.ctx))
}
