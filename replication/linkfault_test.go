package replication

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/emulator"
	"github.com/twinlun/twinlun/replication/wire"
)

// startFarPair runs a and b with an emulated line between them.
func startFarPair(t *testing.T, a, b *linkRecord, s emulator.State, change func(cfg *LinkConfig)) *emulator.Line {
	t.Helper()
	ln := linkListen(t)
	line, err := emulator.Start(emulator.Config{Listen: "127.0.0.1:0", Target: ln.Addr().String(), State: s})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { line.Close() })
	startPairAt(t, a, b, ln, line.Addr(), change)
	return line
}

// impatient is for tests of silence.
func impatient(cfg *LinkConfig) { cfg.Heartbeat, cfg.Dead = 20*time.Millisecond, 300*time.Millisecond }

func bothUp(a, b *linkRecord) { a.t.Helper(); a.awaitUp(); b.awaitUp() }

// speak sends a message from a to b and waits for its arrival. b's control
// handler must put what comes into got.
func speak(t *testing.T, from LinkConn, got <-chan wire.Message) {
	t.Helper()
	from.SendControl(1, &wire.JoinDone{Join: 77})
	if m := linkAwait(t, got, "a message"); m.(*wire.JoinDone).Join != 77 {
		t.Errorf("got %+v", m)
	}
}

// A line that goes silent without a word is noticed at both ends, in every way
// that it can, and the link comes back.
func TestLinkSilence(t *testing.T) { onEveryWay(t, testLinkSilence) }

func testLinkSilence(t *testing.T, change func(cfg *LinkConfig)) {
	for name, fault := range map[string]func(l *emulator.Line){
		"peer vanishes":             func(l *emulator.Line) { l.Freeze() },
		"line cut":                  func(l *emulator.Line) { l.Set(emulator.State{Cut: emulator.CutBoth}) },
		"line cut in one direction": func(l *emulator.Line) { l.Set(emulator.State{Cut: emulator.CutAToB}) },
		"and in the other":          func(l *emulator.Line) { l.Set(emulator.State{Cut: emulator.CutBToA}) },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newLinkRecord(t), newLinkRecord(t)
			line := startFarPair(t, a, b, emulator.State{}, changes(change, impatient))
			bothUp(a, b)
			fault(line)
			errA, errB := a.awaitDown(), b.awaitDown()
			if !errors.Is(errA, ErrLinkSilent) && !errors.Is(errB, ErrLinkSilent) {
				t.Errorf("Down with %v and %v", errA, errB)
			}
			line.Set(emulator.State{})
			bothUp(a, b)
		})
	}
}

// A connection that is reset, as when a process is killed, ends at both nodes and
// is made again.
func TestLinkReset(t *testing.T) { onEveryWay(t, testLinkReset) }

func testLinkReset(t *testing.T, change func(cfg *LinkConfig)) {
	a, b := newLinkRecord(t), newLinkRecord(t)
	line := startFarPair(t, a, b, emulator.State{}, change)
	for range 5 {
		bothUp(a, b)
		line.Reset()
		a.awaitDown()
		b.awaitDown()
	}
	bothUp(a, b)
}

// A byte that was damaged on its way ends the connection, both nodes say why, and
// nothing damaged is delivered.
func TestLinkDamage(t *testing.T) {
	checkLeaks(t)
	a, b := newLinkRecord(t), newLinkRecord(t)
	b.control = func(_ LinkConn, lun uint32, m wire.Message) {
		if lun != 1 || m.(*wire.JoinMap).Data[0] != 0 || bytes.Count(m.(*wire.JoinMap).Data, []byte{0}) != 100 {
			t.Errorf("LUN %d: %x", lun, m.(*wire.JoinMap).Data)
		}
	}
	line := startFarPair(t, a, b, emulator.State{}, nil)
	for skip := range int64(20) {
		conn := a.awaitUp()
		b.awaitUp()
		line.Flip(emulator.AToB, skip*7)
		for conn.Context().Err() == nil {
			conn.SendControl(1, &wire.JoinMap{Data: make([]byte, 100)})
			time.Sleep(time.Millisecond)
		}
		refused := new(LinkRefused)
		if err := b.awaitDown(); !errors.Is(err, wire.ErrCorrupt) {
			t.Errorf("b: Down with %v", err)
		}
		if err := a.awaitDown(); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "corrupt") {
			t.Errorf("a: Down with %v", err)
		}
	}
}

