package chaos

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

var (
	chaosTime  = flag.Duration("chaos.time", time.Minute, "how long TestChaos breaks things")
	chaosSeed  = flag.Uint64("chaos.seed", 0, "the seed of TestChaos; 0: a random one")
	returnSize = flag.Int64("chaos.return", 0, "MiB up to which TestReturn has a site miss; 0: not at all")
	oneFault   = flag.String("chaos.fault", "", "only faults with this in their name")
	stallRuns  = flag.Int("chaos.stalls", 0, "how often TestStalls strikes each fault; 0: not at all")
)

// bin is the folder with the programs under test, fresh from the source.
var bin string

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "twinlun-chaos-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-trimpath", "-o", dir+"/", "./cmd/twinlund", "./cmd/twinlun")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build the programs under test: %w\n%s", err, out)
	}
	bin = dir
	return m.Run(), nil
}
