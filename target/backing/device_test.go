package backing

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// loop makes a loop device over a new file and returns both names. The device
// goes by itself when the last one closes it, so a killed test leaves nothing.
func loop(t *testing.T, size int64) (dev, file string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a loop device takes root")
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no loop devices here: %v", err)
	}
	defer control.Close()
	back := create(t, size)
	f, err := os.OpenFile(back.Path(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 10 { // others may take the number that we were given
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Skipf("no loop device to be had: %v", err)
		}
		name := fmt.Sprintf("/dev/loop%d", n)
		l, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Skipf("no loop device to be had: %v", err)
		}
		err = unix.IoctlLoopConfigure(int(l.Fd()), &unix.LoopConfig{
			Fd:   uint32(f.Fd()),
			Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR},
		})
		if err == nil {
			t.Cleanup(func() { l.Close() })
			return name, back.Path()
		}
		l.Close()
		if !errors.Is(err, unix.EBUSY) {
			t.Skipf("no loop device to be had: %v", err)
		}
	}
	t.Skip("others take all loop devices")
	return "", ""
}

func TestDevice(t *testing.T) {
	const size = 8*mib + 512 // its end is not on a page
	name, file := loop(t, size)
	d, err := Open(name, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Size() != size {
		t.Fatalf("size %d", d.Size())
	}
	want := pattern(size, 1)
	write(t, d, want, 0)
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	before := allocated(t, file)
	for _, r := range [][2]int64{{1000, 4 * mib}, {6 * mib, 10}, {size - 700, 700}} {
		if err := d.Zero(r[0], r[1]); err != nil {
			t.Fatal(err)
		}
		clear(want[r[0] : r[0]+r[1]])
	}
	if !bytes.Equal(read(t, d, 0, size), want) {
		t.Error("wrong bytes")
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	if on, err := os.ReadFile(file); err != nil || !bytes.Equal(on, want) {
		t.Errorf("after Sync, the device holds other bytes (%v)", err)
	}
	t.Logf("space: %d bytes before zeroing, %d after", before, allocated(t, file))
}

func TestDeviceZeroOut(t *testing.T) {
	name, _ := loop(t, mib)
	d, err := OpenDevice(name, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	write(t, d, pattern(mib, 1), 0)
	span := [2]uint64{4096, 8192}
	if err := zeroOut(d.medium.(device).File, &span); err != nil {
		t.Fatal(err)
	}
	if !Zeroes(read(t, d, 4096, 8192)) || Zeroes(read(t, d, 0, 4096)) || Zeroes(read(t, d, 12288, 4096)) {
		t.Error("BLKZEROOUT zeroed something else")
	}
}

func TestDeviceSizes(t *testing.T) {
	name, _ := loop(t, mib)
	_, err := Open(name, mib+1)
	if !errors.Is(err, ErrSize) || !strings.Contains(err.Error(), "enlarge") {
		t.Errorf("too small a device: %v", err)
	}
	d, err := Open(name, mib-4096)
	if err != nil {
		t.Fatalf("a larger device will do: %v", err)
	}
	defer d.Close()
	if d.Size() != mib-4096 {
		t.Errorf("size %d", d.Size())
	}
	if err := d.WriteAt([]byte{1}, mib-4096); !errors.Is(err, ErrRange) {
		t.Errorf("wrote beyond the LUN: %v", err)
	}
}

func TestDeviceInUse(t *testing.T) {
	name, _ := loop(t, mib)
	d, err := Open(name, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(name, 0); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d, err = Open(name, 0)
	if err != nil {
		t.Fatalf("after it was closed: %v", err)
	}
	d.Close()
}

// TestFullFileSystem fills a real one.
func TestFullFileSystem(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting takes root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	d, err := CreateFile(filepath.Join(dir, "replica"), 4*mib)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	err = d.WriteAt(pattern(2*mib, 1), 0)
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "add space") {
		t.Fatalf("2 MiB went onto 1 MiB: %v", err)
	}
	if err := d.Zero(0, 4*mib); err != nil {
		t.Fatalf("zeroing gives space back: %v", err)
	}
	write(t, d, pattern(mib/2, 1), 3*mib)
}
