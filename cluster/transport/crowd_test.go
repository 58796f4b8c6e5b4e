package transport

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// A crowd that keeps coming, from one address or from many, says little or nothing and
// is never done, hurts no node: neither those that are connected nor those that come.
func TestCrowd(t *testing.T) {
	for _, hosts := range []int{1, 200} {
		w := newWorld(t)
		a, b := w.node("a", nil), w.node("b", nil)
		came := listen(t, b, "", Raft)
		before := dial(t, a, "b", Raft)
		beforeIn := await(t, came, "the connection")
		stop := crowd(t, w.where(b), hosts)
		for i := range 20 {
			c, err := a.Dial(within(t), "b", Raft)
			if err != nil {
				t.Fatalf("%d hosts, connection %d: %v", hosts, i, err)
			}
			speak(t, c, await(t, came, "the connection"))
			c.Close()
			speak(t, before, beforeIn)
		}
		b.strangers.mu.Lock()
		if n := len(b.strangers.list); n > 64 || hosts == 1 && n > 16 || n < 10 {
			t.Errorf("%d hosts: %d connections are in their handshake", hosts, n)
		}
		b.strangers.mu.Unlock()
		stop()
	}
}

// crowd keeps some more connections open than a port takes.
func crowd(t *testing.T, address string, hosts int) (stop func()) {
	t.Helper()
	end := make(chan struct{})
	var all sync.WaitGroup
	full := make(chan struct{}, 200)
	for i := range 100 {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%hosts))}, Timeout: patience}
		all.Go(func() {
			for {
				c, err := dialer.Dial("tcp", address)
				if err != nil {
					t.Error(err)
					return
				}
				c.Write([]byte("\x16\x03\x01")[:i%4]) // as a ClientHello begins
				select {
				case full <- struct{}{}:
				default:
				}
				closed := make(chan struct{})
				go func() {
					io.Copy(io.Discard, c)
					close(closed)
				}()
				select {
				case <-closed:
				case <-end:
				}
				c.Close()
				<-closed
				select {
				case <-end:
					return
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
	}
	for range 100 {
		await(t, full, "the crowd")
	}
	return func() {
		close(end)
		all.Wait()
	}
}

// Who says nothing is closed in time, and who says too much at once.
func TestHandshakeLimits(t *testing.T) {
	w := newWorld(t)
	b := w.node("b", func(cfg *Config) { cfg.Limits = Limits{Handshake: 200 * time.Millisecond} })
	hello := []byte("\x16\x03\x01\x40\x00\x01\x00\xff\x00") // a ClientHello of 65280 bytes, in records of 16 KiB
	for what, say := range map[string][]byte{
		"nothing": nil,
		"half":    hello,
		"HTTP":    []byte("GET / HTTP/1.1\r\n\r\n"),
		"much":    append(hello, bytes.Repeat([]byte("x"), 100<<10)...),
	} {
		c, err := net.Dial("tcp", w.where(b))
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(patience))
		go c.Write(say)
		if got, err := io.ReadAll(c); err != nil && strings.Contains(err.Error(), "timeout") || len(got) > 7 {
			t.Errorf("who says %s is answered %q, %v", what, got, err)
		}
		c.Close()
	}
}

// The quota is what a handshake needs, and some more.
func TestHandshakeQuota(t *testing.T) {
	w := newWorld(t)
	for quota, enough := range map[int]bool{500: false, 8 << 10: true} {
		b := w.node("b", func(cfg *Config) { cfg.Limits.Bytes = quota })
		w.addresses["b"] = []string{w.where(b)}
		came := listen(t, b, "", Raft)
		a := w.node("a", nil)
		c, err := a.Dial(within(t), "b", Raft)
		if (err == nil) != enough {
			t.Errorf("%d bytes: %v", quota, err)
		}
		if err == nil {
			speak(t, c, await(t, came, "the connection"))
		}
	}
}

// Which connection goes when there are too many.
func TestStrangersEviction(t *testing.T) {
	s := &strangers{max: 5, perHost: 3}
	conns := map[string]*pipe{}
	add := func(name, address string) {
		conns[name] = &pipe{remote: address}
		s.add(conns[name])
	}
	check := func(closed string) {
		t.Helper()
		got := ""
		for _, name := range strings.Split("a1 a2 a3 a4 b1 c1 c2 d1 e1 f1 g1", " ") {
			if conns[name] != nil && conns[name].closed {
				got += name + " "
			}
		}
		if strings.TrimSpace(got) != closed {
			t.Errorf("closed are %s, should be %s", got, closed)
		}
	}
	add("a1", "192.0.2.1:1000")
	add("a2", "192.0.2.1:1001")
	add("b1", "[2001:db8::1]:1000")
	add("a3", "[::ffff:192.0.2.1]:1002") // the same host
	check("")
	add("a4", "192.0.2.1:1003")
	check("a1")
	add("c1", "[2001:db8:0:1::1]:1000")
	check("a1")
	add("c2", "[2001:db8:0:1:ffff::2%eth0]:1000") // the same network
	check("a1 a2")
	if !s.remove(conns["a3"]) || s.remove(conns["a3"]) || s.remove(conns["a1"]) {
		t.Error("remove does not tell what was there")
	}
	add("d1", "192.0.2.4:1")
	check("a1 a2")
	add("e1", "192.0.2.5:1")
	check("a1 a2 c1") // c has two
	add("f1", "192.0.2.6:1")
	check("a1 a2 b1 c1") // all have one, and b's is the oldest
}

// pipe is a connection that does nothing.
type pipe struct {
	net.Conn
	remote string
	closed bool
}

func (p *pipe) Close() error { p.closed = true; return nil }
func (p *pipe) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(p.remote))
}

// Whatever a stranger says, nobody gets his connection, and he gets no welcome.
func FuzzGreet(f *testing.F) {
	w := newWorld(f)
	b := w.node("b", nil)
	came := listen(f, b, "", protocols...)
	for _, c := range []*tls.Config{
		{InsecureSkipVerify: true, NextProtos: []string{string(Raft)}},
		{InsecureSkipVerify: true, NextProtos: []string{string(Join)}},
		{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12},
	} {
		f.Add(firstFlight(c))
	}
	f.Fuzz(func(t *testing.T, say []byte) {
		here, there := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			b.strangers.add(there)
			b.greet(there)
		}()
		go io.Copy(io.Discard, here)
		here.SetDeadline(time.Now().Add(patience))
		here.Write(say)
		here.Close()
		<-done
		if len(came)+len(b.conns()) > 0 {
			t.Error("it came through")
		}
	})
}

// firstFlight is what a client says first.
func firstFlight(c *tls.Config) []byte {
	here, there := net.Pipe()
	go func() {
		tls.Client(there, c).Handshake()
		there.Close()
	}()
	b := make([]byte, 4096)
	n, _ := here.Read(b)
	here.Close()
	return b[:n]
}

func FuzzReadMessage(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02{}"))
	f.Add([]byte("\xff\xff\xff\xff{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		data, err := readMessage(bytes.NewReader(b))
		if err != nil {
			return
		}
		again := new(bytes.Buffer)
		if writeMessage(again, data) != nil || !bytes.HasPrefix(b, again.Bytes()) {
			t.Error(fmt.Errorf("%x was read as %x", b, data))
		}
	})
}
