package scsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/twinlun/twinlun/target/sam"
)

// blocks gives n blocks filled with a byte.
func blocks(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n*512) }

// TestReadWrite goes through each form of CDB: what reaches the disk.
func TestReadWrite(t *testing.T) {
	for _, tt := range []struct{ name, cdb, calls string }{
		{"READ (6)", "08 000003 02 00", "read 1536+1024"},
		{"READ (10)", "28 00 00000003 00 0002 00", "read 1536+1024"},
		{"READ (10) DPO FUA", "28 18 00000003 00 0002 00", "read 1536+1024, sync"},
		{"READ (12)", "a8 00 00000003 00000002 00 00", "read 1536+1024"},
		{"READ (12) FUA", "a8 08 00000003 00000002 00 00", "read 1536+1024, sync"},
		{"READ (16)", "88 00 0000000000000003 00000002 00 00", "read 1536+1024"},
		{"READ (16) FUA", "88 08 0000000000000003 00000002 00 00", "read 1536+1024, sync"},
		{"READ nothing", "28 00 00000003 00 0000 00", ""},
		{"READ nothing, at the end", "28 00 00000040 00 0000 00", ""},
		{"WRITE (6)", "0a 000003 02 00", "write 1536+1024"},
		{"WRITE (10)", "2a 00 00000003 00 0002 00", "write 1536+1024"},
		{"WRITE (10) DPO FUA", "2a 18 00000003 00 0002 00", "write fua 1536+1024"},
		{"WRITE (12)", "aa 00 00000003 00000002 00 00", "write 1536+1024"},
		{"WRITE (12) FUA", "aa 08 00000003 00000002 00 00", "write fua 1536+1024"},
		{"WRITE (16)", "8a 10 0000000000000003 00000002 00 00", "write 1536+1024"},
		{"WRITE (16) FUA", "8a 08 0000000000000003 00000002 00 00", "write fua 1536+1024"},
		{"WRITE nothing", "8a 08 0000000000000003 00000000 00 00", ""},
		{"last block", "28 00 0000003f 00 0001 00", "read 32256+512"},
		{"whole", "28 00 00000000 00 0040 00", "read 0+32768"},
		{"SYNC (10)", "35", "sync"},
		{"SYNC (10) IMMED", "35 02 00000001 00 0002 00", "sync"},
		{"SYNC (16)", "91 00 000000000000003f 00000001 00 00", "sync"},
		{"VERIFY (10)", "2f 00 00000003 00 0002 00", "read 1536+1024"},
		{"VERIFY (12)", "af 10 00000003 00000002 00 00", "read 1536+1024"},
		{"VERIFY (16)", "8f 00 0000000000000003 00000002 00 00", "read 1536+1024"},
		{"VERIFY nothing", "2f 00 00000003 00 0000 00", ""},
		{"WRITE SAME (10)", "41 00 00000003 00 0002 00", "write 1536+1024"},
		{"WRITE SAME (16)", "93 08 0000000000000003 00000002 00 00", "write 1536+1024"},
		{"WRITE SAME (16) NDOB", "93 01 0000000000000003 00000002 00 00", "zero 1536+1024"},
		{"WRITE SAME (16) NDOB UNMAP", "93 09 0000000000000003 00000002 00 00", "zero 1536+1024"},
		{"START", "1b 00 00 00 01 00", ""},
		{"STOP", "1b 00 00 00 00 00", "sync"},
		{"STOP NO_FLUSH", "1b 00 00 00 04 00", ""},
		{"LOAD", "1b 01 00 00 03 00", ""},
		{"STANDBY", "1b 01 00 00 30 00", ""},
		{"PREVENT", "1e 00 00 00 01 00", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			before := bytes.Clone(r.disk.p)
			var out []byte
			if strings.HasPrefix(tt.name, "WRITE") && !strings.Contains(tt.name, "NDOB") {
				out = blocks(2, 0xaa)
			}
			if strings.HasPrefix(tt.name, "WRITE SAME") {
				out = out[:len(out)/2]
			}
			c := r.do(tt.cdb, out, 1<<20)
			r.want(c, "good")
			if got := r.disk.took(); got != tt.calls {
				t.Errorf("disk saw %q, want %q", got, tt.calls)
			}
			var off, n int
			if _, err := fmt.Sscanf(tt.calls, "read %d+%d", &off, &n); err == nil && c.InLen > 0 &&
				!bytes.Equal(c.In[:c.InLen], before[off:off+n]) {
				t.Error("wrong data read")
			}
			if strings.HasPrefix(tt.calls, "write") {
				copy(before[1536:], blocks(2, 0xaa))
			} else if strings.HasPrefix(tt.calls, "zero") {
				clear(before[1536 : 1536+1024])
			}
			if !bytes.Equal(r.disk.p, before) {
				t.Error("wrong data on the disk")
			}
		})
	}
}

