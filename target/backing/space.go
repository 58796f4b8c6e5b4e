package backing

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Provisioned is a Store that knows where it has space, and how much is left.
type Provisioned interface {
	// Mapped tells whether space is allocated at off, and for how many bytes from
	// there, at most n, that is so. Where it is not, the Store reads as zeros.
	Mapped(off, n int64) (mapped bool, run int64, err error)
	// Space is what is known of the medium's space. Not ok: it cannot be told.
	Space() (s Space, ok bool)
}

// Space is the space of a medium, in bytes.
type Space struct {
	Used      int64 // what the Store takes
	Available int64 // how much more the medium could give it, or anybody else
	Size      int64 // of the medium
}

var _ Provisioned = (*Disk)(nil)

// Mapped tells of a file's holes. A device, whose own provisioning the kernel does
// not tell, counts as mapped, and so does a file system without holes.
func (d *Disk) Mapped(off, n int64) (mapped bool, run int64, err error) {
	if err := d.check("ask for the space of", off, n); err != nil {
		return false, 0, err
	}
	file, ok := d.medium.(regular)
	if !ok || n == 0 {
		return true, n, nil
	}
	data, err := seek(file.File, off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // no data up to the end
		return false, n, nil
	case errors.Is(err, errors.ErrUnsupported):
		return true, n, nil
	case err != nil:
		return false, 0, d.fault("ask for the space of", off, n, err)
	case data > off:
		return false, min(data-off, n), nil
	}
	hole, err := seek(file.File, off, unix.SEEK_HOLE)
	if err != nil || hole <= off { // punched just now
		return true, min(n, punchAlign), d.unlessPunched(off, n, err)
	}
	return true, min(hole-off, n), nil
}

func (d *Disk) unlessPunched(off, n int64, err error) error {
	if err == nil || errors.Is(err, unix.ENXIO) {
		return nil
	}
	return d.fault("ask for the space of", off, n, err)
}

// seek looks for data or a hole. Nothing else here uses the file's offset.
func seek(f *os.File, off int64, whence int) (at int64, err error) {
	err = control(f, func(fd int) error {
		at, err = unix.Seek(fd, off, whence)
		return err
	})
	return at, unsupported(err)
}

// Space asks the file system. What a device has behind it cannot be told.
func (d *Disk) Space() (s Space, ok bool) {
	file, ok := d.medium.(regular)
	if !ok {
		return Space{}, false
	}
	s, err := fileSpace(file.File)
	return s, err == nil
}

func fileSpace(f *os.File) (s Space, err error) {
	var file unix.Stat_t
	var system unix.Statfs_t
	err = control(f, func(fd int) error {
		return errors.Join(unix.Fstat(fd, &file), unix.Fstatfs(fd, &system))
	})
	if err != nil {
		return Space{}, fmt.Errorf("ask for the space of %s: %w", f.Name(), err)
	}
	block := int64(system.Bsize)
	return Space{Used: file.Blocks * 512, Available: int64(system.Bavail) * block, Size: int64(system.Blocks) * block}, nil
}
