package backing

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lock keeps everybody else from opening the file as a replica, until f is
// closed: two daemons on one replica would destroy it.
func lock(f *os.File) error {
	err := control(f, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%w: locked by %s: stop that program, or give this LUN another file", ErrInUse, lockHolder(f))
	}
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	return nil
}

// lockHolder names the process that has f locked, as well as it can be known: it
// may be gone again, or in another container.
func lockHolder(f *os.File) string {
	var st unix.Stat_t
	if err := control(f, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		return "another process"
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return "another process"
	}
	pid := findLock(locks, st.Dev, st.Ino)
	if pid == 0 {
		return "another process"
	}
	name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return fmt.Sprintf("process %d (%s)", pid, bytes.TrimSpace(name))
}

// findLock looks in the text of /proc/locks for who holds a flock on a file:
//
//	1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF
//
// It returns 0 if nobody does.
func findLock(locks []byte, dev, inode uint64) int {
	want := fmt.Sprintf("%02x:%02x:%d", unix.Major(dev), unix.Minor(dev), inode)
	for line := range strings.Lines(string(locks)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || f[5] != want {
			continue
		}
		if pid, err := strconv.Atoi(f[4]); err == nil && pid > 0 {
			return pid
		}
	}
	return 0
}