// TestLength is about transfer lengths: what the CDB needs, and what an
// initiator that expects something else gets.
func TestLength(t *testing.T) {
	for _, tt := range []struct {
		name, cdb     string
		expect        int // of Data-In, or of Data-Out when negative
		in, need, out int
	}{
		{"READ, as much", "28 00 00000000 00 0002 00", 1024, 1024, 1024, 0},
		{"READ, expects less", "28 00 00000000 00 0002 00", 700, 700, 1024, 0},
		{"READ, expects none", "28 00 00000000 00 0002 00", 0, 0, 1024, 0},
		{"READ, expects more", "28 00 00000000 00 0002 00", 9000, 1024, 1024, 0},
		{"READ, expects to send", "28 00 00000000 00 0002 00", -1024, 0, 1024, 0},
		{"WRITE, as much", "2a 00 00000000 00 0002 00", -1024, 0, 1024, 1024},
		{"WRITE, sends less", "2a 00 00000000 00 0002 00", -700, 0, 1024, 512},
		{"WRITE, sends none", "2a 00 00000000 00 0002 00", 0, 0, 1024, 0},
		{"WRITE, sends more", "2a 00 00000000 00 0002 00", -9000, 0, 1024, 1024},
		{"WRITE, expects to get", "2a 00 00000000 00 0002 00", 1024, 0, 1024, 0},
		{"READ (6) of 0 is 256", "08 000000 00 00", 1 << 20, 131072, 131072, 0},
		{"INQUIRY", "12 00 00 0024 00", 255, 36, 36, 0},
		{"READ CAPACITY (10)", "25", 4, 4, 8, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.disk.p = make([]byte, 1<<20)
			out := bytes.Repeat([]byte{0xee}, max(0, -tt.expect))
			c := r.do(tt.cdb, out, max(0, tt.expect))
			r.want(c, "good")
			if int(c.InLen) != tt.in || int(c.Needed) != tt.need {
				t.Errorf("InLen %d, Needed %d; want %d, %d", c.InLen, c.Needed, tt.in, tt.need)
			}
			if got := bytes.Count(r.disk.p, []byte{0xee}); got != tt.out {
				t.Errorf("%d bytes written, want %d", got, tt.out)
			}
		})
	}
}

