package salvage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// File is where a Writer's bytes go. Nobody finds it before Commit.
type File interface {
	Write(p []byte) (int, error)
	Commit() error  // makes it durable, in the place of one of the same name before
	Discard() error // removes it
}

// osFile is a File of the operating system: one of another name, until Commit.
type osFile struct {
	*os.File
	path string
}

// CreateOS begins the file at path, in a directory that exists.
func CreateOS(path string) (File, error) {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make salvage file: %w", err)
	}
	return &osFile{f, path}, nil
}

// Commit implements File.
func (f *osFile) Commit() error {
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("make salvage file durable: %w", err), os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), f.path); err != nil {
		return fmt.Errorf("name salvage file: %w", err)
	}
	dir, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return fmt.Errorf("open directory of the salvage file: %w", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Discard implements File.
func (f *osFile) Discard() error { return errors.Join(f.Close(), os.Remove(f.Name())) }
