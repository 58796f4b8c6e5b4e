package backing

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Side is a file beside a replica, such as its journal (package journal).
type Side struct{ *os.File }

// OpenSide opens a file for nobody else at the same time, or makes an empty one. Its
// name is durable.
func OpenSide(path string) (*Side, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open: %w%s", err, hint(err))
	}
	err = lock(f)
	if err == nil {
		err = syncFolder(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), f.Close())
	}
	return &Side{f}, nil
}

// Sync makes durable what was written, and what is needed to find it.
func (s *Side) Sync() error { return wrapPath("sync", s.Name(), datasync(s.File)) }

// Size is the file's length in bytes.
func (s *Side) Size() (int64, error) { return regular{File: s.File}.size() }
