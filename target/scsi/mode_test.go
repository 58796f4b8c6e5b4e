package scsi

import (
	"fmt"
	"testing"

	"github.com/twinlun/twinlun/target/sam"
)

const (
	cachingOn  = "08 12 04 00000000 00000000 00000000 00000000 00"
	cachingOff = "08 12 00 00000000 00000000 00000000 00000000 00"
	controlOff = "0a 0a 00 10 00 00 00000000 0000"
	controlSWP = "0a 0a 00 10 08 00 00000000 0000"
	protected  = "7 2702"
)

// TestModeSelect sends parameter lists, right and wrong: what comes of them, and what
// the caching and control pages say afterwards (WCE; SWP, or t for TAS).
func TestModeSelect(t *testing.T) {
	const block, same, zero = "00000040 00000200", "good", "00000000 00000200"
	long := "0000000000000040 00000000 00000200"
	for _, tt := range []struct{ name, cdb, list, want, modes string }{
		{"answer aborted ones", "15 10 00 00 %02x 00", "00000000 0a 0a 00 10 00 40 00000000 0000", "good", "1t"},
		{"nothing", "15 10 00 00 %02x 00", "", "good", "10"},
		{"nothing, not pages", "15 00 00 00 %02x 00", "", "good", "10"},
		{"not pages", "15 00 00 00 %02x 00", "00000000", "5 2400 cc0001", "10"},
		{"save", "15 11 00 00 %02x 00", "00000000" + cachingOff, "5 2400 c80001", "10"},
		{"header only", "15 10 00 00 %02x 00", "00000000", "good", "10"},
		{"cache off", "15 10 00 00 %02x 00", "00000000" + cachingOff, "good", "00"},
		{"cache on", "15 10 00 00 %02x 00", "00000000" + cachingOn, "good", "10"},
		{"protect", "15 10 00 00 %02x 00", "00000000" + controlSWP, "good", "11"},
		{"both", "15 10 00 00 %02x 00", "00000000" + cachingOff + controlSWP, "good", "01"},
		{"both, control first", "15 10 00 00 %02x 00", "00000000" + controlSWP + cachingOff, "good", "01"},
		{"the last one counts", "15 10 00 00 %02x 00", "00000000" + controlSWP + controlOff, "good", "10"},
		{"header as MODE SENSE gave it", "15 10 00 00 %02x 00", "17009000" + cachingOff, "good", "00"},
		{"block descriptor", "15 10 00 00 %02x 00", "00000008" + block + cachingOff, "good", "00"},
		{"blocks as they are", "15 10 00 00 %02x 00", "00000008" + zero + cachingOff, "good", "00"},
		{"exceptions unchanged", "15 10 00 00 %02x 00", "00000000 1c 0a 08" + zeros(9), "good", "10"},

		{"(10)", "55 10 00 00 00 00 00 %04x 00", zeros(8) + cachingOff, "good", "00"},
		{"(10), block descriptor", "55 10 00 00 00 00 00 %04x 00", "000000000000 0008" + block + cachingOff, "good", "00"},
		{"(10), long block descriptor", "55 10 00 00 00 00 00 %04x 00", "00000000 0100 0010" + long + cachingOff, "good", "00"},

		{"header cut", "15 10 00 00 %02x 00", "000000", "5 1a00", "10"},
		{"(10), header cut", "55 10 00 00 00 00 00 %04x 00", zeros(7), "5 1a00", "10"},
		{"block descriptor cut", "15 10 00 00 %02x 00", "00000008 00000040", "5 1a00", "10"},
		{"block size", "15 10 00 00 %02x 00", "00000008 00000040 00001000" + cachingOff, "5 2600 800004", "10"},
		{"number of blocks", "15 10 00 00 %02x 00", "00000008 00000020 00000200" + cachingOff, "5 2600 800004", "10"},
		{"odd block descriptor", "15 10 00 00 %02x 00", "00000004 00000040" + cachingOff, "5 2600 800004", "10"},
		{"(10), not long", "55 10 00 00 00 00 00 %04x 00", "00000000 0000 0010" + long, "5 2600 800008", "10"},
		{"page cut", "15 10 00 00 %02x 00", "00000000 08", "5 1a00", "10"},
		{"page cut", "15 10 00 00 %02x 00", "00000000 08 12 00", "5 1a00", "10"},
		{"page length", "15 10 00 00 %02x 00", "00000000 08 0a 00" + zeros(17), "5 2600 800005", "10"},
		{"no such page", "15 10 00 00 %02x 00", "00000000 01 0a" + zeros(10), "5 2600 800004", "10"},
		{"subpage", "15 10 00 00 %02x 00", "00000000 4a 01 0004" + zeros(4), "5 2600 800004", "10"},
		{"PS", "15 10 00 00 %02x 00", "00000000 88 12 00" + zeros(17), "5 2600 800004", "10"},
		{"RCD", "15 10 00 00 %02x 00", "00000000 08 12 05" + zeros(17), "5 2600 880006", "10"},
		{"D_SENSE", "15 10 00 00 %02x 00", "00000000 0a 0a 04 10" + zeros(8), "5 2600 8a0006", "10"},
		{"second page wrong", "15 10 00 00 %02x 00", "00000000" + cachingOff + "0a 0a 04 10" + zeros(8), "5 2600 8a001a", "10"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHosts(t, memoryLUN())
			list := unhex(t, tt.list)
			h.want(h.do(fmt.Sprintf(tt.cdb, len(list)), list, 0), tt.want)
			told := "good"
			if tt.modes != "10" {
				told = "6 2a01"
			}
			for name, r := range h.by {
				if name == "a" {
					r.want(r.do("00", nil, 0), "good")
				} else {
					r.want(r.do("00", nil, 0), told)
				}
			}
			c := h.do("1a 08 08 00 ff 00", nil, 255)
			d := h.do("1a 08 0a 00 ff 00", nil, 255)
			got := fmt.Sprintf("%d%d", c.In[6]>>2, d.In[8]>>3)
			if h.nexus.(sam.TaskUser).TAS([8]byte{}) {
				got = got[:1] + "t"
			}
			if got != tt.modes {
				t.Errorf("WCE and SWP are %s, want %s", got, tt.modes)
			}
			if got, want := c.In[2], map[byte]byte{'0': 0x10, 't': 0x10, '1': 0x90}[tt.modes[1]]; got != want {
				t.Errorf("device-specific parameter %02x, want %02x", got, want)
			}
			h.wantData(h.do("1a 08 88 00 ff 00", nil, 255), map[byte]string{'0': "17 00 10 00", 't': "17 00 10 00", '1': "17 00 90 00"}[tt.modes[1]]+cachingOn)
		})
	}
	h := newHosts(t, memoryLUN())
	h.want(h.do("15 10 00 00 18 00", make([]byte, 4), 0), "5 1a00") // less sent than the CDB says
}

