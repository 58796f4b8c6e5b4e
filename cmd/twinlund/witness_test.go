package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cluster"
	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/member"
)

// patience is how long a test waits for what must happen: long, as nothing depends on it
// but how a failure looks.
const patience = 2 * time.Minute

// witnessMemory is what a witness may have resident, in KiB: it is to fit into the
// smallest virtual machine that can be rented.
const witnessMemory = 64 << 10

// buildDaemon makes the program as users get it.
func buildDaemon(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "twinlund")
	build := exec.Command("go", "build", "-trimpath", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build twinlund: %v\n%s", err, out)
	}
	return bin
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// process is a witness in a process of its own.
type process struct {
	cmd  *exec.Cmd
	done chan error
}

func startWitness(t *testing.T, bin string, args ...string) *process {
	t.Helper()
	p := &process{exec.Command(bin, append([]string{"--witness"}, args...)...), make(chan error, 1)}
	p.cmd.Stdout, p.cmd.Stderr = t.Output(), t.Output()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(func() { p.cmd.Process.Kill() })
	return p
}

// stop has it end in order.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-p.done:
		if err != nil {
			t.Errorf("the witness has ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the witness does not end")
	}
}

// peak is the most that it ever had resident, in KiB.
func (p *process) peak(t *testing.T) (kib int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib
		}
	}
	t.Fatalf("no VmHWM in\n%s", status)
	return 0
}

// The real program, as a witness, joins a cluster by a file, follows it, votes, needs
// little memory, and is the same node when it starts again.
func TestWitness(t *testing.T) {
	bin, dir := buildDaemon(t), t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ln := listen(t)
	a, err := member.Found(member.Config{Dir: filepath.Join(dir, "a"), Listen: []net.Listener{ln}, Log: slog.New(slog.DiscardHandler)},
		member.FoundOptions{Cluster: "prod", Node: "a", Site: "paris", Addresses: []string{ln.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	token, _, err := a.NewToken(ctx, "test", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	free := listen(t)
	free.Close()
	args := []string{"--data-dir", filepath.Join(dir, "w"), "--cluster-listen", free.Addr().String(), "--join-token-file", file,
		"--join-node", "w", "--join-site", "oslo", "--join-addresses", free.Addr().String()}
	w := startWitness(t, bin, args...)
	votes := func() bool {
		members, err := a.Members()
		return err == nil && len(members) == 2 && members[1] == cluster.Member{Node: "w", Voter: true}
	}
	for end := time.Now().Add(patience); !votes(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the witness gets no vote")
		}
	}
	work := func(name string, n int) {
		t.Helper()
		for i := range n {
			if _, err := a.Do(ctx, "test", &catalog.PutGroup{Name: fmt.Sprintf("%s%d", name, i)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.PeerApplied(ctx, "w", a.State().Index()); err != nil {
			t.Fatal(err)
		}
	}
	work("g", 500)
	peak := w.peak(t)
	t.Logf("resident at most %d KiB", peak)
	if peak > witnessMemory {
		t.Errorf("%d KiB are resident, and %d may be", peak, witnessMemory)
	}
	w.stop(t)
	if err := os.Remove(file); err != nil { // it has done its work
		t.Fatal(err)
	}
	w = startWitness(t, bin, args...)
	work("h", 20)
	w.stop(t)
}

// A witness that is configured to serve something is none.
func TestWitnessServesNothing(t *testing.T) {
	t.Setenv("TWINLUN_CONFIG", "")
	cmd := command()
	cmd.SetArgs([]string{"--witness", "--check", "--iscsi-iqn", "iqn.2026-01.org.example:x"})
	if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), "a witness serves nothing") {
		t.Errorf("%v", err)
	}
	cmd = command()
	cmd.SetArgs([]string{"--check", "--join-token-file", "x"})
	if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), "is for a witness") {
		t.Errorf("%v", err)
	}
}