// The same under TLS, which notices first: both nodes say so, and the link comes back.
func TestLinkDamageUnderTLS(t *testing.T) {
	checkLeaks(t)
	a, b := newLinkRecord(t), newLinkRecord(t)
	b.control = func(_ LinkConn, _ uint32, m wire.Message) {
		if bytes.Count(m.(*wire.JoinMap).Data, []byte{0}) != 100 {
			t.Errorf("came as %x", m.(*wire.JoinMap).Data)
		}
	}
	line := startFarPair(t, a, b, emulator.State{}, overTLS(t))
	for skip := range int64(20) {
		conn := a.awaitUp()
		b.awaitUp()
		line.Flip(emulator.AToB, skip*7)
		for conn.Context().Err() == nil {
			conn.SendControl(1, &wire.JoinMap{Data: make([]byte, 100)})
			time.Sleep(time.Millisecond)
		}
		a.awaitDown()
		if err := b.awaitDown(); !strings.Contains(err.Error(), "tls: ") {
			t.Errorf("b: Down with %v", err)
		}
	}
	bothUp(a, b)
}

// A handler that does not return holds back its stream, up to the sender, whose
// queue is bounded; the other streams go on, and a busy handler is no silence.
func TestLinkBackpressure(t *testing.T) { onEveryWay(t, testLinkBackpressure) }

func testLinkBackpressure(t *testing.T, change func(cfg *LinkConfig)) {
	a, b := newLinkRecord(t), newLinkRecord(t)
	got := make(chan wire.Message, 1000)
	b.control = func(_ LinkConn, _ uint32, m wire.Message) { got <- m }
	calls := make(chan uint64, 1000)
	b.bulk = func(c LinkConn, _ int, _ uint32, m wire.Message) {
		calls <- m.(*wire.Copy).Seq
		<-c.Context().Done()
	}
	nodeA, nodeB := startPair(t, a, b, changes(change, func(cfg *LinkConfig) {
		cfg.Heartbeat, cfg.Dead, cfg.MaxQueue = 20*time.Millisecond, 1500*time.Millisecond, 16<<20
	}))
	conn := a.awaitUp()
	b.awaitUp()
	conn.SendBulk(0, 1, &wire.Copy{Seq: 1})
	linkAwait(t, calls, "the first copy")
	for until := time.Now().Add(4 * time.Second); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		speak(t, conn, got)
	}
	data := make([]byte, 16*dirtymap.BlockSize)
	sent := int64(0)
	for conn.Context().Err() == nil && sent < 1<<30 {
		conn.SendBulk(0, 1, &wire.Copy{Seq: 2, Items: []wire.Blocks{{Present: dirtymap.MaskOf(0, 16), Data: data}}})
		if sent += int64(len(data)); nodeA.link.Stats().Queued > 17<<20 {
			t.Fatalf("%d bytes wait", nodeA.link.Stats().Queued)
		}
		time.Sleep(10 * time.Microsecond)
	}
	if err := a.awaitDown(); !errors.Is(err, ErrLinkOverflow) {
		t.Errorf("a: Down with %v", err)
	}
	b.awaitDown()
	if n := nodeB.link.Stats().Received[wire.KindCopy].Frames; n > 2 {
		t.Errorf("%d frames were read while the handler was busy with the first", n)
	}
	bothUp(a, b)
}

