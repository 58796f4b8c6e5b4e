package backing

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Open opens the replica at path, a regular file or a block device. See OpenFile
// and OpenDevice for the meaning of size.
func Open(path string, size int64) (*Disk, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open replica: %w%s", err, hint(err))
	}
	if info.Mode()&fs.ModeDevice != 0 {
		return OpenDevice(path, size)
	}
	return OpenFile(path, size)
}

// OpenFile opens a replica in a regular file, for nobody else at the same time.
// The file has to be of exactly size bytes; with size 0, whatever it has counts.
func OpenFile(path string, size int64) (*Disk, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open replica: %w%s", err, hint(err))
	}
	d, err := adoptFile(f, size)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open replica %s: %w", path, err), f.Close())
	}
	return d, nil
}

// CreateFile makes a sparse file of size bytes, durably, and opens it. A file of
// that name must not exist; so the new replica is all zeros.
func CreateFile(path string, size int64) (*Disk, error) {
	if size <= 0 {
		return nil, fmt.Errorf("create replica %s: %w: %d bytes", path, ErrSize, size)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create replica: %w (open it, or choose another name: its data is not overwritten)", err)
	}
	if err != nil {
		return nil, fmt.Errorf("create replica: %w%s", err, hint(err))
	}
	d, err := growNew(f, size)
	if err != nil {
		err = fmt.Errorf("create replica %s of %d bytes: %w%s", path, size, err, hint(err))
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return d, nil
}

// growNew gives a new file its size and makes it and its name durable.
func growNew(f *os.File, size int64) (*Disk, error) {
	if err := f.Truncate(size); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	if err := syncFolder(filepath.Dir(f.Name())); err != nil {
		return nil, err
	}
	return adoptFile(f, size)
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// adoptFile locks an open file, checks it and makes a Disk of it.
func adoptFile(f *os.File, size int64) (*Disk, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("it is neither a regular file nor a block device (%s)", info.Mode().Type())
	}
	if err := lock(f); err != nil {
		return nil, err
	}
	if size != 0 && info.Size() != size || info.Size() == 0 {
		return nil, fmt.Errorf("%w: the file has %d bytes, the LUN %d: is it the right file?",
			ErrSize, info.Size(), size)
	}
	now, err := newCached(f)
	if err != nil {
		return nil, err
	}
	return newDisk(f, info.Size(), true, regular{f, now}), nil
}

// OpenDevice opens a replica on a block device, for nobody else at the same
// time: not while it is mounted, part of a volume group or open in another
// daemon. Devices come in sizes of their own, so a larger one than size bytes
// will do, and what is beyond is left alone; with size 0 all of it is used.
func OpenDevice(path string, size int64) (*Disk, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("open replica: %w: %w (lsblk and fuser tell who has it: unmount it or stop that program)",
			ErrInUse, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open replica: %w%s", err, hint(err))
	}
	d, err := adoptDevice(f, size)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open replica %s: %w", path, err), f.Close())
	}
	return d, nil
}

// adoptDevice checks an open device and makes a Disk of it.
func adoptDevice(f *os.File, size int64) (*Disk, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode()&fs.ModeDevice == 0 || info.Mode()&fs.ModeCharDevice != 0 {
		return nil, fmt.Errorf("it is no block device (%s)", info.Mode().Type())
	}
	now, err := newCached(f)
	if err != nil {
		return nil, err
	}
	dev := device{f, now}
	has, err := dev.size()
	if err != nil {
		return nil, fmt.Errorf("ask for its size: %w", err)
	}
	if has < size || has == 0 {
		return nil, fmt.Errorf("%w: the device has %d bytes, the LUN %d: enlarge the device",
			ErrSize, has, size)
	}
	if size == 0 {
		size = has
	}
	return newDisk(f, size, false, dev), nil
}

func newDisk(f *os.File, length int64, exact bool, m medium) *Disk {
	d := &Disk{path: f.Name(), exact: exact, medium: m}
	d.length.Store(length)
	return d
}
