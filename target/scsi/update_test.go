package scsi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// TestCompareAndWrite lists what is on four blocks, what is sent, and what comes of it.
func TestCompareAndWrite(t *testing.T) {
	for _, tt := range []struct {
		name, cdb string
		out       []byte // one byte stands for a block
		want      string
		calls     string // in blocks
		after     []byte // blocks 3 to 6
	}{
		{"equal", "89 00 0000000000000003 000000 01 00 00", []byte{3, 9}, "good", "update 3+1", []byte{9, 4, 5, 6}},
		{"equal, FUA and DPO", "89 18 0000000000000003 000000 02 00 00", []byte{3, 4, 8, 9}, "good", "update fua 3+2", []byte{8, 9, 5, 6}},
		{"first differs", "89 00 0000000000000003 000000 02 00 00", []byte{7, 4, 8, 9}, "e 1d00", "update 3+2", []byte{3, 4, 5, 6}},
		{"second differs", "89 08 0000000000000003 000000 02 00 00", []byte{3, 7, 8, 9}, "e 1d00", "update fua 3+2", []byte{3, 4, 5, 6}},
		{"nothing", "89 00 0000000000000003 000000 00 00 00", nil, "good", "", []byte{3, 4, 5, 6}},
		{"too little data", "89 00 0000000000000003 000000 02 00 00", []byte{3, 9}, "5 2400 c0000d", "", []byte{3, 4, 5, 6}},
		{"too much data", "89 00 0000000000000003 000000 01 00 00", []byte{3, 4, 8, 9}, "5 2400 c0000d", "", []byte{3, 4, 5, 6}},
		{"beyond", "89 00 000000000000003f 000000 02 00 00", []byte{63, 0, 0, 0}, "5 2100", "", []byte{3, 4, 5, 6}},
		{"overflow", "89 00 ffffffffffffffff 000000 01 00 00", []byte{0, 0}, "5 2100", "", []byte{3, 4, 5, 6}},
		{"WRPROTECT", "89 20 0000000000000003 000000 01 00 00", []byte{3, 9}, "5 2400 cd0001", "", []byte{3, 4, 5, 6}},
		{"reserved byte", "89 00 0000000000000003 000100 01 00 00", []byte{3, 9}, "5 2400 c8000b", "", []byte{3, 4, 5, 6}},
		{"group number", "89 00 0000000000000003 000000 01 01 00", []byte{3, 9}, "5 2400 c8000e", "", []byte{3, 4, 5, 6}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bothSizes(t, func(r *rig, size int) {
				r.want(r.do(tt.cdb, fill(size, tt.out...), 0), tt.want)
				r.wantCalls(tt.calls, size)
				if got := r.disk.p[3*size : 7*size]; !bytes.Equal(got, fill(size, tt.after...)) {
					r.t.Error("something else is on the disk")
				}
			})
		})
	}
}

// wantCalls compares what the disk saw with calls in blocks.
func (r *rig) wantCalls(want string, size int) {
	r.t.Helper()
	if i := strings.LastIndexByte(want, ' '); i >= 0 {
		first, n := span(want)
		want = fmt.Sprintf("%s %d+%d", want[:i], first*size, n*size)
	}
	if got := r.disk.took(); got != want {
		r.t.Errorf("disk saw %q, want %q", got, want)
	}
}

// TestMiscompareInformation: VALID, and the offset of the first byte that differs.
func TestMiscompareInformation(t *testing.T) {
	bothSizes(t, func(r *rig, size int) {
		for _, at := range []int{0, 1, size - 1, size, 2*size - 1} {
			out := append(fill(size, 3, 4), fill(size, 8, 9)...)
			out[at]++
			c := r.do("89 00 0000000000000003 000000 02 00 00", out, 0)
			want := fmt.Sprintf("f0000e %08x 0a00000000 1d00 00 000000", at)
			if !bytes.Equal(c.Sense, unhex(t, want)) {
				r.t.Errorf("sense %x, want %s", c.Sense, want)
			}
		}
	})
}

// TestCompareLimit: what VPD page B0h says of it holds.
func TestCompareLimit(t *testing.T) {
	for size, most := range map[uint32]int{512: 255, 1024: 128, 4096: 32} {
		disk := newRAM(256 * int(size))
		r := newRigOf(t, disk, disk, size)
		if c := r.do("12 01 b0 00ff 00", nil, 255); int(c.In[5]) != most {
			t.Errorf("blocks of %d: MAXIMUM COMPARE AND WRITE LENGTH %d, want %d", size, c.In[5], most)
		}
		cdb := func(n int) string { return fmt.Sprintf("89 00 0000000000000000 000000 %02x 00 00", n) }
		r.want(r.do(cdb(most), make([]byte, 2*most*int(size)), 0), "good")
		if most < 255 {
			r.want(r.do(cdb(most+1), make([]byte, 2*(most+1)*int(size)), 0), "5 2400 c0000d")
		}
	}
}

