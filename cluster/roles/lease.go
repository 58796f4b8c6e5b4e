package roles

import (
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/twinlun/twinlun/cluster/failover"
	"golang.org/x/sys/unix"
)

// Lease says whether hosts of a LUN may be answered now: it is the volume.Lease of all
// the LUN's volumes.
type Lease struct {
	clock func() failover.Time
	when  atomic.Uint32                // a failover.When
	end   atomic.Pointer[atomic.Int64] // of the pair's lease; nil: no pair
}

// Holds implements volume.Lease: one look at the clock, and none while this node serves
// alone.
func (l *Lease) Holds() bool {
	switch failover.When(l.when.Load()) {
	case failover.Always:
		return true
	case failover.Leased:
		end := l.end.Load()
		return end != nil && l.clock() < failover.Time(end.Load())
	}
	return false
}

func (l *Lease) set(w failover.When) { l.when.Store(uint32(w)) }

// BootTime is the time since this machine was booted: it goes on while the machine is
// suspended, which no lease may survive. The runtime's own clock stands still then.
func BootTime() failover.Time {
	var ts syscall.Timespec
	_, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0)
	if errno != 0 {
		panic("roles: this kernel has no CLOCK_BOOTTIME: " + errno.Error()) // since Linux 2.6.39
	}
	return failover.Time(time.Duration(ts.Nano()))
}
