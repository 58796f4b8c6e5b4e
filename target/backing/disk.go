package backing

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Errors that callers tell apart. Those of the operating system are wrapped too:
// errors.Is(err, unix.ENOSPC) holds for a full file system.
var (
	// ErrRange is an access outside [0, Size).
	ErrRange = errors.New("outside the replica")
	// ErrFailed is every access after a failed Sync.
	ErrFailed = errors.New("replica has failed")
	// ErrInUse is an Open of a replica that somebody else has open.
	ErrInUse = errors.New("replica is in use")
	// ErrSize is an Open of a replica that has not the expected size.
	ErrSize = errors.New("replica has the wrong size")
)

// punchAlign is what Zero aligns the range to whose space it gives back: the
// block of the coherence protocol, and of most file systems. A file system with
// larger blocks zeroes the part of a block by itself.
const punchAlign = 4096

// medium is what the operating system does for a Disk; tests put faults here.
type medium interface {
	io.ReaderAt
	io.WriterAt
	// size is the present size, in bytes.
	size() (int64, error)
	// punch zeroes a range that is aligned to punchAlign and gives its space
	// back, or only zeroes it. errors.ErrUnsupported: it cannot, nothing is done.
	punch(off, n int64) error
	datasync() error
	// grow makes the medium at least so long, in bytes.
	grow(size int64) error
	// readNow reads what can be read without waiting, or fails.
	readNow(p []byte, off int64) (int, error)
	Close() error
}

// Disk is a Store in a regular file or on a block device. Buffered I/O, so that
// nothing need be aligned.
type Disk struct {
	// Fixed by open.
	path   string
	exact  bool // the medium has to stay as long as length
	medium medium

	length atomic.Int64 // changes with syncing held

	cannotPunch atomic.Bool           // the medium answered so once
	cannotNow   atomic.Bool           // the same, of readNow
	failed      atomic.Pointer[error] // of the Sync that failed

	started atomic.Uint64 // datasyncs begun; goes up with syncing held
	syncing sync.Mutex    // one datasync at a time
}

var _ Store = (*Disk)(nil)

// Path is the name that the Disk was opened by.
func (d *Disk) Path() string { return d.path }

// Size is the size of the replica in bytes.
func (d *Disk) Size() int64 { return d.length.Load() }

// ReadAt fills p with the bytes at off.
func (d *Disk) ReadAt(p []byte, off int64) error {
	if err := d.check("read", off, int64(len(p))); err != nil {
		return err
	}
	n, err := d.medium.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return d.fault("read", off, int64(len(p)), err)
}

// WriteAt stores p at off.
func (d *Disk) WriteAt(p []byte, off int64) error {
	if err := d.check("write", off, int64(len(p))); err != nil {
		return err
	}
	if _, err := d.medium.WriteAt(p, off); err != nil {
		return d.fault("write", off, int64(len(p)), err)
	}
	return nil
}

// Zero makes [off, off+n) read as zeros. The blocks that lie wholly in it go
// back to the medium; the rest is written.
func (d *Disk) Zero(off, n int64) error {
	if err := d.check("zero", off, n); err != nil {
		return err
	}
	first := (off + punchAlign - 1) &^ (punchAlign - 1)
	last := (off + n) &^ (punchAlign - 1)
	if first >= last || d.cannotPunch.Load() {
		return d.writeZeros(off, off+n)
	}
	switch err := d.medium.punch(first, last-first); {
	case errors.Is(err, errors.ErrUnsupported):
		d.cannotPunch.Store(true)
		return d.writeZeros(off, off+n)
	case err != nil:
		return d.fault("zero", first, last-first, err)
	}
	return errors.Join(d.writeZeros(off, first), d.writeZeros(last, off+n))
}

// writeZeros writes zeros from one offset to another.
func (d *Disk) writeZeros(from, to int64) error {
	for from < to {
		n := min(to-from, int64(len(zeros)))
		if _, err := d.medium.WriteAt(zeros[:n], from); err != nil {
			return d.fault("zero", from, n, err)
		}
		from += n
	}
	return nil
}

// Sync makes durable what was written before. One datasync serves all callers
// that wait for it.
//
// Only one runs at a time, and not for speed: the kernel reports a failed
// write-back once per open file, so of two datasyncs at a time one would be told
// "done" about data that is lost.
func (d *Disk) Sync() error { return d.syncSince(d.started.Load()) }

