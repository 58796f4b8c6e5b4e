package backing

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

const mib = 1 << 20

func create(t testing.TB, size int64) *Disk {
	t.Helper()
	d, err := CreateFile(filepath.Join(t.TempDir(), "replica"), size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func pattern(n int, seed uint64) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	r.Read(p)
	return p
}

func read(t testing.TB, s Store, off, n int64) []byte {
	t.Helper()
	p := bytes.Repeat([]byte{0xee}, int(n))
	if err := s.ReadAt(p, off); err != nil {
		t.Fatal(err)
	}
	return p
}

func write(t testing.TB, s Store, p []byte, off int64) {
	t.Helper()
	if err := s.WriteAt(p, off); err != nil {
		t.Fatal(err)
	}
}

// allocated is the space that a file takes, in bytes.
func allocated(t testing.TB, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func TestNewFileIsSparseAndZero(t *testing.T) {
	d := create(t, 64*mib)
	if !Zeroes(read(t, d, 0, 64*mib)) {
		t.Error("a new replica is not all zeros")
	}
	if n := allocated(t, d.Path()); n > mib {
		t.Errorf("a new replica of 64 MiB takes %d bytes", n)
	}
	if info, err := os.Stat(d.Path()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v: nobody else may read it", info.Mode(), err)
	}
}

// TestAgainstModel does what a Store promises, on a Disk and on a byte slice.
func TestAgainstModel(t *testing.T) {
	const size = 40_000 // no multiple of any block
	for _, punches := range []bool{true, false} {
		t.Run(fmt.Sprintf("punches=%v", punches), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				d := create(t, size)
				d.cannotPunch.Store(!punches)
				model := make([]byte, size)
				for i := range rapid.IntRange(1, 30).Draw(rt, "steps") {
					off := rapid.Int64Range(0, size).Draw(rt, "off")
					n := rapid.Int64Range(0, size-off).Draw(rt, "n")
					if rapid.Bool().Draw(rt, "zero") {
						if err := d.Zero(off, n); err != nil {
							rt.Fatal(err)
						}
						clear(model[off : off+n])
						continue
					}
					p := pattern(int(n), uint64(i))
					write(t, d, p, off)
					copy(model[off:], p)
				}
				if !bytes.Equal(read(t, d, 0, size), model) {
					rt.Fatal("the replica differs from the model")
				}
				d.Close()
				d, err := OpenFile(d.Path(), size)
				if err != nil {
					rt.Fatal(err)
				}
				defer d.Close()
				if !bytes.Equal(read(t, d, 0, size), model) {
					rt.Fatal("after opening it again, the replica differs from the model")
				}
			})
		})
	}
}

func TestZeroGivesSpaceBack(t *testing.T) {
	d := create(t, 8*mib)
	write(t, d, pattern(8*mib, 1), 0)
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	before := allocated(t, d.Path())
	if err := d.Zero(100, 8*mib-200); err != nil {
		t.Fatal(err)
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	if d.cannotPunch.Load() {
		t.Skip("the file system of the temporary folder cannot punch holes")
	}
	if after := allocated(t, d.Path()); after > before/8 {
		t.Errorf("it took %d bytes, and %d after zeroing", before, after)
	}
}

func TestRange(t *testing.T) {
	const size = 8192
	d := create(t, size)
	write(t, d, pattern(size, 1), 0)
	want := read(t, d, 0, size)
	for _, c := range []struct {
		name   string
		off, n int64
	}{
		{"one byte beyond the end", size - 10, 11},
		{"at the end", size, 1},
		{"far beyond", 1 << 40, 1},
		{"negative offset", -1, 1},
		{"negative offset, nothing", -1, 0},
		{"offset and length overflow", 1<<63 - 1, 2},
		{"more than all", 0, size + 1},
		{"beyond the end, nothing", size + 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := make([]byte, c.n)
			for what, err := range map[string]error{
				"read":  d.ReadAt(p, c.off),
				"write": d.WriteAt(p, c.off),
				"zero":  d.Zero(c.off, c.n),
			} {
				if !errors.Is(err, ErrRange) {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
	if err := d.Zero(10, -5); !errors.Is(err, ErrRange) {
		t.Errorf("zero of a negative length: %v", err)
	}
	for _, off := range []int64{0, size} {
		if err := errors.Join(d.ReadAt(nil, off), d.WriteAt(nil, off), d.Zero(off, 0)); err != nil {
			t.Errorf("nothing at %d: %v", off, err)
		}
	}
	if !bytes.Equal(read(t, d, 0, size), want) {
		t.Error("a refused access changed the replica")
	}
}

func TestClosed(t *testing.T) {
	d := create(t, 8192)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 10)
	for what, err := range map[string]error{
		"read": d.ReadAt(p, 0), "write": d.WriteAt(p, 0), "zero": d.Zero(0, 8192),
		"sync": d.Sync(), "close": d.Close(),
	} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestTruncatedBehindOurBack(t *testing.T) {
	d := create(t, mib)
	write(t, d, pattern(mib, 1), 0)
	if err := os.Truncate(d.Path(), mib/2); err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{mib / 2, mib/2 - 10} {
		err := d.ReadAt(make([]byte, 4096), off)
		if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "truncated") {
			t.Errorf("read at %d: %v", off, err)
		}
	}
	if err := d.Sync(); !errors.Is(err, ErrFailed) || !errors.Is(err, ErrSize) {
		t.Errorf("sync: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, size int) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		name string
		open func() (*Disk, error)
		is   error  // may be nil
		says string // a part of the message
	}{
		{"not there", func() (*Disk, error) { return Open(dir+"/none", 0) }, fs.ErrNotExist, "none"},
		{"a folder", func() (*Disk, error) { return Open(dir, 0) }, nil, dir},
		{"too small", func() (*Disk, error) { return Open(file("s", 4096), 8192) }, ErrSize, "4096 bytes, the LUN 8192"},
		{"too large", func() (*Disk, error) { return Open(file("l", 8192), 4096) }, ErrSize, "8192 bytes, the LUN 4096"},
		{"empty", func() (*Disk, error) { return Open(file("e", 0), 0) }, ErrSize, "0 bytes"},
		{"character device", func() (*Disk, error) { return Open("/dev/null", 0) }, nil, "no block device"},
		{"a file as device", func() (*Disk, error) { return OpenDevice(file("f", 4096), 0) }, nil, "no block device"},
		{"create over a file", func() (*Disk, error) { return CreateFile(file("o", 4096), 4096) }, fs.ErrExist, "not overwritten"},
		{"create of no size", func() (*Disk, error) { return CreateFile(dir+"/z", 0) }, ErrSize, "0 bytes"},
		{"create in no folder", func() (*Disk, error) { return CreateFile(dir+"/no/z", 1) }, fs.ErrNotExist, "no/z"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := c.open()
			if err == nil {
				d.Close()
				t.Fatal("opened")
			}
			if c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Error(err)
			}
		})
	}
}

func TestCreateTooLargeLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "replica")
	d, err := CreateFile(path, 1<<63-1)
	if err == nil {
		d.Close()
		t.Skip("the file system of the temporary folder takes files of any size")
	}
	if !errors.Is(err, unix.EFBIG) && !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was left behind: %v", err)
	}
}