func TestOrWrite(t *testing.T) {
	for _, tt := range []struct {
		name, cdb   string
		out         []byte
		want, calls string
		after       []byte // blocks 3 to 6
	}{
		{"one", "8b 00 0000000000000003 00000001 00 00", []byte{0xa4}, "good", "update 3+1", []byte{0xa7, 4, 5, 6}},
		{"two, FUA and DPO", "8b 18 0000000000000003 00000002 00 00", []byte{0x10, 0x20}, "good", "update fua 3+2", []byte{0x13, 0x24, 5, 6}},
		{"nothing", "8b 00 0000000000000003 00000000 00 00", nil, "good", "", []byte{3, 4, 5, 6}},
		{"less data", "8b 00 0000000000000003 00000002 00 00", []byte{0x10}, "good", "update 3+1", []byte{0x13, 4, 5, 6}},
		{"no data", "8b 00 0000000000000003 00000002 00 00", nil, "good", "", []byte{3, 4, 5, 6}},
		{"ORPROTECT", "8b 20 0000000000000003 00000001 00 00", []byte{1}, "5 2400 cd0001", "", []byte{3, 4, 5, 6}},
		{"beyond", "8b 00 000000000000003f 00000002 00 00", []byte{1, 1}, "5 2100", "", []byte{3, 4, 5, 6}},
		{"nothing, beyond", "8b 00 0000000000000041 00000000 00 00", nil, "5 2100", "", []byte{3, 4, 5, 6}},
		{"too long", "8b 00 0000000000000000 00008001 00 00", nil, "5 2400 c0000a", "", []byte{3, 4, 5, 6}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bothSizes(t, func(r *rig, size int) {
				r.want(r.do(tt.cdb, fill(size, tt.out...), 0), tt.want)
				r.wantCalls(tt.calls, size)
				if got := r.disk.p[3*size : 7*size]; !bytes.Equal(got, fill(size, tt.after...)) {
					r.t.Error("something else is on the disk")
				}
			})
		})
	}
}

// TestLongOrWrite is done in pieces that the disk takes.
func TestLongOrWrite(t *testing.T) {
	disk := newRAM(3*maxUpdate + 4096)
	r := newRigOf(t, disk, disk, 512)
	n := (2*maxUpdate + 512) / 512
	out := make([]byte, n*512)
	for i := range out {
		out[i], disk.p[512+i] = byte(i*7), byte(i/512)
	}
	before := bytes.Clone(disk.p)
	r.want(r.do(fmt.Sprintf("8b 00 0000000000000001 %08x 00 00", n), out, 0), "good")
	for i, b := range out {
		before[512+i] |= b
	}
	if !bytes.Equal(disk.p, before) || len(disk.outside) > 0 {
		t.Errorf("something else is on the disk; %v", disk.outside)
	}
	if got := disk.took(); got != fmt.Sprintf("update 512+%d, update %d+%d, update %d+512", maxUpdate, 512+maxUpdate, maxUpdate, 512+2*maxUpdate) {
		t.Error(got)
	}
}

// TestUpdateErrors has the disk fail under what changes it in place.
func TestUpdateErrors(t *testing.T) {
	for err, want := range map[error]string{
		errors.New("bad sector"): "3 0c00", fails(true): "2 0401",
		syscall.ENOSPC: "7 2707", syscall.EDQUOT: "7 2707",
	} {
		for cdb, n := range map[string]int{
			"89 00 0000000000000000 000000 01 00 00": 2,
			"8b 00 0000000000000000 00000001 00 00":  1,
			"2e 00 00000000 00 0001 00":              1,
			"ae 02 00000000 00000001 00 00":          1,
			"8e 00 0000000000000000 00000001 00 00":  1,
		} {
			r := newRig(t)
			r.disk.fail = err
			r.want(r.do(cdb, make([]byte, n*512), 0), want)
		}
	}
}

