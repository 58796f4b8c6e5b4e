package replication

import (
	"context"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/twinlun/twinlun/replication/wire"
)

// linkWait is how long a test waits for what must happen: long, as nothing
// depends on it but how a failure looks.
const linkWait = 30 * time.Second

// linkRecord is a handler that tells what it is called with, and checks the
// promises of LinkHandler.
type linkRecord struct {
	t   *testing.T
	up  chan LinkConn
	end chan error

	control func(c LinkConn, lun uint32, m wire.Message)             // nil: ignored
	bulk    func(c LinkConn, stream int, lun uint32, m wire.Message) // nil: ignored

	mu      sync.Mutex
	conn    LinkConn
	running map[int]bool // streams with a call in progress; -1: control
}

func newLinkRecord(t *testing.T) *linkRecord {
	return &linkRecord{t: t, up: make(chan LinkConn, 1000), end: make(chan error, 1000), running: make(map[int]bool)}
}

func (r *linkRecord) Up(c LinkConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != nil {
		r.t.Error("Up while a connection is up")
	}
	r.conn = c
	r.up <- c
}

func (r *linkRecord) Down(c LinkConn, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != c || len(r.running) > 0 {
		r.t.Errorf("Down of %p while %p is up and %d calls are running", c, r.conn, len(r.running))
	}
	if c.Context().Err() == nil || context.Cause(c.Context()) != err {
		r.t.Errorf("Down with %v, but the context ended with %v", err, context.Cause(c.Context()))
	}
	r.conn = nil
	r.end <- err
}

func (r *linkRecord) Control(c LinkConn, lun uint32, m wire.Message) {
	defer r.enter(c, -1)()
	if r.control != nil {
		r.control(c, lun, m)
	}
}

func (r *linkRecord) Bulk(c LinkConn, stream int, lun uint32, m wire.Message) {
	defer r.enter(c, stream)()
	if r.bulk != nil {
		r.bulk(c, stream, lun, m)
	}
}

func (r *linkRecord) enter(c LinkConn, stream int) (leave func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != c || r.running[stream] {
		r.t.Errorf("stream %d: call for %p while %p is up, another one running: %v", stream, c, r.conn, r.running[stream])
	}
	r.running[stream] = true
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.running, stream)
	}
}

func (r *linkRecord) awaitUp() LinkConn {
	r.t.Helper()
	return linkAwait(r.t, r.up, "the link to come up")
}
func (r *linkRecord) awaitDown() error {
	r.t.Helper()
	return linkAwait(r.t, r.end, "the link to go down")
}

func linkAwait[T any](t *testing.T, from <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(linkWait):
		t.Fatalf("waited %v for %s", linkWait, what)
	}
	return v
}

// linkNode is a running Link.
type linkNode struct {
	*linkRecord
	link *Link
	stop func() error // ends Run and returns its error
}

func linkListen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// startLink runs one node with short times; change adapts its configuration.
func startLink(t *testing.T, cfg LinkConfig, h *linkRecord) *linkNode {
	t.Helper()
	setDefault(&cfg.Token, LinkToken("test"))
	setDefault(&cfg.BackoffMin, 5*time.Millisecond)
	setDefault(&cfg.BackoffMax, 50*time.Millisecond)
	setDefault(&cfg.Heartbeat, 50*time.Millisecond)
	setDefault(&cfg.Dead, linkWait) // a test machine may be slow; tests of silence set less
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	l, err := NewLink(cfg, h)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	n := &linkNode{linkRecord: h, link: l}
	n.stop = sync.OnceValue(func() error {
		cancel(ErrLinkClosed)
		return linkAwait(t, done, "Run to end")
	})
	t.Cleanup(func() { n.stop() })
	return n
}

// startPair runs node a, which dials, and node b, directly joined.
func startPair(t *testing.T, a, b *linkRecord, change func(cfg *LinkConfig)) (nodeA, nodeB *linkNode) {
	t.Helper()
	ln := linkListen(t)
	return startPairAt(t, a, b, ln, ln.Addr().String(), change)
}

// startPairAt lets a dial an address that leads to b's listener.
func startPairAt(t *testing.T, a, b *linkRecord, ln net.Listener, address string, change func(cfg *LinkConfig)) (nodeA, nodeB *linkNode) {
	t.Helper()
	cfgA := LinkConfig{Self: "a", Peer: "b", Address: address}
	cfgB := LinkConfig{Self: "b", Peer: "a", Listener: ln}
	if change != nil {
		change(&cfgA)
		change(&cfgB)
	}
	return startLink(t, cfgA, a), startLink(t, cfgB, b)
}

// checkLeaks lets a test fail that leaves goroutines behind. It comes first in a
// test, so that it looks after everything was stopped.
func checkLeaks(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for until := time.Now().Add(linkWait); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
			if time.Now().After(until) {
				buf := make([]byte, 1<<20)
				t.Fatalf("%d goroutines, %d before the test:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
			}
		}
	})
}