// A peer that has restarted takes the place of its former self, which b still
// believes to be alive.
func TestLinkSupersede(t *testing.T) {
	checkLeaks(t)
	a, b := newLinkRecord(t), newLinkRecord(t)
	ln := linkListen(t)
	line, err := emulator.Start(emulator.Config{Listen: "127.0.0.1:0", Target: ln.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { line.Close() })
	startPairAt(t, a, b, ln, line.Addr(), nil)
	bothUp(a, b)
	line.Freeze()
	reborn := newLinkRecord(t)
	startLink(t, LinkConfig{Self: "a", Peer: "b", Address: ln.Addr().String()}, reborn)
	reborn.awaitUp()
	if err := b.awaitDown(); err != ErrLinkSuperseded {
		t.Errorf("b: Down with %v", err)
	}
	b.awaitUp()
}

// The listening node restarts on its address.
func TestLinkListenerRestarts(t *testing.T) {
	checkLeaks(t)
	a, b := newLinkRecord(t), newLinkRecord(t)
	ln := linkListen(t)
	_, nodeB := startPairAt(t, a, b, ln, ln.Addr().String(), nil)
	bothUp(a, b)
	nodeB.stop()
	a.awaitDown()
	again, err := net.Listen("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b = newLinkRecord(t)
	startLink(t, LinkConfig{Self: "b", Peer: "a", Listener: again}, b)
	bothUp(a, b)
}

// A failure of the listener itself ends Run.
func TestLinkListenerFails(t *testing.T) {
	checkLeaks(t)
	a, b := newLinkRecord(t), newLinkRecord(t)
	ln := linkListen(t)
	_, nodeB := startPairAt(t, a, b, ln, ln.Addr().String(), nil)
	bothUp(a, b)
	ln.Close()
	b.awaitDown()
	if err := nodeB.stop(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run returned %v", err)
	}
}

// Down waits for calls that are running, and they learn from the Context.
func TestLinkDownWaitsForCalls(t *testing.T) { onEveryWay(t, testLinkDownWaitsForCalls) }

func testLinkDownWaitsForCalls(t *testing.T, change func(cfg *LinkConfig)) {
	a, b := newLinkRecord(t), newLinkRecord(t)
	inside := make(chan LinkConn, 1)
	release := make(chan struct{})
	b.control = func(c LinkConn, _ uint32, _ wire.Message) {
		inside <- c
		<-c.Context().Done()
		<-release
	}
	startPair(t, a, b, change)
	a.awaitUp().SendControl(0, &wire.JoinDone{})
	b.awaitUp()
	conn := linkAwait(t, inside, "the call")
	conn.Close(errors.New("enough"))
	a.awaitDown()
	select {
	case err := <-b.end:
		t.Errorf("Down (%v) while a call was running", err)
	default:
	}
	conn.SendControl(0, &wire.JoinDone{}) // is dropped
	close(release)
	if err := b.awaitDown(); err.Error() != "enough" {
		t.Errorf("b: Down with %v", err)
	}
}

func TestLinkRTT(t *testing.T) {
	checkLeaks(t)
	const delay = 10 * time.Millisecond
	a, b := newLinkRecord(t), newLinkRecord(t)
	startFarPair(t, a, b, emulator.State{Delay: delay}, nil)
	for _, r := range []*linkRecord{a, b} {
		conn := r.awaitUp()
		for until := time.Now().Add(linkWait); conn.RTT() == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(until) {
				t.Fatal("never measured")
			}
		}
		if conn.RTT() < 2*delay {
			t.Errorf("RTT is %v", conn.RTT())
		}
	}
}

// What a stranger says first, and what the listening node answers: a part of the
// reason, or nothing at all.
func TestLinkStrangers(t *testing.T) {
	checkLeaks(t)
	cfg := LinkConfig{Self: "a", Peer: "b", Token: LinkToken("test"), NodeID: [16]byte{1}}
	hello := func(change func(h *wire.Hello)) []byte {
		h := cfg.hello(0, [16]byte{2}, 2)
		change(h)
		return wire.AppendFrame(nil, 0, h, false)
	}
	a, b := newLinkRecord(t), newLinkRecord(t)
	ln := linkListen(t)
	startPairAt(t, a, b, ln, ln.Addr().String(), nil)
	got := make(chan wire.Message, 1)
	b.control = func(_ LinkConn, _ uint32, m wire.Message) { got <- m }
	conn := a.awaitUp()
	b.awaitUp()
	for name, test := range map[string]struct {
		say    []byte
		answer string
	}{
		"HTTP":        {[]byte("GET / HTTP/1.1\r\nHost: twinlun\r\n\r\n"), "no twinlun node"},
		"garbage":     {bytes.Repeat([]byte{0xD7}, 1000), "checksum"},
		"wrong token": {hello(func(h *wire.Hello) { h.Token[0]++ }), "different link tokens"},
		"wrong name":  {hello(func(h *wire.Hello) { h.Node = "c" }), "not c"},
		"new version": {hello(func(h *wire.Hello) { h.MinVersion, h.MaxVersion = 2, 3 }), "b speaks 1 to 1, a speaks 2 to 3"},
		"tiny frames": {hello(func(h *wire.Hello) { h.MaxBody = 4096 }), "4096 bytes"},
		"no HELLO":    {wire.AppendFrame(nil, 0, &wire.Ping{}, false), "ping is not allowed"},
		"refusal":     {wire.AppendFrame(nil, 0, &wire.Refuse{Reason: "x"}, false), ""},
	} {
		if answer := tell(t, ln.Addr().String(), test.say); !strings.Contains(answer, test.answer) || (test.answer == "") != (answer == "") {
			t.Errorf("%s: answered %q", name, answer)
		}
	}
	speak(t, conn, got) // none of it has hurt the connection
}

// tell says something to a listening node, and returns the reason in its REFUSE.
func tell(t *testing.T, address string, say []byte) (reason string) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, linkWait)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(linkWait))
	conn.Write(say)
	_, m, err := wire.NewReader(conn, wire.HandshakeKinds, wire.MaxHandshakeBody).Next()
	if refuse, ok := m.(*wire.Refuse); ok {
		return refuse.Reason
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("answered %+v, %v", m, err)
	}
	return ""
}

