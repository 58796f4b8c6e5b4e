package initiator

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"
)

// writeBoth writes two slices, one behind the other, to a blocking socket.
func writeBoth(fd int, a, b []byte) error {
	for len(a)+len(b) > 0 {
		n, err := writev(fd, a, b)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrConnectionLost, err)
		}
		first := min(n, len(a))
		a, b = a[first:], b[n-first:]
	}
	return nil
}

func writev(fd int, a, b []byte) (int, error) {
	var vectors [2]syscall.Iovec
	n := 0
	for _, p := range [][]byte{a, b} {
		if len(p) > 0 {
			vectors[n].Base = unsafe.SliceData(p)
			vectors[n].SetLen(len(p))
			n++
		}
	}
	written, _, errno := syscall.Syscall(syscall.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&vectors)), uintptr(n))
	runtime.KeepAlive(a)
	runtime.KeepAlive(b)
	if errno != 0 {
		return 0, errno
	}
	return int(written), nil
}
