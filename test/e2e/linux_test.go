package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// vmTime bounds the virtual machine, which is emulated where there is no KVM.
const vmTime = 5 * time.Minute

// TestLinuxFiles: the Linux initiator makes file systems through one site, and finds
// them through the other, and the other way round.
func TestLinuxFiles(t *testing.T) {
	t.Parallel()
	r := startForVM(t, "--size", "1GiB")
	r.guest("files.sh")
	r.waitClean()
	sameBytes(t, r)
}

// TestLinuxSCSI: sg3_utils and the kernel see the same unit at both sites.
func TestLinuxSCSI(t *testing.T) {
	t.Parallel()
	r := startForVM(t, "--size", "256MiB")
	r.guest("scsi.sh")
	r.waitClean()
	sameBytes(t, r)
}

// TestLinuxMultipath: one disk over both sites, verified while paths are cut.
func TestLinuxMultipath(t *testing.T) {
	t.Parallel()
	r := startForVM(t, "--size", "256MiB")
	load := "10"
	if os.Getenv("TWINLUN_SOAK") != "" {
		load = "60"
	}
	r.guest("multipath.sh", "-e", "FIO_TIME="+load)
	r.waitClean()
	sameBytes(t, r)
}

// startForVM starts a demo, if there is a virtual machine that can use it.
func startForVM(t *testing.T, args ...string) *running {
	t.Helper()
	needVM(t)
	return start(t, args...)
}

// needVM says that a test cannot do without the virtual machine.
func needVM(t *testing.T) {
	t.Helper()
	need(t, "qemu-system-x86_64")
	if cache := vmCache(t); !exists(filepath.Join(cache, "stamp")) {
		missing(t, "there is no VM image in "+cache)
	}
}

// guest runs a script of the folder guest in the virtual machine; options are those of
// run.sh. The script gets the ports of both sites and the target's name.
func (r *running) guest(script string, options ...string) {
	r.t.Helper()
	info := r.info()
	var args []string
	for _, s := range info.Sites {
		_, port, err := net.SplitHostPort(s.Portal)
		if err != nil {
			r.t.Fatal(err)
		}
		args = append(args, port)
	}
	inVM(r.t, script, options, append(args, info.IQN)...)
}

// inVM runs a script of the folder guest, which is /share there, in the virtual machine.
// It has to end with a
// word that it has passed.
func inVM(t *testing.T, script string, options []string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), vmTime+time.Minute)
	defer cancel()
	all := append([]string{"-s", "guest", "-t", fmt.Sprint(int(vmTime.Seconds()))}, options...)
	all = append(append(all, filepath.Join("guest", script)), args...)
	cmd := exec.CommandContext(ctx, filepath.Join("..", "initiator-vm", "run.sh"), all...)
	// Its own word to QEMU: it ends the machine when it is asked to.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !regexp.MustCompile(`(?m)^== \d+ s: passed$`).Match(out) {
		t.Fatalf("the guest's script: %v", err)
	}
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
