package scsi

import (
	"bytes"
	"fmt"
	"testing"
)

// TestWriteAtomic lists what is sent, and what comes of it, with logical blocks of 4096
// bytes, and with those of 512, of which eight make one that is written atomically.
func TestWriteAtomic(t *testing.T) {
	for _, tt := range []struct {
		name, cdb   string // block and number in units of 4096 bytes
		lba, n      uint64
		out         []byte // one byte stands for such a unit
		want, calls string
		after       []byte // units 3 to 6
	}{
		{"one", "9c 00 %016x 0000 %04x 00 00", 3, 1, []byte{9}, "good", "atomic 3+1", []byte{9, 4, 5, 6}},
		{"FUA and DPO", "9c 18 %016x 0000 %04x 00 00", 3, 3, []byte{7, 8, 9}, "good", "atomic fua 3+3", []byte{7, 8, 9, 6}},
		{"a boundary", "9c 00 %016x 0008 %04x 00 00", 4, 2, []byte{8, 9}, "good", "atomic 4+2", []byte{3, 8, 9, 6}},
		{"nothing", "9c 08 %016x 0000 %04x 00 00", 3, 0, nil, "good", "", []byte{3, 4, 5, 6}},
		{"nothing, at the end", "9c 00 %016x 0000 %04x 00 00", 64, 0, nil, "good", "", []byte{3, 4, 5, 6}},
		{"less data", "9c 00 %016x 0000 %04x 00 00", 3, 2, []byte{9}, "5 2400 c0000c", "", []byte{3, 4, 5, 6}},
		{"more data", "9c 00 %016x 0000 %04x 00 00", 3, 1, []byte{8, 9}, "5 2400 c0000c", "", []byte{3, 4, 5, 6}},
		{"beyond", "9c 00 %016x 0000 %04x 00 00", 63, 2, []byte{1, 1}, "5 2100", "", []byte{3, 4, 5, 6}},
		{"nothing, beyond", "9c 00 %016x 0000 %04x 00 00", 65, 0, nil, "5 2100", "", []byte{3, 4, 5, 6}},
		{"overflow", "9c 00 %016x 0000 %04x 00 00", 1<<61 - 1, 1, []byte{1}, "5 2100", "", []byte{3, 4, 5, 6}},
		{"too long, and beyond", "9c 00 %016x 0000 %04x 00 00", 0, 0x1fff, nil, "5 2100", "", []byte{3, 4, 5, 6}},
		{"boundary too large", "9c 00 %016x 1000 %04x 00 00", 3, 1, []byte{9}, "5 2400 c0000a", "", []byte{3, 4, 5, 6}},
		{"WRPROTECT", "9c 20 %016x 0000 %04x 00 00", 3, 1, []byte{9}, "5 2400 cd0001", "", []byte{3, 4, 5, 6}},
		{"reserved bit", "9c 01 %016x 0000 %04x 00 00", 3, 1, []byte{9}, "5 2400 c80001", "", []byte{3, 4, 5, 6}},
		{"group number", "9c 00 %016x 0000 %04x 01 00", 3, 1, []byte{9}, "5 2400 c8000e", "", []byte{3, 4, 5, 6}},
	} {
		for _, size := range []int{512, 4096} {
			t.Run(fmt.Sprint(tt.name, " ", size), func(t *testing.T) {
				disk := newRAM(64 * 4096)
				for i := range disk.p {
					disk.p[i] = byte(i / 4096)
				}
				r := newRigOf(t, disk, disk, uint32(size))
				per := uint64(4096 / size)
				r.want(r.do(fmt.Sprintf(tt.cdb, tt.lba*per, tt.n*per), fill(4096, tt.out...), 0), tt.want)
				r.wantCalls(tt.calls, 4096)
				if got := r.disk.p[3*4096 : 7*4096]; !bytes.Equal(got, fill(4096, tt.after...)) {
					t.Error("something else is on the disk")
				}
			})
		}
	}
}

// TestAtomicLimits: what VPD page B0h says of it holds; without a write cache it is
// durable.
func TestAtomicLimits(t *testing.T) {
	for size, c := range map[uint32]struct{ most, unit int }{512: {256, 8}, 1024: {128, 4}, 4096: {32, 1}} {
		disk := newRAM(512 * int(size))
		r := newRigOf(t, disk, disk, size)
		page := r.do("12 01 b0 00ff 00", nil, 255)
		want := fmt.Sprintf("%08x%08x%08x%08x%08x", c.most, c.unit, c.unit, c.most, c.most)
		if got := fmt.Sprintf("%x", page.In[44:64]); got != want {
			t.Errorf("blocks of %d: B0h says %s, want %s", size, got, want)
		}
		try := func(lba, boundary, n int, want string) {
			t.Helper()
			r.want(r.do(fmt.Sprintf("9c 00 %016x %04x %04x 00 00", lba, boundary, n), make([]byte, n*int(size)), 0), want)
		}
		try(c.unit, 0, c.most, "good")
		try(c.unit, c.most, c.most, "good")
		try(c.unit, 0, c.most+c.unit, "5 2400 c0000c")
		try(c.unit, c.most+c.unit, c.unit, "5 2400 c0000a")
		if c.unit > 1 {
			try(1, 0, c.unit, "5 2400 c00002")
			try(c.unit, 0, c.unit+1, "5 2400 c0000c")
			try(c.unit, 1, c.unit, "5 2400 c0000a")
		}
		r.disk.took()
		r.target.luns[0].writeThrough.Store(true)
		try(c.unit, 0, c.unit, "good")
		if got, want := r.disk.took(), "atomic fua 4096+4096"; got != want {
			t.Errorf("without a cache: %q, want %q", got, want)
		}
	}
}

// TestAtomicIsReported: REPORT SUPPORTED OPERATION CODES knows the command.
func TestAtomicIsReported(t *testing.T) {
	r := newRig(t)
	r.wantData(r.do("a3 0c 01 9c 0000 000000ff 00 00", nil, 255), "00 03 0010 9c 18 ffffffffffffffff ffff ffff 00 00")
}
