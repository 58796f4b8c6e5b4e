package backing

import (
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// NowReader is a Store that can tell whether a read would wait for the medium.
type NowReader interface {
	// ReadNow is ReadAt if that need not wait for the medium, as far as the Store can
	// tell: what it wants is in the page cache. Otherwise done is false, what p
	// holds means nothing, and ReadAt has to do it. It allocates nothing.
	ReadNow(p []byte, off int64) (done bool, err error)
}

var _ NowReader = (*Disk)(nil)

// ReadNow implements NowReader. Whatever is unusual is left to ReadAt, with its
// errors.
func (d *Disk) ReadNow(p []byte, off int64) (done bool, err error) {
	if err := d.check("read", off, int64(len(p))); err != nil {
		return false, err
	}
	if len(p) == 0 || d.cannotNow.Load() {
		return len(p) == 0, nil
	}
	n, err := d.medium.readNow(p, off)
	if err == unix.EOPNOTSUPP || err == unix.ENOSYS || err == unix.EINVAL {
		d.cannotNow.Store(true)
	}
	return err == nil && n == len(p), nil
}

// cached reads files out of the page cache, with preadv2 and RWF_NOWAIT.
type cached struct {
	file   *os.File
	raw    syscall.RawConn
	memory bool // a file system that is nothing but page cache, and knows no RWF_NOWAIT
}

func newCached(f *os.File) (cached, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return cached{}, err
	}
	var fs unix.Statfs_t
	err = control(f, func(fd int) error { return unix.Fstatfs(fd, &fs) })
	return cached{f, raw, err == nil && fs.Type == unix.TMPFS_MAGIC}, nil
}

// readNow reads as much as is there at once; EAGAIN: nothing.
func (c cached) readNow(p []byte, off int64) (int, error) {
	if c.memory {
		return c.file.ReadAt(p, off)
	}
	call := nowCalls.Get().(*nowCall)
	call.p, call.off = p, off
	err := c.raw.Control(call.control)
	n, errno := call.n, call.errno
	call.p = nil
	nowCalls.Put(call)
	switch {
	case err != nil:
		return 0, os.ErrClosed
	case errno != 0:
		return 0, errno
	}
	return n, nil
}

// nowCall is one call of the system, kept so that none of its parts is allocated
// again.
type nowCall struct {
	control func(fd uintptr) // c.run

	p     []byte
	off   int64
	vec   unix.Iovec
	n     int
	errno syscall.Errno
}

var nowCalls = sync.Pool{New: func() any {
	c := new(nowCall)
	c.control = c.run
	return c
}}

func (c *nowCall) run(fd uintptr) {
	c.vec.Base = &c.p[0]
	c.vec.SetLen(len(c.p))
	// The offset comes in two registers; where one holds it all, the other is ignored.
	low, high := uintptr(c.off), uintptr(uint64(c.off)>>32)
	n, _, errno := unix.Syscall6(unix.SYS_PREADV2, fd, uintptr(unsafe.Pointer(&c.vec)), 1, low, high, unix.RWF_NOWAIT)
	c.n, c.errno, c.vec.Base = int(n), errno, nil
}
