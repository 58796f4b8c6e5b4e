package scsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/twinlun/twinlun/target/sam"
)

// copyRig has LUN 0 with blocks of 512 bytes and LUN 1 with blocks of 4096.
type copyRig struct {
	*rig
	other *ram
}

const (
	naa0 = "60010203 04050607 08090a0b 0c0d0e0f"
	naa1 = "60010203 04050607 08090a0b 0c0d0e10"
)

func newCopyRig(t *testing.T) *copyRig {
	r := &copyRig{rig: newRig(t), other: newRAM(16 * 4096)}
	for i := range r.other.p {
		r.other.p[i] = byte(0x80 + i/4096)
	}
	l := testLUN(r.other)
	l.NAA[15], l.BlockSize, l.EUI = 0x10, 4096, [8]byte{1, 2, 3, 4, 5, 6, 7, 8}
	if err := r.target.AddLUN(1, l); err != nil {
		t.Fatal(err)
	}
	r.ua("3f0e")
	return r
}

// cscd is a CSCD descriptor.
func cscd(naa string, block int) string {
	return "e4 00 0000 01 03 00 10" + naa + "00000000" + fmt.Sprintf("00 %06x", block)
}

func segment(from, to, blocks int, fromLBA, toLBA uint64) string {
	return fmt.Sprintf("02 00 0018 %04x %04x 0000 %04x %016x %016x", from, to, blocks, fromLBA, toLBA)
}

// list1 is a parameter list of LID1, of descriptors in hex.
func list1(t testing.TB, id, usage int, units, segments string) []byte {
	u, s := unhex(t, units), unhex(t, segments)
	head := fmt.Sprintf("%02x %02x %04x 00000000 %08x 00000000", id, usage<<3, len(u), len(s))
	return append(append(unhex(t, head), u...), s...)
}

func list4(t testing.TB, id uint32, usage int, units, segments string) []byte {
	u, s := unhex(t, units), unhex(t, segments)
	head := fmt.Sprintf("01 %02x 0020 %s ff 000000 %08x %s %04x %04x 0000", usage<<3, zeros(12), id, zeros(18), len(u), len(s))
	return append(append(unhex(t, head), u...), s...)
}

func (r *copyRig) copy1(list []byte) *sam.Command {
	return r.do(fmt.Sprintf("83 00 0000000000000000 %08x 00 00", len(list)), list, 0)
}

func TestExtendedCopy(t *testing.T) {
	both := cscd(naa0, 512) + cscd(naa1, 4096)
	for _, tt := range []struct{ name, units, segments, calls, other string }{
		{"inside a unit", both, segment(0, 0, 2, 3, 10), "read 1536+1024, write 5120+1024", ""},
		{"to another unit", both, segment(0, 1, 16, 8, 2), "read 4096+8192", "write 8192+8192"},
		{"from another unit", both, segment(1, 0, 2, 2, 8), "write 4096+8192", "read 8192+8192"},
		{"counted by the destination", both, "02 02" + segment(0, 1, 2, 8, 2)[5:], "read 4096+8192", "write 8192+8192"},
		{"zeros", both, segment(0, 0, 1, 0, 9), "read 0+512, zero 4608+512", ""},
		{"nothing", both, segment(0, 0, 0, 3, 10), "", ""},
		{"two segments", both, segment(0, 0, 1, 3, 4) + segment(0, 0, 1, 4, 5), "read 1536+512, write 2048+512, read 2048+512, write 2560+512", ""},
		{"by EUI-64", "e4 00 0000 01 02 00 08 01020304 05060708" + zeros(12) + "00 001000", segment(0, 0, 1, 1, 2), "", "read 4096+4096, write 8192+4096"},
		{"a unit type that is ignored, PAD", strings.Replace(cscd(naa0, 512), "e4 00", "e4 c0", 1), segment(0, 0, 1, 3, 4), "read 1536+512, write 2048+512", ""},
		{"an unknown unit that is not used", both + cscd(strings.Replace(naa0, "60", "61", 1), 512), segment(0, 0, 1, 3, 4), "read 1536+512, write 2048+512", ""},
		{"no segments", both, "", "", ""},
		{"no descriptors", "", "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, c := range []func(r *copyRig) *sam.Command{
				func(r *copyRig) *sam.Command { return r.copy1(list1(t, 1, usageHold, tt.units, tt.segments)) },
				func(r *copyRig) *sam.Command {
					l := list4(t, 0xabcdef01, usageDiscard, tt.units, tt.segments)
					return r.do(fmt.Sprintf("83 01 0000000000000000 %08x 00 00", len(l)), l, 0)
				},
			} {
				r := newCopyRig(t)
				r.want(c(r), "good")
				if got, other := r.disk.took(), r.other.took(); got != tt.calls || other != tt.other {
					t.Errorf("disks saw %q and %q, want %q and %q", got, other, tt.calls, tt.other)
				}
			}
		})
	}
	r := newCopyRig(t)
	r.want(r.copy1(nil), "good")
	r.want(r.copy1(list1(t, 1, 0, both, segment(0, 1, 16, 8, 2))), "good")
	if !bytes.Equal(r.other.p[2*4096:4*4096], r.disk.p[8*512:24*512]) {
		t.Error("something else was copied")
	}
}

