package replication

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// nowWriter writes to a socket what it takes without waiting. One goroutine at a time
// uses it, and nobody writes to the net.Conn meanwhile: that might be waiting.
type nowWriter struct {
	raw  syscall.RawConn
	try  func(fd uintptr) bool // w.writev, made once
	out  [][]byte
	sent int
}

// newNowWriter is nil for a connection that has no socket of its own.
func newNowWriter(c net.Conn) *nowWriter {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	w := &nowWriter{raw: raw}
	w.try = w.writev
	return w
}

// write returns how many bytes of out were taken. Whatever went wrong happens again to
// whoever sends the rest, and is found there.
func (w *nowWriter) write(out [][]byte) int {
	w.out, w.sent = out, 0
	w.raw.Write(w.try)
	w.out = nil
	return w.sent
}

// writev is called with the socket, which does not block. It always says that it is
// done, so that nobody waits until the socket takes more.
func (w *nowWriter) writev(fd uintptr) bool {
	if n, err := unix.Writev(int(fd), w.out); err == nil {
		w.sent = n
	}
	return true
}
