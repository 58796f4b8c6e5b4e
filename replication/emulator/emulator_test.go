package emulator

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// endpoints are the two ends of a connection through a line.
type endpoints struct{ a, b *net.TCPConn }

// testLine has a line to a listener, and connects through it.
type testLine struct {
	*Line
	t      *testing.T
	target *net.TCPListener
}

func newTestLine(t *testing.T, s State) *testLine {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := Start(Config{Listen: "127.0.0.1:0", Target: ln.Addr().String(), State: s})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		ln.Close()
		if s := l.Stats(); s.Connections != 0 || s.Lanes[AToB].Queued != 0 || s.Lanes[BToA].Queued != 0 {
			t.Errorf("left over after Close: %+v", s)
		}
	})
	return &testLine{l, t, ln.(*net.TCPListener)}
}

func (l *testLine) dial() *net.TCPConn {
	l.t.Helper()
	c, err := net.DialTimeout("tcp", l.Addr(), patience)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

func (l *testLine) accept() *net.TCPConn {
	l.t.Helper()
	l.target.SetDeadline(time.Now().Add(patience))
	c, err := l.target.AcceptTCP()
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func (l *testLine) connect() endpoints { l.t.Helper(); return endpoints{l.dial(), l.accept()} }

func (l *testLine) change(f func(s *State)) {
	l.t.Helper()
	s := l.State()
	f(&s)
	if err := l.Set(s); err != nil {
		l.t.Fatal(err)
	}
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, c net.Conn, text string) {
	t.Helper()
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != text {
		t.Fatalf("got %q (%v) instead of %q", b, err, text)
	}
}

// expectSilence looks whether anything has come by now.
func expectSilence(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	defer c.SetReadDeadline(time.Now().Add(patience))
	if n, err := c.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d bytes and %v, must hear nothing", n, err)
	}
}

func expectEnd(t *testing.T, c net.Conn, clean bool) {
	t.Helper()
	n, err := c.Read(make([]byte, 1))
	if n > 0 || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF) != clean {
		t.Fatalf("read %d bytes and %v, want the stream's end (clean: %v)", n, err, clean)
	}
}

// Nothing arrives before the delay, in either direction, nor the stream's end.
func TestDelay(t *testing.T) {
	const delay = 40 * time.Millisecond
	l := newTestLine(t, State{Delay: delay})
	c := l.connect()
	for _, way := range []struct{ from, to *net.TCPConn }{{c.a, c.b}, {c.b, c.a}} {
		began := time.Now()
		send(t, way.from, "hello")
		expect(t, way.to, "hello")
		if d := time.Since(began); d < delay {
			t.Errorf("arrived after %v", d)
		}
		began = time.Now()
		way.from.CloseWrite()
		expectEnd(t, way.to, true)
		if d := time.Since(began); d < delay {
			t.Errorf("end arrived after %v", d)
		}
	}
}

// Every byte arrives, in order, whatever the line is set to meanwhile.
func TestOrder(t *testing.T) {
	l := newTestLine(t, State{Delay: 5 * time.Millisecond})
	c := l.connect()
	r := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 8<<20)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	go func() {
		for rest := data; len(rest) > 0; {
			n := min(1+r.IntN(100_000), len(rest))
			c.a.Write(rest[:n])
			rest = rest[n:]
			l.Set(State{Delay: time.Duration(r.IntN(5)) * time.Millisecond, Rate: int64(r.IntN(2)) * 2_000_000_000})
		}
		c.a.CloseWrite()
	}()
	got, err := io.ReadAll(c.b)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("got %d bytes (%v) of %d, or others", len(got), err, len(data))
	}
	if n := l.Stats().Lanes[AToB].Bytes; n != uint64(len(data)) {
		t.Errorf("%d bytes counted", n)
	}
}