func (h *hosts) mode(pages string) {
	h.t.Helper()
	list := unhex(h.t, "00000000"+pages)
	h.want(h.do(fmt.Sprintf("15 10 00 00 %02x 00", len(list)), list, 0), "good")
}

// TestWriteProtect is what SWP keeps out: all that stores, for all hosts.
func TestWriteProtect(t *testing.T) {
	disk := newRAM(64 * 512)
	h := newHosts(t, testLUN(disk))
	h.mode(controlSWP)
	h.by["b"].ua("2a01")
	for _, r := range []*rig{h.by["a"], h.by["b"]} {
		for _, cdb := range []string{"0a 000000 01 00", "2a 00 00000000 00 0001 00", "aa 00 00000000 00000001 00 00",
			"8a 00 0000000000000000 00000001 00 00", "41 00 00000000 00 0001 00", "93 00 0000000000000000 00000001 00 00",
			"93 01 0000000000000000 00000001 00 00", "42"} {
			r.want(r.do(cdb, make([]byte, 512), 0), protected)
		}
		if got := disk.took(); got != "" {
			t.Errorf("the disk saw %q", got)
		}
		for _, cdb := range []string{"28 00 00000000 00 0001 00", "2f 00 00000000 00 0001 00", "35", "00", "25", "1b 00 00 00 01"} {
			r.want(r.do(cdb, nil, 512), "good")
		}
		disk.took()
	}
	h.mode(controlOff)
	h.want(h.do("2a 00 00000000 00 0001 00", make([]byte, 512), 0), "good")
}

// TestWriteThrough is what WCE 0 means: all that stores is durable when it is
// answered; and so is what was in the cache before.
func TestWriteThrough(t *testing.T) {
	disk := newRAM(64 * 512)
	h := newHosts(t, testLUN(disk))
	do := func(cdb, calls string) {
		t.Helper()
		h.want(h.do(cdb, append([]byte{1}, make([]byte, 511)...), 0), "good")
		if got := disk.took(); got != calls {
			t.Errorf("%s: disk saw %q, want %q", cdb, got, calls)
		}
	}
	do("2a 00 00000000 00 0001 00", "write 0+512")
	h.mode(cachingOff)
	if got := disk.took(); got != "sync" {
		t.Errorf("turning the cache off: disk saw %q", got)
	}
	h.mode(cachingOff)
	if got := disk.took(); got != "" {
		t.Errorf("the cache was off: disk saw %q", got)
	}
	do("0a 000000 01 00", "write fua 0+512")
	do("2a 00 00000000 00 0001 00", "write fua 0+512")
	do("41 00 00000000 00 0001 00", "write fua 0+512")
	h.want(h.do("93 01 0000000000000000 00000001 00 00", nil, 0), "good")
	if got := disk.took(); got != "zero fua 0+512" {
		t.Errorf("disk saw %q", got)
	}
	h.mode(cachingOn)
	do("2a 00 00000000 00 0001 00", "write 0+512")
}

// TestResetModes takes back what was not saved.
func TestResetModes(t *testing.T) {
	h := newHosts(t, memoryLUN())
	h.mode(cachingOff + controlSWP)
	h.step("reset")
	h.ua("2903")
	h.wantData(h.do("1a 08 3f 00 ff 00", nil, 255), "2f 00 10 00"+cachingOn+controlOff+"1c 0a 08"+zeros(9))
}
