package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
)

// disks counts those of this process.
var disks atomic.Int64

// Disk is a small file system of its own (ext4 in a file), for a node's data.
type Disk struct {
	Dir   string // where it is mounted
	image string
	full  string // the file that takes all the space
}

// NewDisk makes a disk of so many bytes, 16 MiB or more, that goes with the test. Without
// root or mkfs.ext4 the test is skipped. Whoever uses it has to be gone before the test
// is: make the disk first.
func NewDisk(t testing.TB, size int64) *Disk {
	t.Helper()
	need(t)
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("a disk of its own needs mkfs.ext4; on Debian: apt-get install e2fsprogs")
	}
	base := filepath.Join(os.TempDir(), fmt.Sprintf("%s%d-disk%d", prefix, os.Getpid(), disks.Add(1)))
	d := &Disk{Dir: filepath.Join(base, "mnt"), image: filepath.Join(base, "image")}
	d.full = filepath.Join(d.Dir, "full")
	t.Cleanup(func() {
		if err := d.remove(base); err != nil {
			t.Errorf("remove the disk: %v", err)
		}
	})
	if err := d.build(size); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *Disk) build(size int64) error {
	return firstError(
		func() error { return os.MkdirAll(d.Dir, 0o700) },
		func() error { return os.WriteFile(d.image, nil, 0o600) },
		func() error { return os.Truncate(d.image, size) },
		// -m 0: what is reserved for root would be space for a test that runs as root.
		func() error { return run("mkfs.ext4", "-q", "-m", "0", d.image) },
		d.mount,
	)
}

func (d *Disk) mount() error {
	return run("mount", "-o", "loop,errors=remount-ro", d.image, d.Dir)
}

// remove unmounts the disk; lazily, so that a process that hangs keeps no name.
func (d *Disk) remove(base string) error {
	err := syscall.Unmount(d.Dir, syscall.MNT_DETACH)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, os.ErrNotExist) {
		err = nil // it is not mounted
	}
	return errors.Join(err, os.RemoveAll(base))
}

// Fill takes all the space that is left, up to the last block.
func (d *Disk) Fill() error {
	f, err := os.OpenFile(d.full, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("fill the disk: %w", err)
	}
	defer f.Close()
	p := make([]byte, 1<<20)
	for len(p) >= 512 {
		_, err := f.Write(p)
		if errors.Is(err, syscall.ENOSPC) {
			p = p[:len(p)/2]
		} else if err != nil {
			return fmt.Errorf("fill the disk: %w", err)
		}
	}
	return f.Sync()
}

// Free gives back what Fill took.
func (d *Disk) Free() error {
	if err := os.Remove(d.full); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("free the disk: %w", err)
	}
	return nil
}

// ReadOnly is what becomes of a disk that has had an error: from now on the kernel
// refuses each write, to files that are open too. A plain remount would be refused itself,
// as long as there are any.
func (d *Disk) ReadOnly() error { return run("mount", "-o", "remount,abort", d.Dir) }

// Repair is what an administrator does about it: unmount, check, mount again. Nobody may
// have files open.
func (d *Disk) Repair() error {
	if err := syscall.Unmount(d.Dir, 0); err != nil {
		return fmt.Errorf("repair the disk: unmount %s: %w", d.Dir, err)
	}
	err := run("fsck.ext4", "-f", "-y", d.image)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 { // it has found something, and repaired it
		err = nil
	}
	return errors.Join(err, d.mount())
}