// TestCorrupt lists what each CDB is refused for.
func TestCorrupt(t *testing.T) {
	const (
		outOfRange = "5 2100"
		opcode     = "5 2000"
	)
	for _, tt := range []struct{ corrupt, cdb, want string }{
		{"NACA", "00 00 00 00 00 04", "5 2400 ca0005"},
		{"link", "12 00 00 0024 01", "5 2400 c80005"},
		{"reserved byte", "00 00 01", "5 2400 c80002"},
		{"page without EVPD", "12 00 80 00ff 00", "5 2400 c00002"},
		{"CMDDT", "12 02 80 00ff 00", "5 2400 c90001"},
		{"no such page", "12 01 81 00ff 00", "5 2400 c00002"},
		{"reserved bit", "03 02 00 00 ff 00", "5 2400 c90001"},

		{"RDPROTECT", "28 20 00000000 00 0001 00", "5 2400 cd0001"},
		{"RDPROTECT", "88 e0 0000000000000000 00000001 00 00", "5 2400 cf0001"},
		{"RDPROTECT", "a8 40 00000000 00000001 00 00", "5 2400 ce0001"},
		{"WRPROTECT", "2a 20 00000000 00 0001 00", "5 2400 cd0001"},
		{"WRPROTECT", "8a 20 0000000000000000 00000001 00 00", "5 2400 cd0001"},
		{"VRPROTECT", "2f 20 00000000 00 0001 00", "5 2400 cd0001"},
		{"group number", "28 00 00000000 01 0001 00", "5 2400 c80006"},
		{"NACA", "28 00 00000000 00 0001 04", "5 2400 ca0009"},
		{"NACA", "88 00 0000000000000000 00000001 00 04", "5 2400 ca000f"},
		{"beyond", "28 00 00000040 00 0001 00", outOfRange},
		{"reaches beyond", "28 00 0000003f 00 0002 00", outOfRange},
		{"nothing, beyond", "28 00 00000041 00 0000 00", outOfRange},
		{"overflow", "88 00 ffffffffffffffff 00000001 00 00", outOfRange},
		{"overflow", "88 00 ffffffffffffff00 00000200 00 00", outOfRange},
		{"overflow of bytes", "88 00 0080000000000000 00000001 00 00", outOfRange},
		{"beyond", "08 000040 01 00", outOfRange},
		{"256 blocks", "08 000000 00 00", outOfRange},
		{"beyond", "2a 00 00000040 00 0001 00", outOfRange},
		{"beyond", "0a 000040 01 00", outOfRange},
		{"overflow", "8a 00 ffffffffffffffff 00000001 00 00", outOfRange},
		{"too long", "a8 00 00000000 00008001 00 00", "5 2400 c00006"},
		{"too long", "88 00 0000000000000000 ffffffff 00 00", "5 2400 c0000a"},
		{"too long", "8a 00 0000000000000000 00008001 00 00", "5 2400 c0000a"},
		{"too long", "8f 00 0000000000000000 00008001 00 00", "5 2400 c0000a"},
		{"longest, but beyond", "88 00 0000000000000000 00008000 00 00", outOfRange},

		{"BYTCHK 2", "2f 04 00000000 00 0001 00", "5 2400 ca0001"},
		{"beyond", "2f 00 00000040 00 0001 00", outOfRange},
		{"nothing sent to compare", "2f 02 00000000 00 0001 00", "5 2400 c00007"},
		{"beyond", "35 00 00000041 00 0000 00", outOfRange},
		{"reaches beyond", "91 00 0000000000000000 00000041 00 00", outOfRange},
		{"reserved bit", "35 08", "5 2400 cb0001"},

		{"LBA without PMI", "25 00 00000001", "5 2400 c80005"},
		{"PMI", "25 00 00000000 0000 01 00", "5 2400 c80008"},
		{"LBA without PMI", "9e 10 0000000000000001 00000020 00 00", "5 2400 c80009"},
		{"service action", "9e 11 0000000000000000 00000020 00 00", "5 2400 cc0001"},

		{"beyond", "9e 12 0000000000000040 00000020 00 00", outOfRange},

		{"saved values", "1a 00 c8 00 ff 00", "5 3900"},
		{"saved values", "5a 00 ff 00 00 00 00 00ff 00", "5 3900"},
		{"no such page", "1a 00 01 00 ff 00", "5 2400 cd0002"},
		{"no such subpage", "1a 00 08 01 ff 00", "5 2400 c00003"},
		{"LLBAA", "1a 10 08 00 ff 00", "5 2400 cc0001"},

		{"all the rest", "41 00 00000000 00 0000 00", "5 2400 c00007"},
		{"all the rest", "93 01 0000000000000000 00000000 00 00", "5 2400 c0000a"},
		{"too long", "93 01 0000000000000000 00008001 00 00", "5 2400 c0000a"},
		{"ANCHOR", "93 18 0000000000000000 00000001 00 00", "5 2400 cc0001"},
		{"NDOB", "41 01 00000000 00 0001 00", "5 2400 c80001"},
		{"WRPROTECT", "93 20 0000000000000000 00000001 00 00", "5 2400 cd0001"},
		{"beyond", "93 01 000000000000003f 00000002 00 00", outOfRange},
		{"nothing sent", "93 00 0000000000000000 00000001 00 00", "5 2400 c0000a"},
		{"ANCHOR", "42 01 00000000 00 0018 00", "5 2400 c80001"},
		{"nothing sent", "42 00 00000000 00 0018 00", "5 1a00"},

		{"SELECT REPORT", "a0 00 03 000000 00000010 00 00", "5 2400 c00002"},
		{"SELECT REPORT", "a0 00 12 000000 00000010 00 00", "5 2400 c00002"},
		{"has service actions", "a3 0c 01 9e 0000 00000010 00 00", "5 2400 ca0002"},
		{"has no service actions", "a3 0c 02 28 0000 00000010 00 00", "5 2400 ca0002"},
		{"reporting options", "a3 0c 04 28 0000 00000010 00 00", "5 2400 ca0002"},
		{"service action", "a3 0b 00 00 0000 00000010 00 00", "5 2400 cc0001"},
		{"reserved byte", "1b 00 01 00 01 00", "5 2400 c80002"},
		{"eject", "1b 00 00 00 02 00", "5 2400 c90004"},
		{"reserved bit", "1e 00 00 00 04 00", "5 2400 ca0004"},

		{"PPC", "4d 02 00 00 00 0000 00ff 00", "5 2400 c90001"},
		{"no such log page", "4d 00 42 00 00 0000 00ff 00", "5 2400 cd0002"},
		{"provisioning is not told", "4d 00 4c 00 00 0000 00ff 00", "5 2400 cd0002"},
		{"no such log subpage", "4d 00 40 01 00 0000 00ff 00", "5 2400 cd0002"},
		{"no such diagnostic page", "1c 01 01 00ff 00", "5 2400 c00002"},
		{"self-test with a list", "1d 04 00 0004 00", "5 2400 c00003"},
		{"background self-test", "1d 20 00 0000 00", "5 2400 cd0001"},
		{"list without PF", "1d 00 00 0004 00", "5 2400 cc0001"},
		{"list length", "1d 10 00 0005 00", "5 1a00"},
		{"list not sent", "1d 10 00 0004 00", "5 1a00"},
		{"reserved bit", "a3 0d 40 00 0000 000000ff 00 00", "5 2400 ce0002"},

		{"FORMAT UNIT", "04", opcode}, {"SANITIZE", "48", opcode},
		{"variable length", "7f", opcode}, {"vendor specific", "c0", opcode},
	} {
		r := newRig(t)
		before := bytes.Clone(r.disk.p)
		c := r.do(tt.cdb, nil, 1<<20)
		if got := outcome(c); got != tt.want {
			t.Errorf("%s: CDB %s: outcome %q, want %q", tt.corrupt, tt.cdb, got, tt.want)
		}
		if c.InLen != 0 || c.Needed != 0 || !bytes.Equal(before, r.disk.p) || r.disk.took() != "" {
			t.Errorf("%s: CDB %s: refused, but something was done", tt.corrupt, tt.cdb)
		}
	}
}