// The rate holds for all connections together.
func TestRate(t *testing.T) {
	const rate, each = 80_000_000, 1 << 20 // 10 bytes per µs
	l := newTestLine(t, State{Rate: rate})
	first, second := l.connect(), l.connect()
	began := time.Now()
	for _, c := range []endpoints{first, second} {
		go func() {
			c.a.Write(make([]byte, each))
			c.a.CloseWrite()
		}()
	}
	for _, c := range []endpoints{first, second} {
		if n, err := io.Copy(io.Discard, c.b); n != each || err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
	}
	if d, least := time.Since(began), transmission(2*each, rate); d < least {
		t.Errorf("%d bytes took %v at %d bit/s, must take %v", 2*each, d, rate, least)
	}
}

// A cut holds bytes in its direction only, and a heal lets them go on.
func TestCutAndHeal(t *testing.T) {
	for _, cut := range []Cut{CutAToB, CutBToA, CutBoth} {
		l := newTestLine(t, State{})
		c := l.connect()
		send(t, c.a, "before")
		expect(t, c.b, "before")
		l.change(func(s *State) { s.Cut = cut })
		if l.State().Cut != cut {
			t.Fatalf("cut is %v, not %v", l.State().Cut, cut)
		}
		send(t, c.a, "ping")
		send(t, c.b, "pong")
		if cut&CutAToB == 0 {
			expect(t, c.b, "ping")
		} else {
			expectSilence(t, c.b)
		}
		if cut&CutBToA == 0 {
			expect(t, c.a, "pong")
		} else {
			expectSilence(t, c.a)
		}
		l.change(func(s *State) { s.Cut = CutNone })
		if cut&CutAToB != 0 {
			expect(t, c.b, "ping")
		}
		if cut&CutBToA != 0 {
			expect(t, c.a, "pong")
		}
	}
}

// During a cut, connections wait; one whose caller gave up never arrives.
func TestConnectDuringCut(t *testing.T) {
	l := newTestLine(t, State{Cut: CutBToA})
	gone, stays := l.dial(), l.dial()
	send(t, gone, "gone")
	send(t, stays, "stays")
	expectSilence(t, stays)
	gone.Close()
	for until := time.Now().Add(patience); l.Stats().Connections != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%+v", l.Stats())
		}
	}
	l.change(func(s *State) { s.Cut = CutNone })
	expect(t, l.accept(), "stays")
}

func TestResetTellsBothEnds(t *testing.T) {
	l := newTestLine(t, State{})
	c := l.connect()
	send(t, c.a, "hello")
	expect(t, c.b, "hello")
	l.change(func(s *State) { s.Cut = CutBoth })
	l.Reset()
	expectEnd(t, c.a, false)
	expectEnd(t, c.b, false)
}

// A reset of one end arrives as one at the other.
func TestResetPasses(t *testing.T) {
	l := newTestLine(t, State{})
	c := l.connect()
	send(t, c.a, "hello")
	expect(t, c.b, "hello")
	c.b.SetLinger(0)
	c.b.Close()
	expectEnd(t, c.a, false)
}

func TestFreezeIsForEver(t *testing.T) {
	l := newTestLine(t, State{})
	c := l.connect()
	send(t, c.a, "hello")
	expect(t, c.b, "hello")
	l.Freeze()
	send(t, c.a, "lost")
	expectSilence(t, c.b)
	c.a.Close()
	expectSilence(t, c.b)
	next := l.connect()
	send(t, next.b, "new ones work")
	expect(t, next.a, "new ones work")
}

func TestFlip(t *testing.T) {
	l := newTestLine(t, State{})
	c := l.connect()
	l.Flip(AToB, 2)
	send(t, c.b, "unhurt")
	expect(t, c.a, "unhurt")
	send(t, c.a, "abcdef")
	expect(t, c.b, "absdef")
}

