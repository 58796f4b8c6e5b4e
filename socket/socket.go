// Package socket sends over a connection what that takes at once. It promises that a
// Sender never waits, allocates nothing once it has been used, and sends each byte once.
//
// It is not net.Buffers.WriteTo, which waits, and which wants a new deadline each time.
package socket

import (
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxVectors is what the system takes with one call (IOV_MAX).
const maxVectors = 1024

// Sender sends over one connection. One goroutine at a time uses it, and nobody else
// writes to the connection meanwhile.
type Sender struct {
	raw  syscall.RawConn  // nil: the connection has no socket of its own
	call func(fd uintptr) // s.writev, made once

	vectors []unix.Iovec
	written int
	errno   syscall.Errno
}

// NewSender makes a Sender. Over what has no socket of its own it sends nothing.
func NewSender(c net.Conn) *Sender {
	s := new(Sender)
	if sc, ok := c.(syscall.Conn); ok {
		s.raw, _ = sc.SyscallConn() // nil with an error
	}
	s.call = s.writev
	return s
}

// Send sends what the connection takes at once, and returns what is left. It changes out.
// An error says that nothing can be sent any more; that there is no room now is none.
func (s *Sender) Send(out net.Buffers) (rest net.Buffers, err error) {
	if s.raw == nil || len(out) == 0 {
		return out, nil
	}
	s.vectors = s.vectors[:0]
	for _, b := range out[:min(len(out), maxVectors)] {
		v := unix.Iovec{Base: unsafe.SliceData(b)}
		v.SetLen(len(b))
		s.vectors = append(s.vectors, v)
	}
	s.written, s.errno = 0, 0
	err = s.raw.Control(s.call)
	clear(s.vectors)
	if err == nil && s.errno != 0 && s.errno != unix.EAGAIN {
		err = s.errno
	}
	return consume(out, s.written), err
}

// writev calls the system. Sockets of Go never block.
func (s *Sender) writev(fd uintptr) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&s.vectors[0])), uintptr(len(s.vectors)))
		if errno == unix.EINTR {
			continue
		}
		if s.errno = errno; errno == 0 {
			s.written = int(n)
		}
		return
	}
}

// consume drops the first n bytes.
func consume(v net.Buffers, n int) net.Buffers {
	for len(v) > 0 && n >= len(v[0]) {
		n -= len(v[0])
		v = v[1:]
	}
	if n > 0 {
		v[0] = v[0][n:]
	}
	return v
}