func TestLock(t *testing.T) {
	d := create(t, 8192)
	_, err := OpenFile(d.Path(), 8192)
	if !errors.Is(err, ErrInUse) {
		t.Fatalf("opened twice: %v", err)
	}
	if me := fmt.Sprintf("process %d (", os.Getpid()); !strings.Contains(err.Error(), me) {
		t.Errorf("does not say who has it (%s): %v", me, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := OpenFile(d.Path(), 8192)
	if err != nil {
		t.Fatalf("after it was closed: %v", err)
	}
	again.Close()
}

func TestFindLock(t *testing.T) {
	const text = "1: POSIX  ADVISORY  WRITE 7 fe:00:1234 0 EOF\n" +
		"2: -> FLOCK  ADVISORY  WRITE 8 fe:00:1234 0 EOF\n" +
		"3: FLOCK  ADVISORY  WRITE 9 fe:00:123 0 EOF\n" +
		"4: FLOCK\n" +
		"5: FLOCK  ADVISORY  WRITE 11 fe:00:1234 0 EOF\n" +
		"6: FLOCK  ADVISORY  WRITE x fe:00:99 0 EOF\n"
	for inode, want := range map[uint64]int{1234: 11, 123: 9, 12: 0, 99: 0} {
		if got := findLock([]byte(text), unix.Mkdev(0xfe, 0), inode); got != want {
			t.Errorf("inode %d: %d, want %d", inode, got, want)
		}
	}
}

func TestReadAndWriteAllocateNothing(t *testing.T) {
	d := create(t, mib)
	p := make([]byte, 4096)
	if n := testing.AllocsPerRun(100, func() {
		if d.WriteAt(p, 8192) != nil || d.ReadAt(p, 8192) != nil {
			t.Error("failed")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRead4K(b *testing.B) {
	d := create(b, mib)
	p := pattern(4096, 1)
	write(b, d, p, 0)
	b.ReportAllocs()
	for b.Loop() {
		if err := d.ReadAt(p, 0); err != nil {
			b.Fatal(err)
		}
	}
}

// A replica grows while it is used: what was there stays, what is new is zeros, and
// neither a Sync nor a later Open takes its new size amiss.
func TestGrow(t *testing.T) {
	d := create(t, mib)
	want := pattern(mib, 3)
	write(t, d, want, 0)
	stop := make(chan struct{})
	synced := make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				close(synced)
				return
			default:
				if err := d.Sync(); err != nil {
					synced <- err
				}
			}
		}
	}()
	for size := int64(mib); size <= 3*mib; size += 4096 {
		if err := d.Grow(size); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	for err := range synced {
		t.Error(err)
	}
	if d.Size() != 3*mib || !bytes.Equal(read(t, d, 0, mib), want) || !Zeroes(read(t, d, mib, 2*mib)) {
		t.Errorf("%d bytes, or not what was written and zeros", d.Size())
	}
	if err := d.Grow(2 * mib); !errors.Is(err, ErrSize) {
		t.Errorf("it shrank: %v", err)
	}
	write(t, d, want, 2*mib)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := OpenFile(d.Path(), 3*mib)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if !bytes.Equal(read(t, again, 2*mib, mib), want) {
		t.Error("what was written behind the old end is gone")
	}
}
