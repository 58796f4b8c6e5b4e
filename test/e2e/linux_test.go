package e2e

import (
	"context"
	"errors"
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

// TestLinuxFailover: one disk over both sites, under dm-multipath; each of the sites dies,
// and comes back, while fio writes and verifies. The test obeys the guest.
func TestLinuxFailover(t *testing.T) {
	t.Parallel()
	r := startForVM(t, "--size", "256MiB", "--cold-after", "500ms", "--hold-wait", "24s", "--no-restart")
	shared, done := t.TempDir(), make(chan struct{})
	obeyed := make(chan struct{})
	go func() {
		defer close(obeyed)
		r.obey(shared, done)
	}()
	defer func() {
		close(done)
		<-obeyed
	}()
	r.guest("failover.sh", "-s", shared)
	r.waitClean()
	sameBytes(t, r)
}

// obey does what the guest asks for by files in a folder, until done, and takes each away
// when it has happened: idle, that neither site has anything which the other one would miss,
// and kill-SITE and start-SITE.
func (r *running) obey(folder string, done <-chan struct{}) {
	orders := map[string]func() bool{"idle": func() bool { return r.idle(0) && r.idle(1) }}
	for site := range 2 {
		orders[fmt.Sprint("kill-", site)] = func() bool { r.kill(site); return true }
		orders[fmt.Sprint("start-", site)] = func() bool { r.revive(site); return true }
	}
	for {
		select {
		case <-done:
			return
		case <-time.After(50 * time.Millisecond):
		}
		for name, obeyed := range orders {
			if path := filepath.Join(folder, name); exists(path) && obeyed() {
				os.Remove(path)
			}
		}
	}
}

// idle tells whether a site has nothing that the other one would miss.
func (r *running) idle(site int) bool {
	s, err := r.status(site)
	return err == nil && s.LUNs[0].Serving && s.LUNs[0].Dirty == 0 && s.LUNs[0].Owned == 0
}

// revive starts the daemon of a site of a demo that does not do that itself. It ends
// before the demo.
func (r *running) revive(site int) {
	dir := r.info().Sites[site].Dir
	log, err := os.OpenFile(filepath.Join(dir, "twinlund.log"), os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Error(err)
		return
	}
	cmd := exec.Command(filepath.Join(bin, "twinlund"), "--config", filepath.Join(dir, "twinlund.yaml"))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		r.t.Error(err)
		return
	}
	ended := make(chan error, 1)
	go func() {
		defer log.Close()
		ended <- cmd.Wait()
	}()
	r.t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		var exit *exec.ExitError
		if err := <-ended; err != nil && !(errors.As(err, &exit) && !exit.Exited()) { // by kill
			r.t.Errorf("the daemon of site %d ended with %v", site, err)
		}
	})
}
