package replication

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/wire"
)

// Messages arrive in the order of the calls, on every stream, in both directions,
// with and without compression.
func TestLinkKeepsOrder(t *testing.T) { onEveryWay(t, testLinkKeepsOrder) }

func testLinkKeepsOrder(t *testing.T, change func(cfg *LinkConfig)) {
	for _, compress := range []bool{false, true} {
		const n = 3000
		a, b := newLinkRecord(t), newLinkRecord(t)
		doneA, doneB := expectInOrder(a, n), expectInOrder(b, n)
		nodeA, nodeB := startPair(t, a, b, changes(change, func(cfg *LinkConfig) { cfg.Compress = compress }))
		for _, r := range []*linkRecord{a, b} {
			c := r.awaitUp()
			go func() {
				for i := range uint64(n) {
					c.SendControl(uint32(i%7), &wire.JoinDone{Join: i})
					for s := range c.Streams() {
						c.SendBulk(s, uint32(i%7), testCopy(i, s))
					}
				}
			}()
		}
		for range 3 {
			linkAwait(t, doneA, "messages at a")
			linkAwait(t, doneB, "messages at b")
		}
		checkCounts(t, nodeA, nodeB, n)
		nodeA.stop()
		nodeB.stop()
	}
}

func checkCounts(t *testing.T, a, b *linkNode, n uint64) {
	t.Helper()
	sent, received := a.link.Stats(), b.link.Stats()
	for _, k := range []wire.Kind{wire.KindJoinDone, wire.KindCopy} {
		if sent.Sent[k] != received.Received[k] || sent.Sent[k].Frames%n != 0 || sent.Sent[k].Frames == 0 {
			t.Errorf("%v: a sent %+v, b received %+v", k, sent.Sent[k], received.Received[k])
		}
	}
}

// testCopy has a block, now and then, that shows which message it is from.
func testCopy(seq uint64, stream int) *wire.Copy {
	m := &wire.Copy{Seq: seq}
	if seq%5 == 0 {
		data := make([]byte, dirtymap.BlockSize)
		data[0], data[len(data)-1] = byte(seq), byte(stream)
		m.Items = []wire.Blocks{{Extent: seq, Present: dirtymap.MaskOf(3, 2), Zero: dirtymap.MaskOf(4, 1), Data: data}}
	}
	return m
}

// expectInOrder checks n messages per stream, and then reports each stream once.
func expectInOrder(r *linkRecord, n uint64) (done chan int) {
	done = make(chan int, 3)
	var control uint64
	bulk := make([]uint64, 2)
	count := func(next *uint64, got uint64, lun uint32) {
		if got != *next || lun != uint32(got%7) {
			r.t.Errorf("message %d for LUN %d instead of %d", got, lun, *next)
		}
		if *next++; *next == n {
			done <- 1
		}
	}
	r.control = func(_ LinkConn, lun uint32, m wire.Message) {
		count(&control, m.(*wire.JoinDone).Join, lun)
	}
	r.bulk = func(_ LinkConn, stream int, lun uint32, m wire.Message) {
		got := m.(*wire.Copy)
		for _, it := range got.Items {
			if it.Data[0] != byte(got.Seq) || it.Data[len(it.Data)-1] != byte(stream) {
				r.t.Errorf("copy %d on stream %d came with the data of another", got.Seq, stream)
			}
		}
		count(&bulk[stream], got.Seq, lun)
	}
	return done
}

// What a socket takes at once, what it takes in part, and what waits for the writer
// arrives in order and whole.
func TestLinkSendsBeyondTheSocketsRoom(t *testing.T) {
	onEveryWay(t, testLinkSendsBeyondTheSocketsRoom)
}

