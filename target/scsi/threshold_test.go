package scsi

import (
	"bytes"
	"fmt"
	"testing"
)

// newThin is a target whose LUN knows its space, and has a threshold, with three hosts.
func newThin(t *testing.T, threshold int64) *hosts {
	t.Helper()
	l := testLUN(&told{newRAM(64 * 512), 0, 1 << 30, true})
	l.Threshold = threshold
	return newHosts(t, l)
}

const (
	pageRecovery  = "01 0a 0000000000 80 00000000"
	pageThreshold = "5c 02 0014 00 00000000 00000000 000000" // and a descriptor
	askThresholds = "1a 08 1c 02 ff 00"
)

// TestThresholdPages pins the mode pages of thresholds, byte by byte, and how they are
// asked for.
func TestThresholdPages(t *testing.T) {
	for _, tt := range []struct {
		threshold  int64
		descriptor string
	}{{0, "00 01 0000 00000000"}, {1, "80 01 0000 00000001"}, {5<<20 + 1, "80 01 0000 00000006"}, {1 << 60, "80 01 0000 ffffffff"}} {
		h := newThin(t, tt.threshold)
		h.wantData(h.do(askThresholds, nil, 255), "1b 00 10 00"+pageThreshold+tt.descriptor)
	}
	h := newThin(t, 1<<20)
	const all = pageRecovery + cachingOn + controlOff + "1c 0a 08 0000000000 00000000"
	thresholds := pageThreshold + "80 01 0000 00000001"
	for cdb, want := range map[string]string{
		"1a 08 3f 00 ff 00":             "3b 00 10 00" + all,
		"1a 08 3f ff ff 00":             "53 00 10 00" + all + thresholds,
		"1a 08 1c 00 ff 00":             "0f 00 10 00 1c 0a 08 0000000000 00000000",
		"1a 08 1c ff ff 00":             "27 00 10 00 1c 0a 08 0000000000 00000000" + thresholds,
		"1a 08 01 00 ff 00":             "0f 00 10 00" + pageRecovery,
		"1a 08 41 00 ff 00":             "0f 00 10 00 01 0a" + zeros(10),
		"1a 08 5c 02 ff 00":             "1b 00 10 00" + "5c 02 0014" + zeros(20),
		"1a 08 9c 02 ff 00":             "1b 00 10 00" + thresholds,
		"5a 08 1c 02 00 00 00 00 ff 00": "001e 00 10 00 00 0000" + thresholds,
	} {
		h.wantData(h.do(cdb, nil, 255), want)
	}
	for cdb, want := range map[string]string{
		"1a 08 1c 01 ff 00": "5 2400 c00003", "1a 08 08 02 ff 00": "5 2400 c00003",
		"1a 08 3f 02 ff 00": "5 2400 c00003", "1a 08 02 ff ff 00": "5 2400 cd0002", "1a 08 02 02 ff 00": "5 2400 cd0002",
	} {
		h.want(h.do(cdb, nil, 255), want)
	}
	plain := newRig(t)
	plain.want(plain.do(askThresholds, nil, 255), "5 2400 c00003")
	plain.want(plain.do("1a 08 01 00 ff 00", nil, 255), "5 2400 cd0002")
}

// TestThresholdSelect: hosts can give the pages back as they are, and change nothing.
func TestThresholdSelect(t *testing.T) {
	h := newThin(t, 1<<20)
	thresholds := pageThreshold + "80 01 0000 00000001"
	for list, want := range map[string]string{
		pageRecovery + cachingOff + thresholds: "good",
		thresholds + cachingOn:                 "good",
		thresholds[:len(thresholds)-1] + "2":   "5 2600 89001b",
		pageThreshold + "00 01 0000 00000001":  "5 2600 8f0014",
		"01 0a" + zeros(10):                    "5 2600 8f000b",
		"5c 02 0015" + zeros(20):               "5 2600 800006",
		"5c 02 0014" + zeros(19):               "5 1a00",
		"5c 02 00":                             "5 1a00",
		"5c 03 0014" + zeros(20):               "5 2600 800004",
		"1c 02 0014" + zeros(20):               "5 2600 800005",
		"5c 00 000a" + zeros(10):               "5 2600 800004",
	} {
		p := unhex(t, "00000000"+list)
		h.want(h.do(fmt.Sprintf("15 10 00 00 %02x 00", len(p)), p, 0), want)
	}
	h.wantData(h.do(askThresholds, nil, 255), "1b 00 10 00"+thresholds)
}

// TestThresholdReached tells all hosts once, and where the threshold stands.
func TestThresholdReached(t *testing.T) {
	h := newThin(t, 1<<20)
	if err := h.target.ThresholdReached(0); err != nil {
		t.Fatal(err)
	}
	for _, r := range h.by {
		c := r.do("00", nil, 0)
		if want := unhex(t, "f0 00 06 00000010 0a 00000000 3807 00 000000"); !bytes.Equal(c.Sense, want) {
			t.Errorf("sense % x, want % x", c.Sense, want)
		}
		r.want(r.do("00", nil, 0), "good")
	}
	if page := unhex(t, pageThreshold+"80 01 0000 00000001"); page[thresholdAt] != 0x80 {
		t.Error("that is not where the descriptor stands")
	}
}

// TestSetThreshold changes the page, and tells hosts if there is a change.
func TestSetThreshold(t *testing.T) {
	h := newThin(t, 1<<20)
	for _, tt := range []struct {
		threshold int64
		told      string
	}{{1 << 20, "good"}, {3 << 20, "6 2a01"}, {0, "6 2a01"}} {
		if err := h.target.SetThreshold(0, tt.threshold); err != nil {
			t.Fatal(err)
		}
		for _, r := range h.by {
			r.want(r.do("00", nil, 0), tt.told)
		}
	}
	h.wantData(h.do(askThresholds, nil, 255), "1b 00 10 00"+pageThreshold+"00 01 0000 00000000")
	if h.target.SetThreshold(9, 1) == nil || h.target.ThresholdReached(9) == nil {
		t.Error("a LUN that is not there has a threshold")
	}
	plain := newRig(t)
	if err := plain.target.SetThreshold(0, 1<<20); err != nil {
		t.Error(err)
	}
	plain.want(plain.do("00", nil, 0), "good")
}