// TestCopyLarge is copied in pieces.
func TestCopyLarge(t *testing.T) {
	r := newCopyRig(t)
	r.disk.p = make([]byte, 5*scratchSize)
	for i := range r.disk.p[:2*scratchSize+512] {
		r.disk.p[i] = byte(i>>9) | 1
	}
	n := (2*scratchSize + 512) / 512
	to := uint64(3*scratchSize-1024) / 512
	r.want(r.copy1(list1(t, 1, 0, cscd(naa0, 512), segment(0, 0, n, 0, to))), "good")
	if !bytes.Equal(r.disk.p[:n*512], r.disk.p[to*512:][:n*512]) {
		t.Error("something else was copied")
	}
	r.wantData(r.do("84 00 01 00000000000000 000000ff 00 00", nil, 255), fmt.Sprintf("00000008 01 0001 00 %08x", n*512))
}

// TestCopyRefused lists parameter lists that are wrong, or cannot be carried out.
func TestCopyRefused(t *testing.T) {
	one := cscd(naa0, 512)
	good := segment(0, 0, 2, 3, 10)
	with := func(p []byte, change func(p []byte)) []byte { change(p); return p }
	plain := func() []byte { return list1(t, 1, 0, one, good) }
	long := func() []byte { return list4(t, 1, 0, one, good) }
	for _, tt := range []struct {
		name string
		list []byte
		want string
		at   uint32 // segment
	}{
		{"header cut", plain()[:15], "5 1a00", 0},
		{"unit cut", plain()[:16+31], "5 1a00", 0},
		{"segment cut", plain()[:16+32+27], "5 1a00", 0},
		{"half a segment", list1(t, 1, 0, one, good[:30]), "5 1a00", 0},
		{"half a unit", list1(t, 1, 0, one[:24], ""), "5 1a00", 0},
		{"list length beyond all", with(plain(), func(p []byte) { p[8] = 0xff }), "5 1a00", 0},
		{"inline data", with(plain(), func(p []byte) { p[15] = 1 }), "5 260b", 0},
		{"usage 1", with(plain(), func(p []byte) { p[1] = 0x08 }), "5 2600 8c0001", 0},
		{"an identifier that is none", with(plain(), func(p []byte) { p[1] = 0x18 }), "5 2600 800000", 0},
		{"too many units", list1(t, 1, 0, strings.Repeat(one, 17), good), "5 2606", 0},
		{"too many segments", list1(t, 1, 0, one, strings.Repeat(good, 17)), "5 2608", 0},
		{"too long", list1(t, 1, 0, strings.Repeat(one, 17), strings.Repeat(good, 20)), "5 1a00", 0},
		{"unit type", with(plain(), func(p []byte) { p[16] = 0xe0 }), "5 2607", 0},
		{"designator length", with(plain(), func(p []byte) { p[16+7] = 21 }), "5 2600 800017", 0},
		{"block length", list1(t, 1, 0, cscd(naa0, 4096), good), "5 2600 80002d", 0},
		{"a tape", with(plain(), func(p []byte) { p[17] = 1 }), "a 0d03", 0},
		{"unknown unit", list1(t, 1, 0, cscd(strings.Replace(naa0, "60", "61", 1), 512), good), "a 0804", 0},
		{"the target's name", with(plain(), func(p []byte) { p[16+5] = 0x23 }), "a 0804", 0},
		{"segment type", with(plain(), func(p []byte) { p[48] = 0x03 }), "5 2609", 0},
		{"segment length", with(plain(), func(p []byte) { p[51]++ }), "5 2600 800032", 0},
		{"no such source", list1(t, 1, 0, one, segment(1, 0, 2, 3, 10)), "a 0804", 0},
		{"no such destination", list1(t, 1, 0, one, segment(0, 0xffff, 2, 3, 10)), "a 0804", 0},
		{"source beyond", list1(t, 1, 0, one, segment(0, 0, 2, 63, 10)), "a 0000", 0},
		{"destination beyond", list1(t, 1, 0, one, segment(0, 0, 2, 3, 63)), "a 0000", 0},
		{"overflow", list1(t, 1, 0, one, segment(0, 0, 2, 3, 1<<64-1)), "a 0000", 0},
		{"too large a segment", list1(t, 1, 0, one, segment(0, 0, maxCopySegment/512+1, 0, 0)), "5 2600 80003a", 0},
		{"not whole blocks", list1(t, 1, 0, one+cscd(naa1, 4096), segment(0, 1, 7, 0, 0)), "a 260a", 0},
		{"the second", list1(t, 1, 0, one, good+segment(0, 0, 2, 3, 63)), "a 0000", 1},

		{"LID4, header cut", long()[:47], "5 1a00", 0},
		{"LID4, format", with(long(), func(p []byte) { p[0] = 2 }), "5 2600 800000", 0},
		{"LID4, header length", with(long(), func(p []byte) { p[3] = 0 }), "5 2600 800002", 0},
		{"LID4, IMMED and G_SENSE", with(long(), func(p []byte) { p[15] = 3 }), "5 2400", 0},
		{"LID4, IMMED without an identifier", with(long(), func(p []byte) { p[1], p[15], p[23] = 0x18, 1, 0 }), "5 2400", 0},
		{"LID4, a reserved bit", with(long(), func(p []byte) { p[15] = 0x41 }), "5 2600 8e000f", 0},
		{"LID4, G_SENSE", with(long(), func(p []byte) { p[15] = 2 }), "5 2600 89000f", 0},
		{"LID4, header type", with(long(), func(p []byte) { p[16] = 0 }), "5 2600 800010", 0},
		{"LID4, an identifier that is none", with(long(), func(p []byte) { p[1] = 0x18 }), "5 2600 800014", 0},
		{"LID4, inline data", with(long(), func(p []byte) { p[47] = 1 }), "5 260b", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, action := newCopyRig(t), 0
			if strings.HasPrefix(tt.name, "LID4") {
				action = 1
			}
			c := r.do(fmt.Sprintf("83 %02x 0000000000000000 %08x 00 00", action, len(tt.list)), tt.list, 0)
			r.want(c, tt.want)
			if at := binary.BigEndian.Uint32(c.Sense[8:]); at != tt.at {
				t.Errorf("in segment %d, want %d", at, tt.at)
			}
			if r.disk.took() != "" || r.other.took() != "" {
				t.Error("something was done")
			}
		})
	}
	r := newCopyRig(t)
	r.want(r.do("83 00 0000000000000000 0000004d 00 00", plain(), 0), "5 1a00") // less is sent than the CDB says
	r.want(r.do("83 00 0000000000000000 ffffffff 00 00", plain(), 0), "5 1a00")
	r.want(r.do("83 02 0000000000000000 0000004c 00 00", plain(), 0), "5 2400 cc0001")
	r.want(r.do("83 00 0100000000000000 0000004c 00 00", plain(), 0), "5 2400 c80002")
}

