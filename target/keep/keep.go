// Package keep keeps small files that are replaced as a whole: whoever opens one finds
// what was written before or what is written now, also after a loss of power.
package keep

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Read reads a file of at most most bytes; of a longer one it returns one byte more.
// What a crash left of a Replace is cleared away: it was never in force.
func Read(path string, most int) ([]byte, error) {
	if err := os.Remove(beside(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, int64(most)+1))
}

// Replace makes p the contents of a file, durably: p is written beside it and flushed,
// then takes its name. With an error the file has either contents.
func Replace(path string, p []byte) error {
	if err := writeFlushed(beside(path), p); err != nil {
		return errors.Join(err, os.Remove(beside(path)))
	}
	if err := os.Rename(beside(path), path); err != nil {
		return err
	}
	return flushFolder(path)
}

// Remove takes a file away, durably. One that is not there is no error.
func Remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return flushFolder(path)
}

func beside(path string) string { return path + ".new" }

func writeFlushed(path string, p []byte) error {
	// What a crash has left could have another mode.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(p)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func flushFolder(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