// TestShortCDB cuts CDBs off.
func TestShortCDB(t *testing.T) {
	r := newRig(t)
	for code := range 256 {
		for n := range 16 {
			c := run(r.nexus, [8]byte{}, make([]byte, n), nil, 512)
			if n > 0 {
				c = run(r.nexus, [8]byte{}, append([]byte{byte(code)}, make([]byte, n-1)...), nil, 512)
			}
			if got := outcome(c); got != "good" && got != "met" && !strings.HasPrefix(got, "5 2") && got != "5 1a00" {
				t.Fatalf("operation code %02x, %d bytes: %s", code, n, got)
			}
		}
	}
}

// fails is a Disk error that passes or not.
type fails bool

func (f fails) Error() string      { return "the disk failed" }
func (f fails) SCSINotReady() bool { return bool(f) }

// away is the error of a Disk that only the other port group serves.
type away struct{}

func (away) Error() string         { return "the other site serves it" }
func (away) SCSIUnavailable() bool { return true }

// TestDiskErrors has the disk fail under each command that reaches it.
func TestDiskErrors(t *testing.T) {
	const read, write = "3 1100", "3 0c00"
	list := "0016 0010 00000000 0000000000000000 00000001 00000000"
	for _, tt := range []struct{ name, cdb, out, want string }{
		{"READ", "28 00 00000000 00 0001 00", "", read},
		{"READ (6)", "08 000000 01 00", "", read},
		{"WRITE", "2a 00 00000000 00 0001 00", zeros(512), write},
		{"VERIFY", "2f 00 00000000 00 0001 00", "", read},
		{"SYNCHRONIZE CACHE", "35", "", write},
		{"UNMAP", "42 00 00000000 00 0018 00", list, write},
		{"WRITE ATOMIC", "9c 00 0000000000000000 0000 0008 00 00", zeros(4096), write},
		{"WRITE SAME, zeros", "41 00 00000000 00 0001 00", zeros(512), write},
		{"WRITE SAME", "41 00 00000000 00 0001 00", "01" + zeros(511), write},
	} {
		for _, err := range []struct {
			err  error
			want string
		}{
			{errors.New("bad sector"), tt.want},
			{fails(false), tt.want},
			{fails(true), "2 0401"},
			{fmt.Errorf("wrapped: %w", away{}), "2 040c"},
			{fmt.Errorf("wrapped: %w", fails(true)), "2 0401"},
			{syscall.ENOSPC, map[string]string{read: read, write: "7 2707"}[tt.want]},
		} {
			r := newRig(t)
			r.disk.fail = err.err
			c := r.do(tt.cdb, unhex(t, tt.out), 512)
			r.want(c, err.want)
			if c.InLen != 0 || c.Needed != 0 {
				t.Errorf("%s: data with a failure", tt.name)
			}
		}
	}
}