// TestCopyFails has disks fail under a copy, and asks what came of it.
func TestCopyFails(t *testing.T) {
	both := cscd(naa0, 512) + cscd(naa1, 4096)
	for _, tt := range []struct {
		name        string
		from, to    error
		want, sense string
	}{
		{"source", errors.New("bad sector"), nil, "a 0d01", "70000a00000000 0a 00000001 0d01 00 000000"},
		{"destination", nil, errors.New("bad sector"), "a 0d01", "70000a00000000 0a 00000001 0d01 00 000000"},
		{"destination is full", nil, syscall.ENOSPC, "7 2707", "70000700000000 0a 00000000 2707 00 000000"},
		{"not ready", fails(true), nil, "2 0401", "70000200000000 0a 00000000 0401 00 000000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newCopyRig(t)
			r.other.fail = errors.Join(tt.from, tt.to)
			from, to := 0, 1
			if tt.from != nil {
				from, to = 1, 0
			}
			n := map[int]int{0: 8, 1: 1}[from]
			l := list1(t, 7, 0, both, segment(0, 0, 2, 3, 10)+segment(from, to, n, 1, 1))
			r.want(r.copy1(l), tt.want)
			r.wantData(r.do("84 05 00000007 00000000 000000ff 00 00", nil, 255),
				"00000030 00 02 0000 fffffffe 02 14 12 00 0000000000000400 0002"+zeros(6)+tt.sense+"0000")
			r.wantData(r.do("84 00 07 00000000000000 000000ff 00 00", nil, 255), "00000008 02 0002 00 00000400")
			details := "0000004a" + zeros(52) + "02 00 0012" + tt.sense
			r.wantData(r.do("84 04 07 00000000000000 0000004d 00 00", nil, 77), details[:len(details)-2])
			r.wantData(r.do("84 04 07 00000000000000 000000ff 00 00", nil, 255), details)
			r.wantData(r.do("84 04 07 00000000000000 000000ff 00 00", nil, 255), "00000000") // told
		})
	}
}

