package e2e

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// vmTime bounds the virtual machine, which is emulated where there is no KVM.
const vmTime = 5 * time.Minute

// TestLinux: the Linux initiator makes a file system through one site, finds it
// through the other, and the other way round.
func TestLinux(t *testing.T) {
	t.Parallel()
	vm := filepath.Join("..", "initiator-vm")
	need(t, "qemu-system-x86_64")
	if cache := vmCache(t); !exists(filepath.Join(cache, "stamp")) {
		missing(t, "there is no VM image in "+cache)
	}
	r := start(t, "--size", "256MiB")
	info := r.info()
	ctx, cancel := context.WithTimeout(context.Background(), vmTime+time.Minute)
	defer cancel()
	args := []string{"-t", "300", filepath.Join("guest", "ext4.sh")}
	for _, s := range info.Sites {
		_, port, err := net.SplitHostPort(s.Portal)
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, port)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(vm, "run.sh"), append(args, info.IQN)...)
	// Its own word to QEMU: it ends the machine when it is asked to.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "== passed") {
		t.Fatalf("the guest's script: %v", err)
	}
	r.waitClean()
	sameBytes(t, r)
}

// vmCache is where build.sh leaves the machine.
func vmCache(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("INITIATOR_VM_CACHE"); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(home, ".cache", "initiator-vm")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
