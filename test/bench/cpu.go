package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// cpuTime is what a process's threads have had of the processors, to the nanosecond.
// (/proc/PID/stat counts in hundredths of a second.)
func cpuTime(pid int) (sum time.Duration, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(threads) == 0 {
		return 0, fmt.Errorf("process %d is gone (%w)", pid, err)
	}
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue // a thread that has just ended
		}
		var ran int64
		if _, err := fmt.Sscan(strings.TrimSpace(string(text)), &ran); err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		sum += time.Duration(ran)
	}
	return sum, nil
}
