package sim

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"
)

var (
	simSeed  = flag.Uint64("sim.seed", 0, "run this seed, with a trace if it fails; 0: a fixed set of seeds")
	simCount = flag.Int("sim.count", 1, "with -sim.seed: how many seeds from there on")
	simTime  = flag.Duration("sim.time", 0, "virtual time of trouble in each run; 0: the default")
	simSoak  = flag.Duration("sim.soak", 0, "run ever new seeds for this long, in real time")
	simTrace = flag.Int("sim.trace", 300, "how many lines of trace a failure prints")
)

// defaultSeeds is how many seeds a plain go test runs.
const defaultSeeds = 60

func TestSim(t *testing.T) {
	switch {
	case *simSoak > 0:
		soak(t)
	case *simSeed != 0:
		for i := range *simCount {
			runSeed(t, *simSeed+uint64(i))
		}
	default:
		var all Result
		for seed := range uint64(defaultSeeds) {
			r := runSeed(t, seed+1)
			all.Crashes, all.Joins, all.Resets, all.Grown = all.Crashes+r.Crashes, all.Joins+r.Joins, all.Resets+r.Resets, all.Grown+r.Grown
			all.Parted, all.Takes, all.Salvages = all.Parted+r.Parted, all.Takes+r.Takes, all.Salvages+r.Salvages
			all.Forks, all.Late = all.Forks+r.Forks, all.Late+r.Late
		}
		if min(all.Crashes, int(all.Joins), all.Resets, all.Grown, all.Parted, all.Takes, all.Salvages, all.Forks, all.Late) == 0 {
			t.Errorf("something that may happen has not: %+v", all)
		}
	}
}

// soak begins where the clock says, so that every soak sees other seeds.
func soak(t *testing.T) {
	first := uint64(time.Now().Unix()) << 16
	end := time.Now().Add(*simSoak)
	n := uint64(0)
	for ; time.Now().Before(end) && !t.Failed(); n++ {
		runSeed(t, first+n)
	}
	t.Logf("%d seeds from %d on", n, first)
}

// runSeed runs a seed, and again with a trace if it fails.
func runSeed(t *testing.T, seed uint64) Result {
	t.Helper()
	res, err := Run(seed, Options{Time: *simTime})
	if err == nil {
		if testing.Verbose() {
			t.Logf("seed %d: %+v", seed, res)
		}
		return res
	}
	lines := make([]string, 0, *simTrace)
	Run(seed, Options{Time: *simTime, Trace: func(l string) {
		if len(lines) == *simTrace && *simTrace > 0 {
			lines = lines[1:]
		}
		lines = append(lines, l)
	}})
	t.Errorf("seed %d: %v\nagain: make sim SEED=%d\n%s", seed, err, seed, strings.Join(lines, "\n"))
	return res
}

func TestSameSeedSameRun(t *testing.T) {
	for seed := range uint64(4) {
		a, errA := Run(seed, Options{Time: 5 * time.Second})
		b, errB := Run(seed, Options{Time: 5 * time.Second, Trace: func(string) {}})
		if a != b || fmt.Sprint(errA) != fmt.Sprint(errB) {
			t.Fatalf("seed %d: %+v, %v\nthen %+v, %v", seed, a, errA, b, errB)
		}
	}
}
