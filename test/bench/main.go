// Command bench measures what twinlun promises of its speed, each row side by side
// with what it is compared to: rounds of both take turns in the same run, so that
// what else the machine is doing hits both, and medians are shown. README.md tells
// how to read the table.
//
//	make bench BENCH_FLAGS='--quick --only copy'
//
// Two nodes run inside this process, put together from the same parts as twinlund
// and joined over TCP; the rows about memory start twinlund itself. Everything is
// on loopback, and in a temporary folder that is removed in the end.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
)

// bench is a run.
type bench struct {
	ctx    context.Context
	out    io.Writer
	dir    string // for files; every row has folders of its own in it
	daemon string // path of twinlund
	quick  bool
	log    *slog.Logger
}

// rows are the parts of the table, in its order.
var rows = []struct {
	name string
	run  func(*bench) ([]result, error)
}{
	{"iops", iopsRow},
	{"marks", marksRow},
	{"fetch", fetchRow},
	{"copy", copyRow},
	{"memory", memoryRow},
	{"newcomer", newcomerRow},
	{"tgt", tgtRow},
	{"allocations", allocationsRow},
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{ctx: ctx, out: os.Stdout, log: slog.New(slog.DiscardHandler)}
	dir := pflag.String("dir", "", "where the replicas lie; default: /dev/shm if it has room, else the temporary folder")
	only := pflag.String("only", "", "run one part: "+names())
	profile := pflag.String("cpuprofile", "", "write a CPU profile of this process to a file")
	verbose := pflag.BoolP("verbose", "v", false, "show the logs of the nodes")
	pflag.StringVar(&b.daemon, "twinlund", "bin/twinlund", "the daemon, for the rows about memory")
	pflag.BoolVar(&b.quick, "quick", false, "below a minute, less exact")
	pflag.Parse()
	if pflag.NArg() > 0 {
		return fmt.Errorf("%q: no arguments are taken, see --help", pflag.Arg(0))
	}
	if *verbose {
		b.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	end, err := startProfile(*profile)
	if err != nil {
		return err
	}
	defer end()
	if err := b.makeDir(*dir); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	return b.table(*only)
}

// startProfile returns what ends the profile.
func startProfile(path string) (end func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}, nil
}

func names() string {
	var all []string
	for _, r := range rows {
		all = append(all, r.name)
	}
	return strings.Join(all, ", ")
}

// room is what the rows take at most on disk, in bytes: two replicas of which
// 512 MiB are written, and their map files.
const room = 1200 << 20

// makeDir makes the folder of this run.
func (b *bench) makeDir(in string) (err error) {
	if in == "" {
		if in = "/dev/shm"; !hasRoom(in) {
			in = os.TempDir()
			fmt.Fprintf(b.out, "/dev/shm has no room for %d MiB: replicas lie in %s, its medium takes part in all figures\n", room>>20, in)
		}
	}
	b.dir, err = os.MkdirTemp(in, "twinlun-bench-")
	return err
}

// hasRoom tells whether a file system in memory can take the replicas.
func hasRoom(dir string) bool {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil || st.Bavail*uint64(st.Bsize) < room {
		return false
	}
	return availableMemory() > 2*room
}

// folder makes an empty folder.
func (b *bench) folder() (string, error) { return os.MkdirTemp(b.dir, "") }

// clean removes what a part has left in its folders.
func (b *bench) clean() error {
	left, err := filepath.Glob(filepath.Join(b.dir, "*"))
	for _, path := range left {
		if err == nil {
			err = os.RemoveAll(path)
		}
	}
	return err
}

// table runs the parts and prints their results.
func (b *bench) table(only string) error {
	t, began, found := newTable(b.out), time.Now(), false
	for _, r := range rows {
		if only != "" && only != r.name {
			continue
		}
		found = true
		results, err := r.run(b)
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		t.add(r.name, results)
		if err := b.clean(); err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("--only %s: the parts are %s", only, names())
	}
	t.end(time.Since(began))
	return nil
}

// pick is the first value, or the second one with --quick.
func pick[T any](b *bench, full, quick T) T {
	if b.quick {
		return quick
	}
	return full
}
