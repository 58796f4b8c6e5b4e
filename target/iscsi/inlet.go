package iscsi

import (
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// inlet reads from the connection. It counts what is read, and before it waits for more
// sends what the session has to send.
type inlet struct {
	conn  net.Conn
	raw   syscall.RawConn // of conn, or nil
	count *atomic.Uint64

	// Set when there is a session.
	queue  *queue
	writer *writer

	// For readBoth.
	pieces [2][]byte
	n      int
	err    error
	call   func(fd uintptr) bool
}

func newInlet(conn net.Conn, count *atomic.Uint64) *inlet {
	i := &inlet{conn: conn, count: count}
	if c, ok := conn.(syscall.Conn); ok {
		i.raw, _ = c.SyscallConn()
	}
	i.call = i.readv
	return i
}

// Read reads from the connection.
func (i *inlet) Read(p []byte) (int, error) {
	i.begin()
	n, err := i.conn.Read(p)
	i.end(n)
	return n, err
}

// readBoth implements scatterer.
func (i *inlet) readBoth(a, b []byte) (int, error) {
	if i.raw == nil {
		return i.Read(a)
	}
	i.begin()
	i.pieces, i.n, i.err = [2][]byte{a, b}, 0, nil
	err := i.raw.Read(i.call)
	i.pieces = [2][]byte{}
	i.end(i.n)
	switch {
	case err != nil:
		return 0, err
	case i.err != nil:
		return 0, &net.OpError{Op: "read", Net: i.conn.LocalAddr().Network(), Source: i.conn.LocalAddr(), Addr: i.conn.RemoteAddr(), Err: i.err}
	case i.n == 0:
		return 0, io.EOF
	}
	return i.n, nil
}

// readv calls the system; false: nothing is there yet.
func (i *inlet) readv(fd uintptr) bool {
	for {
		n, err := unix.Readv(int(fd), i.pieces[:])
		switch err {
		case nil:
			i.n = n
			return true
		case unix.EAGAIN:
			return false
		case unix.EINTR:
		default:
			i.err = os.NewSyscallError("readv", err)
			return true
		}
	}
}

// begin sends what there is to be sent; the reader is about to wait.
func (i *inlet) begin() {
	if i.queue != nil {
		i.queue.attend(false)
		i.writer.sendNow(i.queue, true)
	}
}

func (i *inlet) end(n int) {
	i.count.Add(uint64(n))
	if i.queue != nil {
		i.queue.attend(true)
	}
}
