package iscsi

import (
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// writeSome writes what the connection takes at once of w.sending; true: all.
//
// It is not net.Buffers.WriteTo, which waits, and which wants a new deadline
// each time.
func (w *writer) writeSome() bool {
	if w.raw == nil {
		return false
	}
	w.iovecs = w.iovecs[:0]
	for _, b := range w.sending {
		v := unix.Iovec{Base: unsafe.SliceData(b)}
		v.SetLen(len(b))
		w.iovecs = append(w.iovecs, v)
	}
	w.written, w.errno = 0, 0
	err := w.raw.Control(w.call)
	clear(w.iovecs)
	switch {
	case err != nil:
		w.err = err
	case w.errno != 0 && w.errno != unix.EAGAIN:
		w.err = w.errno
	}
	w.sending = consume(w.sending, w.written)
	return w.err == nil && len(w.sending) == 0
}

// writev calls the system. Sockets of Go never block.
func (w *writer) writev(fd uintptr) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&w.iovecs[0])), uintptr(len(w.iovecs)))
		if errno == unix.EINTR {
			continue
		}
		if w.errno = errno; errno != 0 {
			n = 0
		}
		w.written = int(n)
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
