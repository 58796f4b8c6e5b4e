package main

import (
	"os"
	"runtime/debug"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
)

const (
	// leastGarbage may always wait for a collection, in bytes: it is what a daemon
	// with small LUNs collects at, more or less.
	leastGarbage = 16 << 20
	// ownMemory is about what a daemon holds beside its maps, in bytes.
	ownMemory = 8 << 20
)

// limitGarbage keeps the collector from letting as much garbage wait as there is
// memory in use: the maps of huge LUNs are most of that, and are never garbage.
// Looking more often costs little, as maps have no pointers to follow. GOGC in the
// environment comes first.
func limitGarbage(luns []config.LUN) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent(luns))
	}
}

// gcPercent is the GOGC with which garbage grows to a quarter of the maps.
func gcPercent(luns []config.LUN) int {
	maps := int64(0)
	for _, l := range luns {
		maps += 2 * l.Size / l.ExtentSize // see dirtymap: 16 bits for each extent
	}
	garbage := max(leastGarbage, maps/4)
	return int(min(100, 100*garbage/(maps+ownMemory)))
}