// TestCopyResults: what is known of copies, of whom, and until when.
func TestCopyResults(t *testing.T) {
	r := newCopyRig(t)
	status := func(id byte) *sam.Command {
		return r.do(fmt.Sprintf("84 00 %02x 00000000000000 000000ff 00 00", id), nil, 255)
	}
	const unknown, done = "5 2400 c00002", "00000008 01 0001 00 00000400"
	list := func(id, usage int) []byte { return list1(t, id, usage, cscd(naa0, 512), segment(0, 0, 2, 3, 10)) }
	r.want(status(1), unknown)
	r.want(r.copy1(list(1, usageHold)), "good")
	r.wantData(status(1), done)
	r.want(status(1), unknown) // told
	r.wantData(r.do("84 01 01 00000000000000 000000ff 00 00", nil, 255), "00000000")
	r.wantData(r.do("84 04 01 00000000000000 000000ff 00 00", nil, 255), "00000000")
	r.want(status(2), unknown)
	r.want(r.copy1(list(0, usageNone)), "good")
	r.want(status(0), unknown)
	const done4 = "01 0000 fffffffe 00 00 00 00 0000000000000400 0001"
	r.wantData(r.do("84 05 00000001 00000000 000000ff 00 00", nil, 255), "0000001c 00"+done4+zeros(6)) // of the other kind

	l := list4(t, 0x01020304, usageHold, cscd(naa0, 512), segment(0, 0, 2, 3, 10))
	for _, immediate := range []byte{0, bitIMMED} { // which is the same
		l[15] = immediate
		r.disk.took()
		r.want(r.do(fmt.Sprintf("83 01 0000000000000000 %08x 00 00", len(l)), l, 0), "good")
		if got := r.disk.took(); got != "read 1536+1024, write 5120+1024" {
			t.Errorf("IMMED %d: when it is answered, the disk has seen %q", immediate, got)
		}
		for range 2 {
			r.wantData(r.do("84 05 01020304 00000000 000000ff 00 00", nil, 255), "0000001c 01"+done4+zeros(6))
		}
	}
	r.want(r.do("84 04 04 00000000000000 000000ff 00 00", nil, 255), unknown) // details are those of LID1
	l[48+32+10], l[48+32+27] = 0, 63                                          // its destination is beyond the end
	copy(l[48+32+10:], []byte{0, 2})
	r.want(r.do(fmt.Sprintf("83 01 0000000000000000 %08x 00 00", len(l)), l, 0), "a 0000")

	// The last 16 are kept.
	for id := 2; id < 2+maxCopies; id++ {
		r.want(r.copy1(list(id, usageHold)), "good")
	}
	r.want(status(1), unknown)
	r.wantData(status(17), done)

	// A reset takes them, and so does the loss of the nexus; another one has its own.
	for f, code := range map[sam.TaskFunction]string{sam.LogicalUnitReset: "2903", sam.TargetWarmReset: "2902", sam.TargetColdReset: "2900"} {
		r.want(r.copy1(list(17, usageHold)), "good")
		r.nexus.Reset(t.Context(), f, [8]byte{})
		r.ua(code)
		r.want(status(17), unknown)
	}
	r.want(r.copy1(list(17, usageHold)), "good")
	other := &copyRig{rig: &rig{t: t, target: r.target, disk: r.disk,
		nexus: r.target.NewNexus(sam.InitiatorPort{Name: "iqn.test:other"}, 1)}}
	other.ua("2900")
	other.want(other.do("84 00 11 00000000000000 000000ff 00 00", nil, 255), unknown)
	r.nexus.Close()
	r.nexus = r.target.NewNexus(testPort, 2)
	r.ua("2907")
	r.want(status(17), unknown)
}