// syncSince is content with any datasync that started after the first seen ones.
func (d *Disk) syncSince(seen uint64) error {
	d.syncing.Lock()
	defer d.syncing.Unlock()
	if err := d.broken(); err != nil {
		return err
	}
	if d.started.Load() != seen {
		return nil // one that started after our call has ended well
	}
	d.started.Add(1)
	return d.syncLocked()
}

// syncLocked runs a datasync, with syncing held. Any failure is for good.
func (d *Disk) syncLocked() error {
	err := d.medium.datasync()
	if err == nil {
		err = d.checkLength()
	}
	if err == nil || errors.Is(err, os.ErrClosed) {
		return wrapPath("sync", d.path, err)
	}
	err = fmt.Errorf("%w: sync %s: %w%s", ErrFailed, d.path, err, hint(err))
	d.failed.Store(&err)
	return err
}

// checkLength finds a medium that somebody has cut off.
func (d *Disk) checkLength() error {
	n, err := d.medium.size()
	if err != nil {
		return err
	}
	length := d.length.Load()
	if n < length || d.exact && n != length {
		return fmt.Errorf("%w: %d bytes, it was opened with %d: somebody has resized it",
			ErrSize, n, length)
	}
	return nil
}

// Grow makes the replica larger, to size bytes: a file by adding a hole, a device by
// using more of it. What is new has to be zeroed by the caller: on a device there
// may be anything. The rest of the Disk goes on meanwhile.
func (d *Disk) Grow(size int64) error {
	d.syncing.Lock() // a Sync compares lengths
	defer d.syncing.Unlock()
	length := d.length.Load()
	if size < length {
		return fmt.Errorf("grow %s: %w: it has %d bytes, more than %d, and does not shrink", d.path, ErrSize, length, size)
	}
	if err := d.broken(); err != nil {
		return err
	}
	if err := d.medium.grow(size); err != nil {
		return fmt.Errorf("grow %s from %d to %d bytes: %w%s", d.path, length, size, err, hint(err))
	}
	d.length.Store(size)
	d.started.Add(1)
	return d.syncLocked() // which may be the one that is told of a failed write-back
}

// Close syncs and gives the replica up, also when the sync fails.
func (d *Disk) Close() error {
	err := d.Sync()
	if errors.Is(err, os.ErrClosed) {
		return err
	}
	return errors.Join(err, wrapPath("close", d.path, d.medium.Close()))
}

// check refuses accesses outside the replica, and all after a failed Sync: what
// is read then may be in memory only, or be what was there before.
func (d *Disk) check(what string, off, n int64) error {
	length := d.length.Load()
	if off < 0 || n < 0 || n > length || off > length-n {
		return fmt.Errorf("%s %d bytes at offset %d of %s (%d bytes): %w",
			what, n, off, d.path, length, ErrRange)
	}
	return d.broken()
}

// broken is the error of the Sync that failed, or nil.
func (d *Disk) broken() error {
	if err := d.failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (d *Disk) fault(what string, off, n int64, err error) error {
	return fmt.Errorf("%s %d bytes at offset %d of %s: %w%s", what, n, off, d.path, err, hint(err))
}

func wrapPath(what, path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w%s", what, path, err, hint(err))
}

// hint tells the operator what to do about an error of the operating system.
func hint(err error) string {
	switch {
	case errors.Is(err, unix.ENOSPC):
		return " (the file system or thin pool is full: free or add space; hosts that discard unused blocks give some back)"
	case errors.Is(err, unix.EDQUOT):
		return " (the quota is used up: raise it)"
	case errors.Is(err, unix.EFBIG):
		return " (larger than the file system or the limit on file sizes allows: use another file system, or raise LimitFSIZE)"
	case errors.Is(err, unix.EIO):
		return " (the medium has failed: see the kernel log, replace it, and let the replica be synchronised anew)"
	case errors.Is(err, unix.EROFS):
		return " (mounted read-only: see the kernel log, the file system may have found damage)"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return " (check its owner and mode, and those of its folders)"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return " (shorter than when it was opened: somebody has truncated it)"
	}
	return ""
}
