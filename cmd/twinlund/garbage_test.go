package main

import (
	"testing"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
)

// TestGCPercent: garbage beside maps of so many MiB.
func TestGCPercent(t *testing.T) {
	const tib = 1 << 40
	for _, c := range []struct {
		size    int64
		luns    int
		percent int
		garbage int64 // at most, MiB
	}{
		{1 << 30, 1, 100, 9},
		{tib, 1, 40, 16},
		{tib, 16, 24, 128},
		{16 * tib, 1, 24, 128},
		{64 * tib, 4, 24, 2048},
	} {
		var luns []config.LUN
		for range c.luns {
			luns = append(luns, config.LUN{Size: c.size, ExtentSize: 64 << 10})
		}
		if got := gcPercent(luns); got != c.percent {
			t.Errorf("%d LUNs of %d bytes: %d percent, want %d", c.luns, c.size, got, c.percent)
		}
		maps := int64(c.luns) * c.size >> 15
		if got := (maps + ownMemory) * int64(gcPercent(luns)) / 100 >> 20; got > c.garbage {
			t.Errorf("%d LUNs of %d bytes: %d MiB of garbage may wait", c.luns, c.size, got)
		}
	}
}
