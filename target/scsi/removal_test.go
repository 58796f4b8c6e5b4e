package scsi

import (
	"errors"
	"strings"
	"testing"
)

func removableHosts(t *testing.T) (*hosts, *ram) {
	disk := newRAM(64 * 512)
	l := testLUN(disk)
	l.Removable = true
	return newHosts(t, l), disk
}

// TestRemoval runs scripts: eject, load, prevent and allow, and TEST UNIT READY, of
// hosts a, b and c.
func TestRemoval(t *testing.T) {
	const gone, prevented = "2 3a00", "5 5302"
	for _, tt := range []struct{ name, script string }{
		{"eject and load", "a: EJECT =good; a: 00 =GONE; b: 00 =GONE; b: EJECT =good; a: LOAD =good; a: 00 =good; b: 00 =6 2800; b: 00 =good"},
		{"prevented", "b: PREVENT =good; a: EJECT =HELD; b: EJECT =HELD; a: LOAD =HELD; a: 00 =good; b: ALLOW =good; a: EJECT =good; b: 00 =GONE"},
		{"prevented by two", "b: PREVENT =good; a: PREVENT =good; b: ALLOW =good; c: EJECT =HELD; a: ALLOW =good; c: EJECT =good"},
		{"prevented while it is out", "a: EJECT =good; a: PREVENT =good; a: LOAD =HELD; a: ALLOW =good; a: LOAD =good"},
		{"who prevents is gone", "a: PREVENT =good; again; b: EJECT =good; a: 00 =6 2907; a: 00 =GONE"},
		{"reset", "a: PREVENT =good; reset; b: 00 =6 2903; b: EJECT =good"},
		{"target reset", "a: PREVENT =good; warm; b: 00 =6 2902; b: EJECT =good"},
		{"a reset does not load", "a: EJECT =good; reset; a: 00 =6 2903; a: 00 =GONE"},
		{"stop and power conditions do not eject", "a: 1b =good; a: 1b 01 00 00 22 =good; a: 00 =good"},
		{"reserved", "a: 16 =good; b: EJECT =conflict; b: LOAD =conflict; b: 1b 00 00 00 01 =good; a: EJECT =good"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, _ := removableHosts(t)
			for step := range strings.SplitSeq(tt.script, "; ") {
				h.step(strings.NewReplacer("EJECT", "1b 00 00 00 02", "LOAD", "1b 00 00 00 03", "PREVENT", "1e 00 00 00 01",
					"ALLOW", "1e 00 00 00 00", "GONE", gone, "HELD", prevented).Replace(step))
			}
		})
	}
}

// TestNoMedium is what runs without a medium.
func TestNoMedium(t *testing.T) {
	h, disk := removableHosts(t)
	if c := h.do("12 00 00 00ff 00", nil, 255); c.In[1] != 0x80 {
		t.Errorf("RMB: %02x", c.In[1])
	}
	h.want(h.do("1b 00 00 00 02", nil, 0), "good")
	if got := disk.took(); got != "sync" {
		t.Errorf("ejecting: disk saw %q", got)
	}
	for _, cdb := range []string{"00", "08 000000 01", "0a 000000 01", "25", "28 00 00000000 00 0001", "2a 00 00000000 00 0001",
		"2f 00 00000000 00 0001", "35", "41 00 00000000 00 0001", "42", "88 00 0000000000000000 00000001", "91",
		"93 01 0000000000000000 00000001", "9e 10", "9e 12"} {
		h.want(h.do(cdb, nil, 512), "2 3a00")
	}
	for _, cdb := range []string{"03", "12", "15", "16", "17", "1a 00 3f 00 ff", "1b", "1b 00 00 00 01", "1e", "4d", "5e", "a0",
		askGroups, "a3 0c", "a3 0d"} {
		h.want(h.do(cdb, nil, 512), "good")
	}
	if got := disk.took(); got != "" {
		t.Errorf("without a medium the disk saw %q", got)
	}
}

// TestEjectFails keeps a medium whose cache cannot be made durable.
func TestEjectFails(t *testing.T) {
	h, disk := removableHosts(t)
	disk.fail = errors.New("bad sector")
	h.want(h.do("1b 00 00 00 02", nil, 0), "3 0c00")
	disk.fail = nil
	h.want(h.do("28 00 00000000 00 0001", nil, 512), "good")
}

// TestReadOnly refuses all that stores, for good.
func TestReadOnly(t *testing.T) {
	disk := newRAM(64 * 512)
	l := testLUN(disk)
	l.ReadOnly = true
	h := newHosts(t, l)
	for range 2 {
		for _, cdb := range []string{"0a 000000 01", "2a 00 00000000 00 0001", "8a 00 0000000000000000 00000001",
			"aa 00 00000000 00000001", "41 00 00000000 00 0001", "93 01 0000000000000000 00000001", "42"} {
			h.want(h.do(cdb, make([]byte, 512), 0), "7 2700")
		}
		h.want(h.do("28 00 00000000 00 0001", nil, 512), "good")
		h.wantData(h.do("1a 08 0a 00 ff 00", nil, 255), "0f 00 90 00"+controlOff)
		h.mode(controlSWP)
		h.step("reset") // takes SWP back, and nothing else
		h.ua("2903")
	}
	if got := disk.took(); strings.Contains(got, "write") || strings.Contains(got, "zero") {
		t.Errorf("disk saw %q", got)
	}
}