// A receiver that does not read makes the sender wait, within the line's bound.
func TestBoundedBuffering(t *testing.T) {
	s := State{Rate: 1_000_000_000, Delay: time.Millisecond}
	l := newTestLine(t, s)
	c := l.connect()
	c.b.SetReadBuffer(64 << 10)
	c.a.SetWriteBuffer(64 << 10)
	data := make([]byte, 64<<10)
	sent := 0
	for {
		c.a.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := c.a.Write(data)
		sent += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil || sent > 64<<20 {
			t.Fatalf("%d bytes went into a line that holds %d (%v)", sent, s.bound(), err)
		}
	}
	if q := l.Stats().Lanes[AToB].Queued; q > s.bound()+maxTurn {
		t.Errorf("%d bytes on the line, its bound is %d", q, s.bound())
	}
	c.a.CloseWrite()
	if n, err := io.Copy(io.Discard, c.b); int(n) != sent || err != nil {
		t.Errorf("%d bytes of %d arrived (%v)", n, sent, err)
	}
}

// Close leaves nothing, in whatever state connections are.
func TestCloseWhileBusy(t *testing.T) {
	l := newTestLine(t, State{Rate: 1_000_000, Delay: time.Second})
	busy, frozen := l.connect(), l.connect()
	go busy.a.Write(make([]byte, 1<<20))
	go frozen.a.Write(make([]byte, 1<<20))
	l.Freeze()
	l.change(func(s *State) { s.Cut = CutBoth })
	l.dial()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	expectEnd(t, busy.b, false)
}

func TestTargetIsAway(t *testing.T) {
	l := newTestLine(t, State{})
	l.target.Close()
	c, err := net.DialTimeout("tcp", l.Addr(), patience)
	if err != nil {
		return // the reset came before the connection was reported
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	expectEnd(t, c, false)
}

func TestBadStates(t *testing.T) {
	l := newTestLine(t, State{})
	for _, s := range []State{{Delay: -1}, {Delay: MaxDelay + 1}, {Rate: -1}, {Rate: MinRate - 1}, {Cut: 4}} {
		if l.Set(s) == nil {
			t.Errorf("%+v was taken", s)
		}
	}
}

// 1 Gbit/s with 10 ms is what the copier's benchmark uses.
func BenchmarkThroughput(b *testing.B) {
	for _, bench := range []struct {
		name string
		s    State
	}{
		{"direct", State{}},
		{"10ms", State{Delay: 10 * time.Millisecond}},
		{"10ms-1Gbit", State{Delay: 10 * time.Millisecond, Rate: 1_000_000_000}},
	} {
		b.Run(bench.name, func(b *testing.B) { benchThroughput(b, bench.s) })
	}
}

func benchThroughput(b *testing.B, s State) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	l, err := Start(Config{Listen: "127.0.0.1:0", Target: ln.Addr().String(), State: s})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	data := make([]byte, 1<<20)
	b.SetBytes(int64(len(data)))
	go func() {
		c, err := net.Dial("tcp", l.Addr())
		if err != nil {
			return
		}
		defer c.Close()
		for range b.N {
			c.Write(data)
		}
	}()
	c, err := ln.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	b.ResetTimer()
	if n, err := io.Copy(io.Discard, struct{ io.Reader }{c}); n != int64(b.N)*int64(len(data)) {
		b.Fatalf("%d bytes, %v", n, err)
	}
}

// TestWayBack connects from B to A: what B sends takes the lane to A, which a cut of that
// lane holds, and a cut of the other one does not.
func TestWayBack(t *testing.T) {
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	l, err := Start(Config{Listen: "127.0.0.1:0", Target: "127.0.0.1:1", Back: Way{"127.0.0.1:0", target.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err := net.DialTimeout("tcp", l.BackAddr(), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	a, err := target.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	a.SetDeadline(time.Now().Add(patience))
	if err := l.Set(State{Cut: CutAToB}); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := b.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(a, got); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	if s := l.Stats(); s.Lanes[BToA].Bytes != 5 || s.Lanes[AToB].Bytes != 0 {
		t.Errorf("%+v", s)
	}
}
