package multipath

import (
	"errors"
	"testing"
)

// TestRanks has answers as in SPC-4.
func TestRanks(t *testing.T) {
	groups := func(state byte) []byte {
		return []byte{0, 0, 0, 24, 0x01, 0x8f, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, state, 0x8f, 0, 2, 0, 2, 0, 1, 0, 0, 1, 2}
	}
	for state, want := range map[byte]rank{0x80: preferred, 0: optimized, 1: nonOptimized, 0x81: nonOptimized, 2: dead, 3: dead, 0xf: dead} {
		if r, err := rankOf(groups(state), 2); r != want || err != nil {
			t.Errorf("state %02x: %v, %v", state, r, err)
		}
	}
	if _, err := rankOf(groups(0), 3); !errors.Is(err, errNoGroup) {
		t.Errorf("a group that is not there: %v", err)
	}
	page := []byte{0, 0x83, 0, 16, 0x51, 0x94, 0, 4, 0, 0, 1, 2, 0x51, 0x95, 0, 4, 0, 0, 0, 7}
	if g, err := groupOf(page); g != 7 || err != nil {
		t.Errorf("group %d, %v", g, err)
	}
	if _, err := groupOf(page[:12]); !errors.Is(err, errNoGroup) {
		t.Errorf("no such designator: %v", err)
	}
}

// FuzzGroups: whatever a target says about its groups, it is read within its bounds.
func FuzzGroups(f *testing.F) {
	f.Add([]byte{0, 0x83, 0, 8, 0x51, 0x95, 0, 4, 0, 0, 0, 7}, uint16(7))
	f.Add([]byte{0, 0, 0, 12, 0x80, 0x8f, 0, 7, 0, 0, 0, 1, 0, 0, 0, 1}, uint16(7))
	f.Fuzz(func(t *testing.T, p []byte, group uint16) {
		groupOf(p)
		if r, err := rankOf(p, group); err != nil && r != dead {
			t.Error("a path that is not known is not dead")
		}
	})
}