// TestWriteAndVerify: durable, then read again, then compared.
func TestWriteAndVerify(t *testing.T) {
	const wrote = "write fua 1536+1024, read 1536+1024"
	for _, tt := range []struct{ name, cdb, want, calls string }{
		{"(10)", "2e 00 00000003 00 0002 00", "good", wrote},
		{"(10) DPO, BYTCHK 1", "2e 12 00000003 00 0002 00", "good", wrote},
		{"(12)", "ae 00 00000003 00000002 00 00", "good", wrote},
		{"(12) BYTCHK 1", "ae 02 00000003 00000002 00 00", "good", wrote},
		{"(16)", "8e 00 0000000000000003 00000002 00 00", "good", wrote},
		{"(16) BYTCHK 1", "8e 02 0000000000000003 00000002 00 00", "good", wrote},
		{"nothing", "2e 02 00000003 00 0000 00", "good", ""},
		{"BYTCHK 2", "2e 04 00000003 00 0002 00", "5 2400 ca0001", ""},
		{"BYTCHK 3", "8e 06 0000000000000003 00000002 00 00", "5 2400 ca0001", ""},
		{"FUA is not there", "2e 08 00000003 00 0002 00", "5 2400 cb0001", ""},
		{"WRPROTECT", "2e 20 00000003 00 0002 00", "5 2400 cd0001", ""},
		{"beyond", "ae 00 0000003f 00000002 00 00", "5 2100", ""},
		{"too long", "8e 00 0000000000000003 00008001 00 00", "5 2400 c0000a", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			before := bytes.Clone(r.disk.p)
			r.want(r.do(tt.cdb, blocks(2, 0xaa), 0), tt.want)
			if tt.calls == wrote {
				copy(before[1536:], blocks(2, 0xaa))
			}
			if got := r.disk.took(); got != tt.calls || !bytes.Equal(before, r.disk.p) {
				t.Errorf("disk saw %q, want %q", got, tt.calls)
			}
		})
	}
	r := newRig(t)
	r.want(r.do("2e 02 00000003 00 0002 00", blocks(1, 0xaa), 0), "good")
	if got := r.disk.took(); got != "write fua 1536+512, read 1536+512" {
		t.Errorf("with less data the disk saw %q", got)
	}
}

// forgetful loses what is written.
type forgetful struct{ *ram }

func (d forgetful) WriteAt(_ context.Context, p []byte, off int64, fua bool) error {
	d.Lock()
	defer d.Unlock()
	return d.enter("write", off, int64(len(p)))
}

func TestWriteAndVerifyFindsOut(t *testing.T) {
	disk := newRAM(64 * 512)
	r := newRigOf(t, disk, forgetful{disk}, 512)
	r.want(r.do("2e 02 00000003 00 0002 00", blocks(2, 0xaa), 0), "e 1d00")
	r.want(r.do("2e 00 00000003 00 0002 00", blocks(2, 0xaa), 0), "good") // it can be read
}

// TestPrefetch: CONDITION MET when all of it was read.
func TestPrefetch(t *testing.T) {
	for _, tt := range []struct {
		name, cdb, want, calls string
	}{
		{"(10)", "34 00 00000003 00 0002 00", "met", "read 1536+1024"},
		{"(16)", "90 00 0000000000000003 00000002 00 00", "met", "read 1536+1024"},
		{"all the rest", "34 00 00000003 00 0000 00", "met", "read 1536+31232"},
		{"all the rest of nothing", "90 00 0000000000000040 00000000 00 00", "met", ""},
		{"IMMED", "34 02 00000003 00 0002 00", "good", ""},
		{"group", "34 00 00000003 1f 0002 00", "met", "read 1536+1024"},
		{"group", "90 00 0000000000000003 00000002 1f 00", "met", "read 1536+1024"},
		{"beyond", "34 00 0000003f 00 0002 00", "5 2100", ""},
		{"beyond", "90 00 0000000000000041 00000000 00 00", "5 2100", ""},
		{"overflow", "90 00 ffffffffffffffff 00000002 00 00", "5 2100", ""},
		{"reserved bit", "34 10 00000003 00 0002 00", "5 2400 cc0001", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.want(r.do(tt.cdb, nil, 0), tt.want)
			if got := r.disk.took(); got != tt.calls {
				t.Errorf("disk saw %q, want %q", got, tt.calls)
			}
		})
	}
	r := newRig(t)
	r.disk.p = make([]byte, maxPrefetch+512)
	r.want(r.do("90 00 0000000000000000 00000000 00 00", nil, 0), "good") // more than it reads
	if got := r.disk.took(); got != "" {
		t.Errorf("disk saw %q", got)
	}
	r.disk.fail = errors.New("bad sector")
	r.want(r.do("34 00 00000003 00 0002 00", nil, 0), "3 1100")
}