// slow is a disk whose reads wait.
type slow struct {
	*ram
	began, goOn chan struct{}
}

func (d slow) ReadAt(c context.Context, p []byte, off int64) error {
	d.began <- struct{}{}
	<-d.goOn
	return d.ram.ReadAt(c, p, off)
}

// TestCopyUnderWay: its status, and its identifier, which is taken; and no more of
// them than were promised.
func TestCopyUnderWay(t *testing.T) {
	disk := slow{newRAM(64 * 512), make(chan struct{}), make(chan struct{})}
	disk.p[3*512] = 1
	r := &copyRig{rig: newRigOf(t, disk.ram, disk, 512)}
	list := func(id int) []byte { return list1(t, id, 0, cscd(naa0, 512), segment(0, 0, 2, 3, 10)) }
	ask4 := func() *sam.Command { return r.do("84 05 00000000 00000000 000000ff 00 00", nil, 255) }
	over := make(chan *sam.Command)
	start := func(id int) { go func() { over <- r.copy1(list(id)) }() }
	start(0)
	<-disk.began
	for range 2 { // it is not over, and can be told again
		r.wantData(r.do("84 00 00 00000000000000 000000ff 00 00", nil, 255), "00000008 00 0001 00 00000000")
	}
	r.wantData(ask4(), "0000001c 00 11 0000 ffffffff 00 00 00 00 0000000000000000 0001"+zeros(6))
	r.want(r.do("84 04 00 00000000000000 000000ff 00 00", nil, 255), "5 2400 c00002")
	r.want(r.copy1(list(0)), "5 0016")
	other := list4(t, 0, 0, cscd(naa0, 512), segment(0, 0, 2, 3, 10))
	r.want(r.do(fmt.Sprintf("83 01 0000000000000000 %08x 00 00", len(other)), other, 0), "5 2600 800014")
	for id := 1; id < maxCopies; id++ {
		start(id)
		<-disk.began
	}
	if c := r.copy1(list(99)); c.Status != sam.TaskSetFull {
		t.Errorf("one too many: %s", outcome(c))
	}
	for range maxCopies {
		disk.goOn <- struct{}{}
		r.want(<-over, "good")
	}
	r.wantData(r.do("84 00 00 00000000000000 000000ff 00 00", nil, 255), "00000008 01 0001 00 00000400")
}

// TestCopyKeepsToReservations: who may not write a unit may not copy onto it.
func TestCopyKeepsToReservations(t *testing.T) {
	r := newCopyRig(t)
	holder := &rig{t: t, target: r.target, nexus: r.target.NewNexus(sam.InitiatorPort{Name: "iqn.test:holder"}, 1)}
	on1 := func(cdb string, out []byte) *sam.Command {
		p := unhex(t, cdb)
		return run(holder.nexus, [8]byte{0, 1}, append(p, make([]byte, 16-len(p))...), out, 0)
	}
	holder.want(on1("00", nil), "6 2900")
	holder.want(on1("5f 00 00 00 00 00000018 00", reserveOutList(0, 1, 0)), "good")
	holder.want(on1("5f 01 01 00 00 00000018 00", reserveOutList(1, 0, 0)), "good") // write exclusive
	both := cscd(naa0, 512) + cscd(naa1, 4096)
	r.want(r.copy1(list1(t, 1, 0, both, segment(1, 0, 1, 2, 8))), "good")
	r.want(r.copy1(list1(t, 1, 0, both, segment(0, 1, 8, 8, 2))), "a 0d01")
	if got := r.other.took(); got != "read 8192+4096" {
		t.Errorf("the reserved unit saw %q", got)
	}
	holder.want(on1("5f 02 01 00 00 00000018 00", reserveOutList(1, 0, 0)), "good")
	holder.want(on1("5f 01 03 00 00 00000018 00", reserveOutList(1, 0, 0)), "good") // exclusive access
	r.want(r.copy1(list1(t, 1, 0, both, segment(1, 0, 1, 2, 8))), "a 0d01")
}

