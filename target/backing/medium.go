package backing

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// regular is a regular file.
type regular struct {
	*os.File
	cached
}

func (r regular) size() (int64, error) {
	info, err := r.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (r regular) datasync() error          { return datasync(r.File) }
func (r regular) grow(size int64) error    { return r.Truncate(size) }
func (r regular) punch(off, n int64) error { return punchHole(r.File, off, n) }

// device is a block device.
type device struct {
	*os.File
	cached
}

func (d device) size() (int64, error) {
	var n uint64
	err := ioctl(d.File, unix.BLKGETSIZE64, unsafe.Pointer(&n))
	return int64(n), err
}

func (d device) datasync() error { return datasync(d.File) }

func (d device) grow(size int64) error {
	has, err := d.size()
	if err == nil && has < size {
		err = fmt.Errorf("%w: the device has %d bytes: enlarge it first", ErrSize, has)
	}
	return err
}

// punch uses fallocate, which on a block device means: unmap, but only if the
// range reads as zeros afterwards. BLKDISCARD promises nothing of the kind.
// Failing that, BLKZEROOUT zeroes without giving space back; the kernel writes
// the zeros itself where the device has no command for it.
func (d device) punch(off, n int64) error {
	err := punchHole(d.File, off, n)
	if !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return unsupported(zeroOut(d.File, &[2]uint64{uint64(off), uint64(n)}))
}

// zeroOut zeroes a span: offset and length in bytes, multiples of 512.
func zeroOut(f *os.File, span *[2]uint64) error {
	return ioctl(f, unix.BLKZEROOUT, unsafe.Pointer(span))
}

func punchHole(f *os.File, off, n int64) error {
	return unsupported(control(f, func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	}))
}

func datasync(f *os.File) error {
	return control(f, unix.Fdatasync)
}

// unsupported names the ways in which kernels and drivers say "I cannot". EINVAL
// comes from devices whose own blocks are larger than punchAlign.
func unsupported(err error) error {
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS),
		errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EINVAL):
		return errors.ErrUnsupported
	}
	return err
}

// ioctl calls with an argument in memory.
func ioctl(f *os.File, request uint, arg unsafe.Pointer) error {
	return control(f, func(fd int) error {
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg)); e != 0 {
			return e
		}
		return nil
	})
}

// control calls the system with f's descriptor, which stays open meanwhile, and
// again when a signal came in between.
func control(f *os.File, call func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	err = raw.Control(func(fd uintptr) {
		for callErr = call(int(fd)); callErr == unix.EINTR; {
			callErr = call(int(fd))
		}
	})
	if err != nil {
		// The only reason there is; the error that Control gives has no name.
		return os.ErrClosed
	}
	return callErr
}
