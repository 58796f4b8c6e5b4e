package replication

import (
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// streamSender is the sending half of a socket. Whoever has the turn of the stream's
// queue uses it. An encrypted connection brings its own.
type streamSender interface {
	// TrySend takes all of out, and sends what the socket takes without waiting. false:
	// something is left for Send, and out must stay as it is until that has returned.
	TrySend(out net.Buffers) (all bool)
	// Send sends what TrySend has left, and then out, which may be empty. It waits.
	Send(out net.Buffers) error
}

func newStreamSender(c net.Conn) streamSender {
	if own, ok := c.(streamSender); ok {
		return own
	}
	s := &plainSender{conn: c}
	if sc, ok := c.(syscall.Conn); ok {
		s.raw, _ = sc.SyscallConn() // nil: no socket of its own; everything is left for Send
	}
	s.try = s.writev
	return s
}

// plainSender sends over a TCP connection as it is.
type plainSender struct {
	conn net.Conn
	raw  syscall.RawConn
	try  func(fd uintptr) bool // s.writev, made once
	rest net.Buffers           // what TrySend has left
	out  [][]byte              // writev's argument
	sent int                   // and its result
}

// TrySend implements streamSender. Whatever goes wrong happens again to Send, and is
// found there.
func (s *plainSender) TrySend(out net.Buffers) (all bool) {
	s.out, s.sent = out, 0
	if s.raw != nil {
		s.raw.Write(s.try)
	}
	s.out = nil
	s.rest = after(out, s.sent)
	return len(s.rest) == 0
}

// writev is called with the socket, which does not block. It always says that it is
// done, so that nobody waits until the socket takes more.
func (s *plainSender) writev(fd uintptr) bool {
	if n, err := unix.Writev(int(fd), s.out); err == nil {
		s.sent = n
	}
	return true
}

// Send implements streamSender.
func (s *plainSender) Send(out net.Buffers) error {
	_, err := s.rest.WriteTo(s.conn)
	s.rest = nil
	if err == nil && len(out) > 0 {
		_, err = out.WriteTo(s.conn)
	}
	return err
}

// after is what follows the first n bytes.
func after(out net.Buffers, n int) net.Buffers {
	for len(out) > 0 && n >= len(out[0]) {
		n -= len(out[0])
		out = out[1:]
	}
	if n > 0 {
		out[0] = out[0][n:]
	}
	return out
}

// provenPeer tells whether a node is the one that its connection has proven it to be.
// A plain TCP connection proves nothing.
func provenPeer(c net.Conn, name string) error {
	p, ok := c.(interface{ Peer() string })
	if !ok || p.Peer() == name {
		return nil
	}
	return fmt.Errorf("%s says that it is %s: one node has the other's configuration or certificate", p.Peer(), name)
}
