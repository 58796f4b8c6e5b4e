package lab

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// removeLeftovers removes what labs of processes that are dead have left: what runs in
// their namespaces, the namespaces, and their disks.
func removeLeftovers() error {
	return errors.Join(removeNamespaces(), removeDisks())
}

func removeNamespaces() error {
	entries, err := os.ReadDir("/run/netns")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if orphan(e.Name()) {
			killAll(e.Name())
			err = errors.Join(err, gone(ip("netns", "del", e.Name()), "/run/netns/"+e.Name()))
		}
	}
	return err
}

// killAll ends what still runs in a namespace that a dead lab has left.
func killAll(namespace string) {
	out, _ := exec.Command("ip", "netns", "pids", namespace).Output()
	lines := bufio.NewScanner(strings.NewReader(string(out)))
	for lines.Scan() {
		if pid, err := strconv.Atoi(strings.TrimSpace(lines.Text())); err == nil && pid > 1 {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

func removeDisks() error {
	bases, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*-disk*"))
	for _, base := range bases {
		if orphan(filepath.Base(base)) {
			d := &Disk{Dir: filepath.Join(base, "mnt")}
			err = errors.Join(err, gone(d.remove(base), base))
		}
	}
	return err
}

// gone forgives an error if another process was quicker to do the same.
func gone(err error, path string) error {
	if _, missing := os.Lstat(path); errors.Is(missing, fs.ErrNotExist) {
		return nil
	}
	return err
}

// orphan tells whether a name is one of a lab whose process is dead.
func orphan(name string) bool {
	rest, ours := strings.CutPrefix(name, prefix)
	number, _, _ := strings.Cut(rest, "-")
	pid, err := strconv.Atoi(number)
	return ours && err == nil && pid > 0 && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}