// TestVerifyCompares checks BYTCHK 1 and 3, across the pieces it reads in.
func TestVerifyCompares(t *testing.T) {
	const n = 3 * scratchSize / 512
	r := newRig(t)
	r.disk.p = make([]byte, n*512)
	for i := range r.disk.p {
		r.disk.p[i] = byte(i % 512 / 2)
	}
	all := fmt.Sprintf("8f 02 0000000000000000 %08x 00 00", n)
	one := fmt.Sprintf("8f 06 0000000000000000 %08x 00 00", n)
	r.want(r.do(all, bytes.Clone(r.disk.p), 0), "good")
	c := r.do(one, bytes.Clone(r.disk.p[:512]), 0)
	r.want(c, "good")
	if c.Needed != 512 || c.WantOut != 512 {
		t.Errorf("one block: Needed %d, WantOut %d", c.Needed, c.WantOut)
	}
	for _, at := range []int{0, 511, 512, scratchSize - 1, scratchSize, n*512 - 1} {
		data := bytes.Clone(r.disk.p)
		data[at] ^= 0x10
		r.want(r.do(all, data, 0), "e 1d00")
		block := bytes.Clone(r.disk.p[:512])
		r.disk.p[at] ^= 0x10
		r.want(r.do(one, block, 0), "e 1d00")
		r.disk.p[at] ^= 0x10
	}
	r.want(r.do(all, r.disk.p[:n*512-1], 0), "5 2400 c0000a")
	r.want(r.do("2f 06 00000000 00 0000 00", nil, 0), "good")
}

