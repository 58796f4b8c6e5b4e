package socket

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
)

// pair is two ends of a TCP connection.
func pair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err == nil {
		b, err = l.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// pieces cuts data into buffers of 0 to 99 bytes.
func pieces(data []byte) (out net.Buffers) {
	for n := 0; len(data) > 0; n++ {
		size := min(n%100, len(data))
		out, data = append(out, data[:size]), data[size:]
	}
	return out
}

// TestSend fills a connection whose other end does not read, and sends the rest when it
// does: all bytes come, once and in order. There are more buffers than one call takes.
func TestSend(t *testing.T) {
	a, b := pair(t)
	data := make([]byte, 16<<20)
	for i := range data {
		data[i] = byte(i * i >> 5)
	}
	s := NewSender(a)
	rest, full := pieces(data), false
	got := make(chan []byte)
	for len(rest) > 0 {
		before := len(rest)
		left, err := s.Send(rest)
		if err != nil {
			t.Fatal(err)
		}
		if rest = left; len(rest) == before && !full { // no room, without waiting
			full = true
			go func() {
				all, _ := io.ReadAll(b)
				got <- all
			}()
		}
	}
	if !full {
		t.Fatal("the connection took all without being read; nothing was tried")
	}
	a.Close()
	if all := <-got; !bytes.Equal(all, data) {
		t.Errorf("%d bytes came of %d, or others", len(all), len(data))
	}
}

// TestSendFails: what cannot be sent any more is an error, what is nothing is none.
func TestSendFails(t *testing.T) {
	a, b := pair(t)
	s := NewSender(a)
	if rest, err := s.Send(nil); len(rest) != 0 || err != nil {
		t.Errorf("nothing: %v, %v", rest, err)
	}
	if rest, err := s.Send(net.Buffers{nil, {}}); len(rest) != 0 || err != nil {
		t.Errorf("empty buffers: %v, %v", rest, err)
	}
	b.(*net.TCPConn).SetLinger(0)
	b.Close()
	for {
		_, err := s.Send(net.Buffers{[]byte("x")})
		if err == nil {
			continue // the reset is on its way
		}
		if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("a connection that was reset: %v", err)
		}
		break
	}
	a.Close()
	if rest, err := s.Send(net.Buffers{[]byte("x")}); len(rest) != 1 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed connection: %v, %v", rest, err)
	}
	p, q := net.Pipe()
	defer p.Close()
	defer q.Close()
	if rest, err := NewSender(p).Send(net.Buffers{[]byte("x")}); len(rest) != 1 || err != nil {
		t.Errorf("no socket: %v, %v", rest, err)
	}
}

func TestSendAllocatesNothing(t *testing.T) {
	a, b := pair(t)
	go io.Copy(io.Discard, b)
	s, data := NewSender(a), []byte("some bytes")
	out := make(net.Buffers, 8)
	if n := testing.AllocsPerRun(100, func() {
		for i := range out {
			out[i] = data
		}
		if _, err := s.Send(out); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
