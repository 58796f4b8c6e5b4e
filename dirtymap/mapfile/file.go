package mapfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/twinlun/twinlun/dirtymap"
	"golang.org/x/sys/unix"
)

// File is what a map file needs of the file below. Writes may be in any order
// and in part until Sync returns.
type File interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Truncate(size int64) error
	Size() (int64, error)
	Close() error
}

// readFull fills p from off on.
func readFull(f File, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %d bytes of the map file at offset %d: %w", len(p), off, err)
}

// osFile is a File of the operating system.
type osFile struct{ *os.File }

// OpenOS opens a file, or makes an empty one, and locks it against every other
// process until it is closed. Its directory entry is durable.
func OpenOS(path string) (File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open map file: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errors.New("another process has it open: does a second twinlund run on this directory?")
		}
		return nil, fmt.Errorf("lock map file %s: %w", path, err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		f.Close()
		return nil, err
	}
	return osFile{f}, nil
}

// CreateOS makes a map file under another name, and gives it its own when all of it
// is durable: a file that is there is whole, whatever happens meanwhile. It takes
// the place of an empty one.
func CreateOS(path string, id Identity, initial dirtymap.State, meta Meta) error {
	return makeOS(path, func(f File) error { return Create(f, id, initial, meta) })
}

// makeOS does what CreateOS promises, with any contents.
func makeOS(path string, write func(File) error) error {
	making := path + ".new"
	if err := os.Remove(making); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove what an earlier start has left: %w", err)
	}
	f, err := OpenOS(making)
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return errors.Join(err, os.Remove(making))
	}
	if err := os.Rename(making, path); err != nil {
		return fmt.Errorf("name the new map file: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open directory of the map file: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory of the map file %s: %w", dir, err)
	}
	return nil
}

// Sync makes data durable, and what is needed to find it.
func (f osFile) Sync() error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err != unix.EINTR {
			return err
		}
	}
}

// Size is the file's length in bytes.
func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}