// TestWriteSame writes a pattern that is longer than the piece it is written in.
func TestWriteSame(t *testing.T) {
	const n = 2*scratchSize/512 + 3
	r := newRig(t)
	r.disk.p = bytes.Repeat([]byte{0xff}, (n+2)*512)
	block := bytes.Repeat([]byte("pattern "), 64)
	r.want(r.do(fmt.Sprintf("93 00 0000000000000001 %08x 00 00", n), block, 0), "good")
	want := append(append(blocks(1, 0xff), bytes.Repeat(block, n)...), blocks(1, 0xff)...)
	if !bytes.Equal(r.disk.p, want) {
		t.Error("the pattern is not what was written, or not where")
	}
	r.want(r.do(fmt.Sprintf("93 00 0000000000000001 %08x 00 00", n), blocks(1, 0), 0), "good")
	r.disk.took()
	if want := append(append(blocks(1, 0xff), blocks(n, 0)...), blocks(1, 0xff)...); !bytes.Equal(r.disk.p, want) {
		t.Error("zeros are not where they belong")
	}
	r.want(r.do("41 00 00000000 00 0001 00", block[:511], 0), "5 2400 c00007")
	r.want(r.do("41 00 00000000 00 0001 00", append(block, 0), 0), "5 2400 c00007")
	r.want(r.do("93 01 0000000000000000 00000001 00 00", block, 0), "5 2400 c0000a")
}

// unmapList builds a parameter list from pairs of LBA and count.
func unmapList(ranges ...uint64) []byte {
	p := binary.BigEndian.AppendUint16(nil, uint16(6+8*len(ranges)))
	p = binary.BigEndian.AppendUint16(p, uint16(8*len(ranges)))
	p = append(p, 0, 0, 0, 0)
	for i := 0; i < len(ranges); i += 2 {
		p = binary.BigEndian.AppendUint64(p, ranges[i])
		p = binary.BigEndian.AppendUint32(p, uint32(ranges[i+1]))
		p = append(p, 0, 0, 0, 0)
	}
	return p
}

// TestUnmap lists parameter lists, right and wrong.
func TestUnmap(t *testing.T) {
	with := func(p []byte, change func(p []byte)) []byte {
		change(p)
		return p
	}
	many := make([]uint64, 2*(maxUnmapRanges+1))
	for _, tt := range []struct {
		name        string
		list        []byte
		want, calls string
	}{
		{"one", unmapList(1, 2), "good", "zero 512+1024"},
		{"three", unmapList(1, 2, 60, 4, 0, 1), "good", "zero 512+1024, zero 30720+2048, zero 0+512"},
		{"empty range", unmapList(1, 0), "good", ""},
		{"empty range at the end", unmapList(64, 0), "good", ""},
		{"empty range beyond", unmapList(65, 0), "5 2100", ""},
		{"no range", unmapList(), "good", ""},
		{"no list", nil, "good", ""},
		{"most ranges", unmapList(many[2:]...), "good", ""},
		{"a range and a half", with(unmapList(1, 2, 3, 4), func(p []byte) { p[3] = 24 }), "good", "zero 512+1024"},
		{"list goes on", append(unmapList(1, 2), 1, 2, 3), "good", "zero 512+1024"},
		{"too many ranges", unmapList(many...), "5 2600 800002", ""},
		{"header cut", unmapList(1, 2)[:7], "5 1a00", ""},
		{"ranges cut", unmapList(1, 2)[:23], "5 1a00", ""},
		{"length too short", with(unmapList(1, 2), func(p []byte) { p[1]-- }), "5 2600 800000", ""},
		{"ranges too long", with(unmapList(1, 2), func(p []byte) { p[3]++ }), "5 1a00", ""},
		{"too many blocks", unmapList(0, maxUnmap/512+1), "5 2600 800010", ""},
		{"too many blocks together", unmapList(0, 1, 0, maxUnmap/512), "5 2600 800020", ""},
		{"beyond", unmapList(64, 1), "5 2100", ""},
		{"second beyond", unmapList(0, 64, 1, 64), "5 2100", ""},
		{"overflow", unmapList(1<<64-1, 2), "5 2100", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			c := r.do(fmt.Sprintf("42 00 00000000 00 %04x 00", len(tt.list)), tt.list, 0)
			r.want(c, tt.want)
			if got := r.disk.took(); got != tt.calls {
				t.Errorf("disk saw %q, want %q", got, tt.calls)
			}
		})
	}
	r := newRig(t)
	r.want(r.do("42 00 00000000 00 0019 00", unmapList(1, 2), 0), "5 1a00")
}

