package chaos

import (
	"slices"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/test/failover"
)

// TestStalls measures how long hosts stand still, and prints the table.
func TestStalls(t *testing.T) {
	if *stallRuns == 0 {
		t.Skip("it measures time: make failover")
	}
	r := newRealm(t, nil)
	faults := slices.DeleteFunc(slices.Clone(failover.Faults), func(f failover.Fault) bool { return !strings.Contains(f.Name, *oneFault) })
	if err := failover.Run(t.Context(), t.Output(), r, faults, failover.Options{Runs: *stallRuns}); err != nil {
		t.Error(err)
	}
}
