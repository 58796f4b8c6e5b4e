package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bin is the folder with the programs under test, fresh from the source.
var bin string

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "twinlun-e2e-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	args := []string{"build", "-trimpath", "-o", dir + "/"}
	if os.Getenv("TWINLUN_E2E_RACE") == "1" {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "./cmd/twinlun", "./cmd/twinlund")...)
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build the programs under test: %w\n%s", err, out)
	}
	bin = dir
	return m.Run(), nil
}

// need says that a test cannot do without a program.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing(t, p+" is not installed")
		}
	}
}

// missing ends a test that lacks something on this machine.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("TWINLUN_SKIP_TOOLS") == "1" {
		t.Skipf("%s, and TWINLUN_SKIP_TOOLS=1", what)
	}
	t.Fatalf("%s: make e2e installs what is needed; TWINLUN_SKIP_TOOLS=1 skips this test", what)
}

// toolTime bounds one program: a loaded machine may be slow, a hang is a failure.
const toolTime = 2 * time.Minute

// tool runs a program to its end, and returns what it printed. The test fails if
// the program does.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := try(name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func try(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), toolTime)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("no end after %v", toolTime)
	}
	return out.String(), err
}
