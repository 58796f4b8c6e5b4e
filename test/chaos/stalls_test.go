package chaos

import (
	"testing"

	"github.com/twinlun/twinlun/test/failover"
)

// TestStalls measures how long hosts stand still, and prints the table.
func TestStalls(t *testing.T) {
	if *stallRuns == 0 {
		t.Skip("it measures time: make failover")
	}
	r := newRealm(t, nil)
	if err := failover.Run(t.Context(), t.Output(), r, failover.Faults, failover.Options{Runs: *stallRuns}); err != nil {
		t.Error(err)
	}
}
