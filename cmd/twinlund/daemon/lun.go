package daemon

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/dirtymap/mapfile"
	"github.com/twinlun/twinlun/replication"
	"github.com/twinlun/twinlun/target/backing"
	"github.com/twinlun/twinlun/task"
)

// lun is a LUN of this node.
type lun struct {
	cfg     config.LUN
	replica *replication.Replica
}

func (l *lun) close() error { return l.replica.Close() }

// openLUNs opens all or none.
func openLUNs(cfg *config.Config, log *slog.Logger) (all []*lun, err error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	for _, c := range cfg.LUNs {
		r, err := openReplica(c, c.Preferred == cfg.Node, boot, cfg.Peer.CopyRate, len(cfg.LUNs), log)
		if err != nil {
			err = fmt.Errorf("LUN %d (%s): %w", c.Number, c.Name, err)
			for _, l := range all {
				err = errors.Join(err, l.close())
			}
			return nil, err
		}
		all = append(all, &lun{cfg: c, replica: r})
	}
	return all, nil
}

// openReplica opens a replica, or makes it if it is not there yet.
func openReplica(c config.LUN, preferred bool, boot [16]byte, rate int64, luns int, log *slog.Logger) (*replication.Replica, error) {
	for _, path := range []string{c.Backing, c.Map} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("make the folder of %s: %w", path, err)
		}
	}
	store, file, err := openFiles(c, boot)
	if err != nil {
		return nil, err
	}
	r, err := replication.OpenReplica(replication.ReplicaConfig{
		Number: uint32(c.Number), UUID: c.UUID, Preferred: preferred,
		Geometry: dirtymap.Geometry{Size: c.Size, ExtentSize: c.ExtentSize},
		Store:    store, MapFile: file,
		Boot: boot, Proposal: random(), ColdAfter: c.ColdAfter, ServeStale: c.ServeStale,
		CopyRate: rate, CopyWindow: copyWindow(luns),
		Runtime: task.System, Log: log,
	})
	if err != nil {
		return nil, errors.Join(err, store.Close(), file.Close())
	}
	return r, nil
}

// copyWindow is what a LUN may have in flight on a bulk stream, in bytes: 16 MiB, and
// less if there are so many LUNs that together they would fill the link's queue.
func copyWindow(luns int) int64 { return min(16<<20, 128<<20/int64(luns)) }

// openFiles opens the replica and its map file, or makes them for a new LUN: the
// map file last, for it says that the replica is there.
func openFiles(c config.LUN, boot [16]byte) (*backing.Disk, mapfile.File, error) {
	info, err := os.Stat(c.Map)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("look for the map file: %w", err)
	}
	mapped := err == nil && info.Size() > 0
	store, blank, err := openStore(c, mapped)
	if err != nil {
		return nil, nil, err
	}
	if !mapped {
		id := mapfile.Identity{LUN: c.UUID, Geometry: dirtymap.Geometry{Size: c.Size, ExtentSize: c.ExtentSize}}
		if err := mapfile.CreateOS(c.Map, id, 0, mapfile.Meta{BootID: boot, Blank: blank}); err != nil {
			return nil, nil, errors.Join(err, store.Close())
		}
	}
	file, err := mapfile.OpenOS(c.Map)
	if err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	return store, file, nil
}

// openStore opens the replica's bytes, or makes them for a new LUN. Blank: every
// byte is zero.
func openStore(c config.LUN, mapped bool) (store *backing.Disk, blank bool, err error) {
	_, err = os.Stat(c.Backing)
	switch missing := errors.Is(err, fs.ErrNotExist); {
	case missing && mapped:
		// Zeros in the place of data that the map calls good would be served.
		return nil, false, fmt.Errorf("the replica %s is gone, but its map %s is there: bring the replica back, or move the map away to start a new replica, which is synchronised from the peer", c.Backing, c.Map)
	case missing:
		store, err = backing.CreateFile(c.Backing, c.Size)
		return store, true, err
	}
	store, err = backing.Open(c.Backing, c.Size)
	return store, err == nil && empty(c.Backing), err
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