func TestReadDefectData(t *testing.T) {
	for _, tt := range []struct{ name, cdb, want string }{
		{"(10)", "37 00 00 00 00 00 00 0020 00", "00 00 0000"},
		{"(10) both lists, physical sectors", "37 00 1d 00 00 00 00 0020 00", "00 1d 0000"},
		{"(10) cut", "37 00 18 00 00 00 00 0002 00", "00 18"},
		{"(12)", "b7 00 00000000 00000020 00 00", "00 00 0000 00000000"},
		{"(12) grown list", "b7 08 00000000 00000020 00 00", "00 08 0000 00000000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.wantData(r.do(tt.cdb, nil, 255), tt.want)
		})
	}
	r := newRig(t)
	r.want(r.do("37 01 00 00 00 00 00 0020 00", nil, 255), "5 2400 c80001")
	r.want(r.do("b7 20 00000000 00000020 00 00", nil, 255), "5 2400 cd0001")
}

// TestLBAStatus asks a disk with holes: blocks 8 to 23 and 32 to 63 are holes.
func TestLBAStatus(t *testing.T) {
	status := func(first uint64, length uint32) string {
		return fmt.Sprintf("9e 12 %016x %08x 00 00", first, length)
	}
	one := func(first, n, p int) string {
		return fmt.Sprintf("00000014 00000000 %016x %08x %02x000000", first, n, p)
	}
	for _, size := range []int{512, 4096} {
		for _, most := range []int{64 * size, 16 * size, 8 * size} {
			disk := newRAM(64 * size)
			copy(disk.p, fill(8*size, 1))
			copy(disk.p[24*size:], fill(8*size, 1))
			r := newRigOf(t, disk, thin{disk, int64(8 * size), int64(most)}, uint32(size))
			r.wantData(r.do(status(0, 24), nil, 24), one(0, 8, 0))
			r.wantData(r.do(status(5, 24), nil, 24), one(5, 3, 0))
			r.wantData(r.do(status(9, 24), nil, 24), one(9, 15, 1))
			r.wantData(r.do(status(63, 24), nil, 24), one(63, 1, 1))
			r.wantData(r.do(status(0, 255), nil, 255), "00000044 00000000"+
				"0000000000000000 00000008 00000000 0000000000000008 00000010 01000000"+
				"0000000000000018 00000008 00000000 0000000000000020 00000020 01000000")
			r.wantData(r.do(status(0, 40), nil, 255), "00000024 00000000"+
				"0000000000000000 00000008 00000000 0000000000000008 00000010 01000000")
			r.wantData(r.do(status(0, 4), nil, 255), "00000014") // as long as it would be
			r.want(r.do(status(64, 24), nil, 24), "5 2100")
			disk.fail = errors.New("bad sector")
			r.want(r.do(status(0, 24), nil, 24), "3 1100")
			if len(disk.outside) > 0 {
				t.Error(disk.outside)
			}
		}
	}
}

// TestLBAStatusOfPartialBlocks: a hole of half a block is no hole.
func TestLBAStatusOfPartialBlocks(t *testing.T) {
	disk := newRAM(4 * 4096)
	copy(disk.p, fill(512, 1))
	r := newRigOf(t, disk, thin{disk, 512, 1 << 20}, 4096)
	r.wantData(r.do("9e 12 0000000000000000 000000ff 00 00", nil, 255), "00000024 00000000"+
		"0000000000000000 00000001 00000000 0000000000000001 00000003 01000000")
	copy(disk.p[3*4096-512:], fill(512, 1))
	r.wantData(r.do("9e 12 0000000000000001 000000ff 00 00", nil, 255), "00000034 00000000"+
		"0000000000000001 00000001 01000000 0000000000000002 00000001 00000000 0000000000000003 00000001 01000000")
}

// TestLBAStatusOfMuch: an extent has at most 2³²-1 blocks.
func TestLBAStatusOfMuch(t *testing.T) {
	r := newRigOf(t, newRAM(0), huge{}, 512)
	c := r.do("9e 12 0000000000000001 00001000 00 00", nil, 4096)
	r.want(c, "good")
	next := uint64(1)
	for p := c.In[8:c.InLen]; len(p) > 0; p = p[16:] {
		lba, n := rangeAt(p)
		if lba != next || n == 0 {
			t.Fatalf("an extent of %d blocks from %d on, not from %d", n, lba, next)
		}
		next += n
	}
	if next != 1<<37 {
		t.Errorf("the extents end at block %d", next)
	}
}

// span is the range in what a ram notes of a call.
func span(calls string) (off, n int) {
	for _, word := range strings.Fields(calls) {
		if found, _ := fmt.Sscanf(word, "%d+%d", &off, &n); found == 2 {
			return off, n
		}
	}
	return 0, 0
}
