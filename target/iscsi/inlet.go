package iscsi

import (
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// inlet reads from the connection, and counts what is read. Before it reads it sends the
// data that the session has to send; before it waits, the rest: answers to writes, which
// come together then.
type inlet struct {
	conn  net.Conn
	raw   syscall.RawConn // of conn, or nil
	count *atomic.Uint64

	// Set when there is a session.
	queue  *queue
	writer *writer

	// For readBoth.
	pieces  [2][]byte
	wait    bool // for something to be there
	nothing bool // was there
	n       int
	err     error
	call    func(fd uintptr) bool
}

func newInlet(conn net.Conn, count *atomic.Uint64) *inlet {
	i := &inlet{conn: conn, count: count}
	if c, ok := conn.(syscall.Conn); ok {
		i.raw, _ = c.SyscallConn()
	}
	i.call = i.try
	return i
}

// Read reads from the connection.
func (i *inlet) Read(p []byte) (int, error) { return i.readBoth(p, nil) }

// readBoth implements scatterer.
func (i *inlet) readBoth(a, b []byte) (n int, err error) {
	if i.queue != nil && i.queue.data() {
		i.writer.sendNow(i.queue, true)
	}
	i.pieces, i.wait, i.nothing = [2][]byte{a, b}, false, false
	if n, err = i.read(); i.nothing {
		i.attend(false)
		i.wait = true
		n, err = i.read()
		i.attend(true)
	}
	i.pieces = [2][]byte{}
	i.count.Add(uint64(n))
	return n, err
}

// read reads to the pieces. Without wait, nothing may be there.
func (i *inlet) read() (int, error) {
	if i.raw == nil {
		if i.nothing = !i.wait; i.nothing {
			return 0, nil
		}
		return i.conn.Read(i.pieces[0])
	}
	i.n, i.err = 0, nil
	switch err := i.raw.Read(i.call); {
	case err != nil:
		return 0, err
	case i.err != nil:
		return 0, &net.OpError{Op: "read", Net: i.conn.LocalAddr().Network(), Source: i.conn.LocalAddr(), Addr: i.conn.RemoteAddr(), Err: i.err}
	case i.n == 0 && !i.nothing:
		return 0, io.EOF
	}
	return i.n, nil
}

// try calls the system, for raw; false: it is to be called again when something is
// there. Nothing may be sent here: if that fails, the connection is closed, and closing
// waits for those who read.
func (i *inlet) try(fd uintptr) (done bool) {
	for {
		switch n, err := i.system(int(fd)); err {
		case nil:
			i.n, i.nothing = n, false
			return true
		case unix.EAGAIN:
			i.nothing = !i.wait
			return i.nothing
		case unix.EINTR:
		default:
			i.err = os.NewSyscallError("read", err)
			return true
		}
	}
}

func (i *inlet) system(fd int) (int, error) {
	if len(i.pieces[1]) == 0 {
		return syscall.Read(fd, i.pieces[0]) // which the race detector knows
	}
	return unix.Readv(fd, i.pieces[:])
}

// attend says whether the reader is at work. Before it waits, it sends what there is.
func (i *inlet) attend(at bool) {
	if i.queue == nil {
		return
	}
	i.queue.attend(at)
	if !at {
		i.writer.sendNow(i.queue, true)
	}
}