func testLinkSendsBeyondTheSocketsRoom(t *testing.T, change func(cfg *LinkConfig)) {
	const n = 600 // of 64 KiB: more than the sockets hold
	a, b := newLinkRecord(t), newLinkRecord(t)
	release, done := make(chan struct{}), make(chan struct{})
	next := uint64(0)
	b.control = func(_ LinkConn, _ uint32, m wire.Message) {
		<-release
		got := m.(*wire.FetchReply)
		if got.ID != next || !bytes.Equal(got.Items[0].Data, testFetched(next)) {
			t.Errorf("reply %d instead of %d, or with other data", got.ID, next)
		}
		if next++; next == n {
			close(done)
		}
	}
	node, _ := startPair(t, a, b, change)
	c := a.awaitUp()
	for i := range uint64(n) {
		c.SendControl(1, &wire.FetchReply{ID: i, Items: []wire.FetchItem{{
			Outcome: wire.FetchedShared,
			Blocks:  wire.Blocks{Extent: i, Present: dirtymap.MaskOf(0, 16), Data: testFetched(i)},
		}}})
	}
	if queued := node.link.Stats().Queued; queued == 0 {
		t.Error("the sockets took everything: the test shows nothing")
	}
	close(release)
	linkAwait(t, done, "all replies")
}

// testFetched is data that shows which reply it is from.
func testFetched(i uint64) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint64(nil, i), 64<<10/8)
}

// Close tells the peer why, and the link comes back.
func TestLinkCloseTellsTheReason(t *testing.T) { onEveryWay(t, testLinkCloseTellsTheReason) }

func testLinkCloseTellsTheReason(t *testing.T, change func(cfg *LinkConfig)) {
	a, b := newLinkRecord(t), newLinkRecord(t)
	startPair(t, a, b, change)
	reason := errors.New("the map files do not fit together")
	conn := a.awaitUp()
	b.awaitUp()
	conn.Close(reason)
	if err := a.awaitDown(); err != reason {
		t.Errorf("a: Down with %v", err)
	}
	refused := new(LinkRefused)
	if err := b.awaitDown(); !errors.As(err, &refused) || refused.Reason != reason.Error() || refused.Peer != "a" {
		t.Errorf("b: Down with %v", err)
	}
	a.awaitUp()
	b.awaitUp()
}

// And while everybody is sending, also behind the end: the farewell does not cut into
// what is being sent.
func TestLinkCloseWhileSending(t *testing.T) { onEveryWay(t, testLinkCloseWhileSending) }

func testLinkCloseWhileSending(t *testing.T, change func(cfg *LinkConfig)) {
	a, b := newLinkRecord(t), newLinkRecord(t)
	startPair(t, a, b, change)
	told, refused := 0, new(LinkRefused)
	for range 30 {
		conn := a.awaitUp()
		var senders sync.WaitGroup
		var stop atomic.Bool
		for _, c := range []LinkConn{conn, conn, b.awaitUp()} {
			senders.Go(func() {
				for !stop.Load() { // also when the connection has ended
					c.SendControl(1, &wire.JoinDone{})
					c.SendBulk(0, 1, &wire.CopyAck{})
				}
			})
		}
		conn.Close(errors.New("enough"))
		a.awaitDown()
		switch err := b.awaitDown(); {
		case errors.As(err, &refused) && refused.Reason == "enough":
			told++
		case errors.Is(err, wire.ErrCorrupt) || strings.Contains(err.Error(), "tls: "):
			t.Errorf("b: Down with %v", err)
		} // else the farewell has taken longer than it may: the machine is busy
		stop.Store(true)
		senders.Wait()
	}
	if told == 0 {
		t.Error("the reason never arrived")
	}
}

// The end of Run is the end of the connection, at both nodes.
func TestLinkRunEnds(t *testing.T) { onEveryWay(t, testLinkRunEnds) }

func testLinkRunEnds(t *testing.T, change func(cfg *LinkConfig)) {
	a, b := newLinkRecord(t), newLinkRecord(t)
	nodeA, nodeB := startPair(t, a, b, change)
	a.awaitUp()
	b.awaitUp()
	if err := nodeB.stop(); !errors.Is(err, ErrLinkClosed) {
		t.Errorf("Run returned %v", err)
	}
	if err := b.awaitDown(); !errors.Is(err, ErrLinkClosed) {
		t.Errorf("b: Down with %v", err)
	}
	if err := a.awaitDown(); !strings.Contains(err.Error(), ErrLinkClosed.Error()) {
		t.Errorf("a: Down with %v", err)
	}
	nodeA.stop()
	if s := nodeA.link.Stats(); s.Up || s.Connections != 1 {
		t.Errorf("afterwards: %+v", s)
	}
}
