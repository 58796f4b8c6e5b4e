package daemon

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/dirtymap/mapfile"
	"github.com/twinlun/twinlun/target/backing"
)

// files are what a LUN has on this node's disks.
type files struct {
	store   *backing.Disk
	file    mapfile.File
	journal *backing.Side // of atomic writes
	size    int64         // of the LUN, as the map file says, in bytes
}

func (f *files) close() error {
	return errors.Join(f.store.Close(), f.file.Close(), f.journal.Close())
}

// beside is a file of the LUN that stands beside its map, under the same name.
func beside(l *config.LUN, suffix string) string {
	return strings.TrimSuffix(l.Map, filepath.Ext(l.Map)) + suffix
}

// journalFile is where a LUN's journal of atomic writes is: beside the map.
func journalFile(l *config.LUN) string {
	return beside(l, ".journal")
}

// openFiles opens the replica, its map file and its journal, or makes them for a new LUN:
// the map file after the replica, for it says that this is there.
func openFiles(c *config.LUN, boot [16]byte) (*files, error) {
	for _, path := range []string{c.Backing, c.Map} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("make the folder of %s: %w", path, err)
		}
	}
	size, err := mappedSize(c)
	if err != nil {
		return nil, err
	}
	store, blank, err := openStore(c, size)
	if err != nil {
		return nil, err
	}
	if size == 0 {
		size = c.Size
		id := mapfile.Identity{LUN: c.UUID, Geometry: dirtymap.Geometry{Size: c.Size, ExtentSize: c.ExtentSize}, BlockSize: c.BlockSize}
		if err := mapfile.CreateOS(c.Map, id, 0, mapfile.Meta{BootID: boot, Blank: blank}); err != nil {
			return nil, errors.Join(err, store.Close())
		}
	}
	file, err := mapfile.OpenOS(c.Map)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	journal, err := backing.OpenSide(journalFile(c))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("journal of atomic writes: %w", err), store.Close(), file.Close())
	}
	return &files{store, file, journal, size}, nil
}

// mappedSize is how large the LUN is, as its map file says; 0: there is none yet. Only
// the map file says so: a larger LUN in the configuration is one that is to grow.
func mappedSize(c *config.LUN) (int64, error) {
	id, err := mapfile.IdentityOS(c.Map)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, mapfile.ErrEmpty):
		return 0, nil
	case err == nil && id.LUN == c.UUID && c.Size < id.Size:
		return 0, fmt.Errorf("its size is %d bytes, and it is configured with %d: a LUN can grow, and does not shrink", id.Size, c.Size)
	}
	return id.Size, err
}

// openStore opens the replica's bytes, or makes them for a new LUN, whose mapped size
// is 0. Blank: every byte is zero.
func openStore(c *config.LUN, mapped int64) (store *backing.Disk, blank bool, err error) {
	_, err = os.Stat(c.Backing)
	switch missing := errors.Is(err, fs.ErrNotExist); {
	case missing && mapped > 0:
		// Zeros in the place of data that the map calls good would be served.
		return nil, false, fmt.Errorf("the replica %s is gone, but its map %s is there: bring the replica back, or move the map away to start a new replica, which is synchronised from the peer", c.Backing, c.Map)
	case missing:
		store, err = backing.CreateFile(c.Backing, c.Size)
		return store, true, err
	}
	if mapped == 0 {
		store, err = backing.Open(c.Backing, c.Size)
		return store, err == nil && empty(c.Backing), err
	}
	store, err = backing.Open(c.Backing, 0)
	if err == nil && store.Size() < mapped {
		err = fmt.Errorf("%w: the replica %s has %d bytes, and the LUN %d: bring the whole replica back", backing.ErrSize, c.Backing, store.Size(), mapped)
		err = errors.Join(err, store.Close())
	}
	return store, false, err
}

// empty tells whether a file has no bytes but holes: a start was interrupted before
// the map file was made.
func empty(path string) bool {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Blocks == 0
}

// bootID names the run of the kernel: it tells a crash of the daemon from one of
// the operating system.
func bootID() ([16]byte, error) {
	const path = "/proc/sys/kernel/random/boot_id"
	text, err := os.ReadFile(path)
	if err != nil {
		return [16]byte{}, fmt.Errorf("which run of the kernel is this: %w", err)
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", ""))
	if err != nil || len(raw) != 16 {
		return [16]byte{}, fmt.Errorf("which run of the kernel is this: %s has %q", path, text)
	}
	return [16]byte(raw), nil
}

func random() (id [16]byte) {
	rand.Read(id[:]) // never fails
	return id
}
