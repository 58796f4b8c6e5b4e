package transport

import (
	"bufio"
	"errors"
	"net"
	"sync"
	"syscall"
)

// readAhead is how much is read from a socket at once, in bytes: some records, where
// crypto/tls alone takes two system calls for each.
const readAhead = 128 << 10

// errTalkative: a stranger has sent more than a handshake needs.
var errTalkative = errors.New("more bytes than a handshake has")

// socket is what lies below a connection's TLS. During the handshake it passes bytes
// on, up to a quota. Afterwards what TLS writes stays in a buffer until flush or
// tryFlush: so TLS, which holds a lock meanwhile, never waits for the network.
type socket struct {
	net.Conn // the TCP connection

	// The reader's.
	quota int           // during the handshake: bytes that may still come
	in    *bufio.Reader // nil: the handshake is not over

	mu struct {
		sync.Mutex
		gather bool
		out    []byte // records that TLS has written
	}

	// The sender's: one goroutine at a time.
	rest []byte // of out, what the TCP connection gets next
	room []byte // the memory that rest lies in
	raw  syscall.RawConn
	try  func(fd uintptr) bool // s.writeNow, made once
}

func newSocket(c net.Conn, quota int) *socket {
	s := &socket{Conn: c, quota: quota}
	if sc, ok := c.(syscall.Conn); ok {
		s.raw, _ = sc.SyscallConn() // nil: tryFlush sends nothing, flush all
	}
	s.try = s.writeNow
	return s
}

// established ends the handshake: from now on only this node's peer is talking.
func (s *socket) established() {
	s.in = bufio.NewReaderSize(s.Conn, readAhead)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.gather = true
}

// Read is for TLS.
func (s *socket) Read(b []byte) (int, error) {
	if s.in != nil {
		return s.in.Read(b)
	}
	if s.quota <= 0 {
		return 0, errTalkative
	}
	n, err := s.Conn.Read(b[:min(len(b), s.quota)])
	s.quota -= n
	return n, err
}

// Write is for TLS.
func (s *socket) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mu.gather {
		return s.Conn.Write(b)
	}
	s.mu.out = append(s.mu.out, b...)
	return len(b), nil
}

// buffered is how many bytes of records wait in the buffer.
func (s *socket) buffered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.out)
}

// take moves the buffer to rest, if there is nothing in that.
func (s *socket) take() (some bool) {
	if len(s.rest) > 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room, s.mu.out = s.mu.out, s.room[:0]
	s.rest = s.room
	return len(s.rest) > 0
}

// flush sends everything. It waits as long as the connection's deadline allows.
func (s *socket) flush() error {
	for s.take() {
		n, err := s.Conn.Write(s.rest)
		s.rest = s.rest[n:]
		if err != nil {
			return err
		}
	}
	return nil
}

// tryFlush sends what the TCP connection takes at once, and tells whether that was
// everything. Whatever went wrong happens again to flush, and is found there.
func (s *socket) tryFlush() (all bool) {
	for s.take() {
		before := len(s.rest)
		if s.raw == nil || s.raw.Write(s.try) != nil || len(s.rest) == before {
			return false
		}
	}
	return true
}

// writeNow is called with the socket, which does not block. It always says that it is
// done, so that nobody waits until the socket takes more.
func (s *socket) writeNow(fd uintptr) bool {
	if n, err := syscall.Write(int(fd), s.rest); err == nil {
		s.rest = s.rest[n:]
	}
	return true
}