// TestBlockSize4096 runs with 4 KiB logical blocks.
func TestBlockSize4096(t *testing.T) {
	r := newRig(t)
	l := testLUN(newRAM(8 * 4096))
	l.BlockSize = 4096
	if err := r.target.AddLUN(1, l); err != nil {
		t.Fatal(err)
	}
	do := func(cdb string, out []byte) *sam.Command {
		p := unhex(t, cdb)
		return run(r.nexus, [8]byte{0, 1}, append(p, make([]byte, 16-len(p))...), out, 1<<16)
	}
	r.want(do("00", nil), "6 2900")
	r.want(do("00", nil), "6 3f0e")
	r.wantData(do("9e 10 00000000 00000000 00000020 00 00", nil), "0000000000000007 00001000 00 00 c000"+zeros(16))
	r.wantData(do("12 01 b0 000c 00", nil), "00 b0 003c 01 20 0001 00001000")
	r.want(do("2a 00 00000007 00 0001 00", make([]byte, 4096)), "good")
	if got := l.Disk.(*ram).took(); got != "write 28672+4096" {
		t.Errorf("disk saw %q", got)
	}
	r.want(do("2a 00 00000008 00 0001 00", make([]byte, 4096)), "5 2100")
}

// TestHugeDisk reports more blocks than 32 bits hold.
func TestHugeDisk(t *testing.T) {
	r := newRig(t)
	if err := r.target.AddLUN(1, testLUN(huge{})); err != nil {
		t.Fatal(err)
	}
	do := func(cdb string) *sam.Command {
		p := unhex(t, cdb)
		return run(r.nexus, [8]byte{0, 1}, append(p, make([]byte, 16-len(p))...), nil, 1<<16)
	}
	do("00")
	do("00")
	r.wantData(do("25"), "ffffffff 00000200")
	r.wantData(do("9e 10 00000000 00000000 0000000c 00 00"), "0000001fffffffff 00000200")
	r.wantData(do("9e 12 0000000000000001 00000018 00 00"), "00000014 00000000 0000000000000001 ffffffff 00000000")
	r.wantData(do("1a 00 0a 00 0c 00"), "17 00 10 08 ffffffff 00000200")
	r.want(do("88 00 0000002000000000 00000001 00 00"), "5 2100")
	r.want(do("88 00 0000001fffffffff 00000001 00 00"), "good")
}

// huge is a disk of 64 TiB of zeros.
type huge struct{}

func (huge) ReadAt(_ context.Context, p []byte, _ int64) error      { clear(p); return nil }
func (huge) WriteAt(context.Context, []byte, int64, bool) error     { return nil }
func (huge) Zero(_ context.Context, _ int64, _ int64, _ bool) error { return nil }
func (huge) Sync(context.Context) error                             { return nil }
func (huge) Size() int64                                            { return 64 << 40 }

// TestNoAllocation is the promise that READ and WRITE allocate nothing.
func TestNoAllocation(t *testing.T) {
	target := quietTarget()
	if err := target.AddLUN(0, testLUN(huge{})); err != nil {
		t.Fatal(err)
	}
	n := target.NewNexus(testPort, 1)
	n.Prepare(&sam.Command{CDB: make([]byte, 16)})
	for _, cdb := range []string{
		"28 00 00000003 00 0008 00 000000000000", "88 00 0000000000000003 00000008 00 00",
		"2a 00 00000003 00 0008 00 000000000000", "8a 08 0000000000000003 00000008 00 00",
	} {
		c := &sam.Command{CDB: unhex(t, cdb), Ctx: context.Background()}
		buf := make([]byte, 4096)
		got := testing.AllocsPerRun(1000, func() {
			if !n.Prepare(c) {
				panic("refused")
			}
			c.In, c.Out = buf[:c.WantIn], buf[:c.WantOut]
			n.Execute(c)
		})
		if got != 0 || c.Status != sam.Good || c.WantIn+c.WantOut != 4096 {
			t.Errorf("CDB %s: %v allocations, status %d, %d bytes", cdb, got, c.Status, c.WantIn+c.WantOut)
		}
	}
}
