package replication

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twinlun/twinlun/replication/wire"
)

// echo is a Twin that answers topic 1 with what it heard, and is slow with topic 2, or
// as long as the connection lasts.
type echo struct {
	joined chan struct{}
	asked  chan struct{}
	slow   chan struct{} // closed by hurry: topic 2 is answered
	hurry  func()
	gone   chan error // why topic 2 was given up
}

func newEcho() *echo {
	slow := make(chan struct{})
	return &echo{
		joined: make(chan struct{}, 100), asked: make(chan struct{}, 100), gone: make(chan error, 100),
		slow: slow, hurry: sync.OnceFunc(func() { close(slow) }),
	}
}

func (e *echo) Joined(context.Context) { e.joined <- struct{}{} }

func (e *echo) Heard(ctx context.Context, topic uint16, body []byte) ([]byte, bool) {
	switch topic {
	case 1:
		return append([]byte("heard "), body...), true
	case 2:
		e.asked <- struct{}{}
		select {
		case <-e.slow:
		case <-ctx.Done():
			e.gone <- context.Cause(ctx)
		}
		return nil, true
	}
	return nil, false
}

// tellers are two replicas of a LUN, joined over a real link.
type tellers struct {
	twins    [2]*echo
	replicas [2]*Replica
	links    [2]*Link
}

