package iscsi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pieces is a scatterer that gives its bytes in pieces of these lengths, the last one
// again and again; it writes down how much it was asked for, and what it gave.
type pieces struct {
	data  []byte
	sizes []int
	calls []string
}

func (s *pieces) Read(p []byte) (int, error) { return s.readBoth(p, nil) }

func (s *pieces) readBoth(a, b []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := min(s.sizes[0], len(a)+len(b), len(s.data))
	if len(s.sizes) > 1 {
		s.sizes = s.sizes[1:]
	}
	copy(b, s.data[copy(a, s.data[:n]):n])
	s.data = s.data[n:]
	s.calls = append(s.calls, fmt.Sprintf("%d+%d: %d", len(a), len(b), n))
	return n, nil
}

// TestIntake: large pieces go straight to their place, with no more than a header
// behind; small ones come together.
func TestIntake(t *testing.T) {
	const large = 64 << 10
	for _, c := range []struct {
		name  string
		sizes []int // that the source gives
		data  []int // of the PDUs
		want  []string
	}{
		{"small", []int{large}, []int{0, 512, 0, 4096}, []string{"65536+0: 4800"}},
		{"large", []int{large}, []int{large, large},
			[]string{"65536+0: 65536", "48+48: 96", "65536+48: 65536"}},
		{"large, all there", []int{1 << 20}, []int{4 * large, 4 * large},
			[]string{"65536+0: 65536", "196656+48: 196704", "262144+48: 262144"}},
		{"large in parts", []int{48, 1000, large, 20, 28, 1 << 20}, []int{large, large},
			[]string{"65536+0: 48", "65536+48: 1000", "64536+48: 64584", "65536+48: 20", "65516+48: 28", "65488+48: 65488"}},
		{"small after large", []int{48, 1 << 20}, []int{large, 0, 0, 0},
			[]string{"65536+0: 48", "65536+48: 65584", "65536+0: 96"}},
		{"large after small", []int{600, 1 << 20}, []int{512, large, 100},
			[]string{"65536+0: 600", "65536+0: 65536", "8+48: 56", "65536+0: 100"}},
	} {
		s := &pieces{sizes: c.sizes}
		for k, n := range c.data {
			var h header
			h.setDataLength(n)
			s.data = append(append(s.data, h[:]...), pattern(k, n)...)
		}
		in := newStream(s, 1<<20, 0)
		for k, n := range c.data {
			if err := in.next(); err != nil || in.left != n {
				t.Fatalf("%s: PDU %d: %v, %d bytes", c.name, k, err, in.left)
			}
			data := make([]byte, n)
			if err := in.read(data); err != nil || !bytes.Equal(data, pattern(k, n)) {
				t.Fatalf("%s: PDU %d: %v, or other bytes", c.name, k, err)
			}
			if err := in.finish(); err != nil {
				t.Fatal(err)
			}
		}
		if err := in.next(); err != io.EOF {
			t.Errorf("%s: %v at the end", c.name, err)
		}
		if !slices.Equal(s.calls, c.want) {
			t.Errorf("%s: calls %q, want %q", c.name, s.calls, c.want)
		}
	}
}

// TestIntakeAnyPieces: however the bytes come, and are asked for, they are the same.
func TestIntakeAnyPieces(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 1))
		all := pattern(int(seed), r.IntN(300<<10))
		s := &pieces{data: all}
		for range 1 + r.IntN(20) {
			s.sizes = append(s.sizes, 1+r.IntN(1<<r.IntN(18)))
		}
		s.sizes = append(s.sizes, 4<<10)
		in, got := newIntake(s, directRead<<r.IntN(8)), []byte(nil)
		for r.IntN(2000) > 0 {
			if r.IntN(4) == 0 {
				in.large = !in.large
			}
			if r.IntN(100) == 0 {
				in.grow(len(in.buf) + r.IntN(100))
			}
			p := make([]byte, 1+r.IntN(1<<r.IntN(18)))
			switch err := in.read(p, r.IntN(headerSize)); {
			case len(all)-len(got) >= len(p):
				if got = append(got, p...); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			case len(all) == len(got) && err != io.EOF, len(all) > len(got) && !errors.Is(err, io.ErrUnexpectedEOF):
				t.Fatalf("seed %d: %v at the end", seed, err)
			}
			if len(all)-len(got) < len(p) {
				break
			}
		}
		if !bytes.Equal(got, all[:len(got)]) {
			t.Fatalf("seed %d: other bytes", seed)
		}
	}
}

// TestInlet reads both halves of what is there, waits for it, and tells how it ends.
func TestInlet(t *testing.T) {
	ours, theirs := tcpPair(t)
	var count atomic.Uint64
	in := newInlet(ours, &count)
	a, b := make([]byte, 10), make([]byte, 10)
	read := func(n int, want error) {
		t.Helper()
		got, err := in.readBoth(a, b)
		if got != n || !errors.Is(err, want) {
			t.Errorf("%d bytes, %v; want %d, %v", got, err, n, want)
		}
	}
	send := func(s string) {
		t.Helper()
		if _, err := theirs.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	send("0123456789abcde")
	read(15, nil)
	if string(a)+string(b[:5]) != "0123456789abcde" || count.Load() != 15 {
		t.Errorf("%q and %q, %d bytes counted", a, b, count.Load())
	}
	var late sync.WaitGroup
	late.Go(func() { read(3, nil) })
	send("xyz")
	late.Wait()
	if err := ours.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	read(0, os.ErrDeadlineExceeded)
	if err := ours.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	read(0, io.EOF)
	ours.Close()
	read(0, net.ErrClosed)

	ours, theirs = tcpPair(t)
	in = newInlet(ours, &count)
	if err := theirs.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	read(0, unix.ECONNRESET)
}

// TestInletSendsFirst: before the reader waits, it sends, even if that fails, and closes
// the connection.
func TestInletSendsFirst(t *testing.T) {
	for _, broken := range []error{nil, unix.EPIPE} {
		ours, theirs := tcpPair(t)
		in := newInlet(ours, new(atomic.Uint64))
		in.queue, in.writer = newQueue(), newWriter(ours, time.Minute, &sequenceNumbers{})
		in.writer.err = broken
		in.queue.attend(true)
		in.queue.push(&note{header: header{0: opNopIn}}, true)
		var read sync.WaitGroup
		read.Go(func() {
			n, err := in.Read(make([]byte, 10))
			if broken == nil && (n != 2 || err != nil) || broken != nil && !errors.Is(err, net.ErrClosed) {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
		got := make([]byte, headerSize)
		if _, err := io.ReadFull(theirs, got); (err == nil) != (broken == nil) {
			t.Errorf("received: %v", err)
		}
		if broken == nil {
			if _, err := theirs.Write([]byte("hi")); err != nil {
				t.Fatal(err)
			}
		}
		read.Wait()
	}
}

// tcpPair is both ends of a connection.
func tcpPair(t *testing.T) (one, two net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if one, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if two, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { one.Close(); two.Close() })
	return one, two
}
