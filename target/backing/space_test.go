package backing

import (
	"errors"
	"testing"
)

// holes tells of every 4 KiB block of a Disk whether it is mapped: one character each.
func holes(t *testing.T, d *Disk) string {
	t.Helper()
	s := ""
	for off := int64(0); off < d.Size(); {
		mapped, run, err := d.Mapped(off, d.Size()-off)
		if err != nil || run <= 0 || run > d.Size()-off {
			t.Fatalf("at %d: %v, %d bytes, %v", off, mapped, run, err)
		}
		for off += run; int64(len(s)) < off/4096; {
			s += map[bool]string{true: "#", false: "."}[mapped]
		}
	}
	return s
}

func TestMapped(t *testing.T) {
	d := create(t, 16*4096)
	if m, _, _ := d.Mapped(0, d.Size()); m {
		t.Skip("the file system tells nothing of holes")
	}
	for _, tt := range []struct {
		what string
		do   func()
		want string
	}{
		{"new", func() {}, "................"},
		{"written in the middle", func() { write(t, d, pattern(2*4096, 1), 3*4096) }, "...##..........."},
		{"a byte at the end", func() { write(t, d, []byte{1}, 16*4096-1) }, "...##..........#"},
		{"the beginning", func() { write(t, d, pattern(4096, 1), 0) }, "#..##..........#"},
		{"zeros written", func() { write(t, d, make([]byte, 4096), 8*4096) }, "#..##...#......#"},
		{"punched", func() { zero(t, d, 4*4096, 4096) }, "#..#....#......#"},
		{"half a block zeroed", func() { zero(t, d, 3*4096, 2048) }, "#..#....#......#"},
		{"all punched", func() { zero(t, d, 0, 16*4096) }, "................"},
		{"all written", func() { write(t, d, pattern(16*4096, 1), 0) }, "################"},
	} {
		tt.do()
		if got := holes(t, d); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.what, got, tt.want)
		}
	}
	if m, run, err := d.Mapped(5*4096+512, 1024); !m || run != 1024 || err != nil {
		t.Errorf("inside: %v, %d, %v", m, run, err)
	}
	if _, _, err := d.Mapped(16*4096, 1); !errors.Is(err, ErrRange) {
		t.Errorf("outside: %v", err)
	}
}

func zero(t *testing.T, d *Disk, off, n int64) {
	t.Helper()
	if err := d.Zero(off, n); err != nil {
		t.Fatal(err)
	}
}

func TestSpace(t *testing.T) {
	d := create(t, 4*mib)
	before, ok := d.Space()
	if !ok || before.Used >= mib || before.Available <= 0 || before.Size < before.Available {
		t.Fatalf("a new file: %+v, %v", before, ok)
	}
	write(t, d, pattern(2*mib, 1), 0)
	if err := d.Sync(); err != nil { // some file systems allocate late
		t.Fatal(err)
	}
	if after, ok := d.Space(); !ok || after.Used < before.Used+2*mib {
		t.Errorf("with 2 MiB of data: %+v", after)
	}
}

func TestDeviceIsMapped(t *testing.T) {
	name, _ := loop(t, mib)
	d, err := OpenDevice(name, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if m, run, err := d.Mapped(4096, mib-4096); !m || run != mib-4096 || err != nil {
		t.Errorf("%v, %d, %v", m, run, err)
	}
	if _, ok := d.Space(); ok {
		t.Error("a device tells of its space")
	}
}