func newTellers(t *testing.T, change ...func(node int, link *LinkConfig)) *tellers {
	p := &tellers{}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for i, name := range []string{"a", "b"} {
		cfg := testConfig(&testMapFile{})
		p.twins[i] = newEcho()
		cfg.Preferred, cfg.Blank, cfg.Proposal[0], cfg.Twin = i == 0, true, byte(i+1), p.twins[i]
		p.replicas[i] = mustOpen(t, cfg)
		node := NewNode(cfg.Log)
		if err := node.Add(p.replicas[i]); err != nil {
			t.Fatal(err)
		}
		link := LinkConfig{Self: name, Peer: string("ba"[i]), Token: [16]byte{1}, Log: cfg.Log, BackoffMin: time.Millisecond}
		for _, f := range change {
			f(i, &link)
		}
		if LinkDials(link.Self, link.Peer) {
			link.Address = ln.Addr().String()
		} else {
			link.Listener = ln
		}
		if p.links[i], err = NewLink(link, node); err != nil {
			t.Fatal(err)
		}
		running.Go(func() { p.links[i].Run(ctx) })
	}
	t.Cleanup(func() {
		cancel()
		running.Wait()
		for i, r := range p.replicas {
			p.twins[i].hurry()
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	p.awaitJoin(t)
	return p
}

func (p *tellers) awaitJoin(t *testing.T) {
	t.Helper()
	for _, e := range p.twins {
		linkAwait(t, e.joined, "the replicas to join")
	}
}

// cut breaks the connection; the nodes connect anew by themselves.
func (p *tellers) cut() {
	r := p.replicas[0]
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != nil {
		r.conn.Close(errors.New("cut"))
	}
}

func TestTell(t *testing.T) {
	p := newTellers(t)
	var asking sync.WaitGroup
	for i, r := range p.replicas {
		for k := range maxTells / 2 {
			asking.Go(func() {
				body := fmt.Append(nil, i, k)
				answer, err := r.Tell(t.Context(), 1, body)
				if want := append([]byte("heard "), body...); err != nil || !bytes.Equal(answer, want) {
					t.Errorf("%q was answered with %q, %v", body, answer, err)
				}
			})
		}
	}
	asking.Wait()
	if _, err := p.replicas[0].Tell(t.Context(), 7, nil); !errors.Is(err, ErrNotTold) {
		t.Errorf("a topic that nobody knows: %v", err)
	}
	if _, err := p.replicas[0].Tell(t.Context(), 1, make([]byte, wire.MaxTell+1)); !errors.Is(err, ErrNotTold) {
		t.Errorf("too much: %v", err)
	}
}

// A Tell ends with the link, at both ends, or with who asked; what comes after the next
// join works.
func TestTellEnds(t *testing.T) {
	p := newTellers(t)
	ended := make(chan error, 1)
	go func() {
		_, err := p.replicas[0].Tell(context.Background(), 2, nil)
		ended <- err
	}()
	linkAwait(t, p.twins[1].asked, "the message to be heard")
	p.cut()
	if err := linkAwait(t, ended, "the Tell to end"); !errors.Is(err, ErrNotTold) {
		t.Errorf("the link broke: %v", err)
	}
	linkAwait(t, p.twins[1].gone, "the peer to stop listening")
	p.awaitJoin(t)
	p.giveUp(t)
	if answer, err := p.replicas[0].Tell(t.Context(), 1, []byte("x")); err != nil || string(answer) != "heard x" {
		t.Errorf("after all that: %q, %v", answer, err)
	}
}

// giveUp asks, and does not wait for the answer.
func (p *tellers) giveUp(t *testing.T) {
	t.Helper()
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(enough)
	if _, err := p.replicas[0].Tell(ctx, 2, nil); err != enough {
		t.Errorf("who asked gave up: %v", err)
	}
}

// What nobody waits for any more still counts until it is answered: however many give
// up, the peer has no more to hear than it puts up with.
func TestTellsAreBounded(t *testing.T) {
	p := newTellers(t)
	for range maxTells {
		p.giveUp(t)
	}
	if _, err := p.replicas[0].Tell(t.Context(), 1, nil); !errors.Is(err, ErrNotTold) {
		t.Errorf("one too many: %v", err)
	}
	p.twins[1].hurry()
	for p.replicas[0].unanswered() > 0 {
		time.Sleep(time.Millisecond)
	}
	if answer, err := p.replicas[0].Tell(t.Context(), 1, []byte("x")); err != nil || string(answer) != "heard x" {
		t.Errorf("after all were answered: %q, %v", answer, err)
	}
	if up := p.links[0].Stats().Connections; up != 1 {
		t.Errorf("%d connections", up)
	}
}

func (r *Replica) unanswered() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.telling.waiting)
}

// A replica that closes waits for nobody who hears, though the connection may go on
// for other LUNs.
func TestCloseWhileHearing(t *testing.T) {
	cfg := testConfig(new(testMapFile))
	twin := newEcho()
	cfg.Twin = twin
	r := mustOpen(t, cfg)
	s := newSink()
	r.up(s)
	r.control(s, &wire.Tell{ID: 1, Topic: 2})
	linkAwait(t, twin.asked, "the message to be heard")
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := linkAwait(t, twin.gone, "the end of listening"); !errors.Is(err, ErrReplicaClosed) || s.ctx.Err() != nil {
		t.Errorf("%v, connection %v", err, s.ctx.Err())
	}
}

// A peer of an older version would take what it does not know for a damaged stream: it is
// not told, and the link goes on.
func TestTellToAnOlderPeer(t *testing.T) {
	for older := range 2 {
		p := newTellers(t, func(node int, link *LinkConfig) {
			if node == older {
				link.features = wire.FeatureCompression
			}
		})
		for i, r := range p.replicas {
			if _, err := r.Tell(t.Context(), 1, nil); !errors.Is(err, ErrNotTold) {
				t.Errorf("node %d is older, node %d tells: %v", older, i, err)
			}
			if s := p.links[i].Stats(); s.Sent[wire.KindTell].Frames > 0 || s.Connections != 1 {
				t.Errorf("node %d: %+v", i, s)
			}
		}
	}
}

// Without a join nothing is told, and nobody waits.
func TestTellNeedsAJoin(t *testing.T) {
	r := mustOpen(t, testConfig(new(testMapFile)))
	defer r.Close()
	if _, err := r.Tell(t.Context(), 1, nil); !errors.Is(err, ErrNotTold) {
		t.Errorf("no link: %v", err)
	}
	r.up(newSink())
	if _, err := r.Tell(t.Context(), 1, nil); !errors.Is(err, ErrNotTold) {
		t.Errorf("not joined: %v", err)
	}
}

// A peer that tells and tells, and waits for no answer, is cut off.
func TestFloodOfTells(t *testing.T) {
	cfg := testConfig(new(testMapFile))
	twin := newEcho()
	cfg.Twin = twin
	r := mustOpen(t, cfg)
	s := newSink()
	r.up(s)
	for i := range maxTells + 1 {
		r.control(s, &wire.Tell{ID: uint64(i), Topic: 2})
	}
	linkAwait(t, s.ctx.Done(), "the connection to be closed")
	twin.hurry()
	r.down(context.Cause(s.ctx))
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}