// TestCopyAborted: a copy whose command is aborted stops, and is told of afterwards as one
// that was; but for a reset, which takes what is known of it, also when it is over later.
func TestCopyAborted(t *testing.T) {
	const ask = "84 05 00000009 00000000 000000ff 00 00"
	for _, reset := range []bool{false, true} {
		disk := slow{newRAM(64 * 512), make(chan struct{}), make(chan struct{})}
		r := &copyRig{rig: newRigOf(t, disk.ram, disk, 512)}
		list := list4(t, 9, 0, cscd(naa0, 512), segment(0, 0, 2, 3, 10)+segment(0, 0, 2, 3, 20))
		ctx, abort := context.WithCancel(t.Context())
		c := &sam.Command{CDB: unhex(t, fmt.Sprintf("83 01 0000000000000000 %08x 00 00", len(list))), Ctx: ctx, Out: list, ExpectOut: uint32(len(list))}
		if !r.nexus.Prepare(c) {
			t.Fatal(outcome(c))
		}
		over := make(chan struct{})
		go func() {
			defer close(over)
			r.nexus.Execute(c)
		}()
		<-disk.began
		abort()
		if reset {
			r.target.luns[0].establish(attentionLUNReset)
			r.ua("2903")
			r.wantData(r.do(ask, nil, 255), "0000001c 01 11 0000 ffffffff 00 00 00 00 0000000000000000 0001"+zeros(6))
		}
		disk.goOn <- struct{}{}
		<-over
		r.want(c, "a 2f02")
		if reset {
			r.want(r.do(ask, nil, 255), "5 2400 c00002")
		} else {
			r.wantData(r.do(ask, nil, 255), "0000001c 01 60 0000 fffffffe 40 00 00 00 0000000000000400 0002"+zeros(6))
		}
	}
}

// TestCopyOfARemovedUnit: its number, and its name, may be another's by then.
func TestCopyOfARemovedUnit(t *testing.T) {
	disk := slow{newRAM(64 * 512), make(chan struct{}), make(chan struct{})}
	r := newCopyRig(t)
	l := testLUN(disk)
	l.NAA[15] = 0x11
	if err := r.target.AddLUN(2, l); err != nil {
		t.Fatal(err)
	}
	r.ua("3f0e")
	over := make(chan *sam.Command)
	units := cscd(strings.Replace(naa0, "0c0d0e0f", "0c0d0e11", 1), 512) + cscd(naa1, 4096)
	go func() { over <- r.copy1(list1(t, 1, 0, units, segment(0, 1, 8, 0, 1)+segment(0, 1, 8, 0, 2))) }()
	<-disk.began
	if err := r.target.RemoveLUN(1); err != nil {
		t.Fatal(err)
	}
	disk.goOn <- struct{}{}
	c := <-over
	r.want(c, "a 0804")
	if c.Sense[11] != 1 {
		t.Errorf("in segment %d", c.Sense[11])
	}
}

func TestCopyParameters(t *testing.T) {
	r := newRig(t)
	r.wantData(r.do("84 03 00 00000000000000 00000400 00 00", nil, 1024), "0000002a 01 000000 0010 0010 000003c0 01000000"+
		zeros(14)+"0010 10 09 00 00 000000 02 02 e4")
	r.wantData(r.do("12 01 8f 00ff 00", nil, 255), "00 8f 007c"+
		"0001 000c 0b 83 02 00 01 84 05 00 01 03 04 05"+
		"0004 001c 00000000 0010 0010 000003c0 00000000"+zeros(12)+
		"0008 0004 02 02 e4 00"+
		"8001 0020 00000010 00000010 01000000 09 00"+zeros(18)+
		"c001 001c"+zeros(28))
}

func TestTransferCount(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "00 00000000", 1<<32 - 1: "00 ffffffff", 1 << 32: "01 00400000", 1<<42 - 1: "01 ffffffff", 1 << 42: "02 00400000", 1<<64 - 1: "04 00ffffff",
	} {
		unit, count := transferCount(n)
		if got := fmt.Sprintf("%02x %s", unit, hex.EncodeToString(binary.BigEndian.AppendUint32(nil, count))); got != want {
			t.Errorf("%d bytes: %s, want %s", n, got, want)
		}
	}
}

// TestCopyMapped copies between units whose LUNs are other numbers for this initiator.
func TestCopyMapped(t *testing.T) {
	r := newCopyRig(t)
	if err := r.target.SetMap(testPort.Name, Map{0: 0, 9: 1}); err != nil {
		t.Fatal(err)
	}
	r.settle(0)
	list := list1(t, 1, 0, cscd(naa0, 512)+cscd(naa1, 4096), segment(0, 1, 16, 8, 2))
	r.want(r.copy1(list), "good")
	if !bytes.Equal(r.other.p[2*4096:4*4096], r.disk.p[8*512:24*512]) {
		t.Error("other data at the destination")
	}
}