// A stream that says nothing is closed in time, and so are streams whose
// connection does not get complete, however many there are.
func TestLinkIncompleteStreams(t *testing.T) {
	checkLeaks(t)
	b := newLinkRecord(t)
	ln := linkListen(t)
	node := startLink(t, LinkConfig{Self: "b", Peer: "a", Listener: ln, Handshake: 100 * time.Millisecond}, b)
	cfg := LinkConfig{Self: "a", Token: LinkToken("test"), NodeID: [16]byte{1}}
	var conns []net.Conn
	for i := range 2 * linkMaxParts {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(linkWait))
		if i > 0 {
			conn.Write(wire.AppendFrame(nil, 0, cfg.hello(1, [16]byte{byte(i)}, 2), false))
		}
		conns = append(conns, conn)
	}
	for i, conn := range conns {
		if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, io.EOF) {
			t.Errorf("stream %d was not closed: %v", i, err)
		}
	}
	node.link.mu.Lock()
	defer node.link.mu.Unlock()
	if n := len(node.link.mu.parts); n > 0 {
		t.Errorf("%d connections are still kept", n)
	}
}

// The reason of a refusal reaches the operator of the node that dials.
func TestLinkDialerIsRefused(t *testing.T) {
	checkLeaks(t)
	a, b := newLinkRecord(t), newLinkRecord(t)
	ln := linkListen(t)
	startLink(t, LinkConfig{Self: "b", Peer: "a", Listener: ln}, b)
	node := startLink(t, LinkConfig{Self: "a", Peer: "b", Address: ln.Addr().String(), Token: LinkToken("other")}, a)
	for until := time.Now().Add(linkWait); ; time.Sleep(time.Millisecond) {
		last := node.link.Stats().LastError
		if strings.Contains(last, "different link tokens") {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("a says %q", last)
		}
	}
	if len(a.up)+len(b.up) > 0 {
		t.Error("the link came up")
	}
}

func TestLinkConfig(t *testing.T) {
	ln, token := linkListen(t), LinkToken("test")
	good := LinkConfig{Self: "a", Peer: "b", Address: "127.0.0.1:1", Token: token}
	for name, change := range map[string]func(c *LinkConfig){
		"no name":             func(c *LinkConfig) { c.Self = "" },
		"control character":   func(c *LinkConfig) { c.Self = "\n" },
		"no peer":             func(c *LinkConfig) { c.Peer = "" },
		"same names":          func(c *LinkConfig) { c.Peer = "a" },
		"no token":            func(c *LinkConfig) { c.Token = [16]byte{} },
		"17 streams":          func(c *LinkConfig) { c.Streams = 17 },
		"-1 streams":          func(c *LinkConfig) { c.Streams = -1 },
		"dead too soon":       func(c *LinkConfig) { c.Dead = c.Heartbeat + time.Millisecond },
		"backoff":             func(c *LinkConfig) { c.BackoffMin = time.Minute },
		"no address":          func(c *LinkConfig) { c.Address = "" },
		"dials and listens":   func(c *LinkConfig) { c.Listener = ln },
		"neither":             func(c *LinkConfig) { c.Self, c.Peer = "b", "a" },
		"negative queue size": func(c *LinkConfig) { c.MaxQueue = -1 },
	} {
		cfg := good
		change(&cfg)
		if _, err := NewLink(cfg, newLinkRecord(t)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := NewLink(good, newLinkRecord(t)); err != nil {
		t.Error(err)
	}
	if shown := fmt.Sprintf("%v %x %+v", good, token, &good); strings.Contains(shown, fmt.Sprintf("%x", token[:])) || !strings.Contains(shown, "hidden") {
		t.Errorf("the token shows: %s", shown)
	}
	if LinkToken("test") != token || LinkToken("text") == token {
		t.Error("a token must come from its text only")
	}
}

// Sending what does not belong on a stream is a bug of this node.
func TestLinkWrongStreamPanics(t *testing.T) {
	checkLeaks(t)
	a, b := newLinkRecord(t), newLinkRecord(t)
	startPair(t, a, b, nil)
	conn := a.awaitUp()
	for name, send := range map[string]func(){
		"copy on control":   func() { conn.SendControl(0, &wire.Copy{}) },
		"mark on bulk":      func() { conn.SendBulk(0, 0, &wire.Mark{Ranges: []dirtymap.Range{{Count: 1}}}) },
		"mark with nothing": func() { conn.SendControl(0, &wire.Mark{}) },
		"no such stream":    func() { conn.SendBulk(2, 0, &wire.Copy{}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error(name, "was sent")
				}
			}()
			send()
		}()
	}
}
