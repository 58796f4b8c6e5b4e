package emulator

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// alarm wakes a goroutine some 50 µs late. The runtime's own timers are later, up
// to a millisecond when nothing else happens, since epoll counts its timeout in
// milliseconds; a timer that is itself a file of epoll's is exact.
type alarm struct {
	file *os.File
	raw  syscall.RawConn
}

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	a := &alarm{file: os.NewFile(uintptr(fd), "timerfd")}
	if a.raw, err = a.file.SyscallConn(); err != nil {
		a.file.Close()
		return nil, err
	}
	return a, nil
}

// wait returns after d, more than 0.
func (a *alarm) wait(d time.Duration) error {
	var failed error
	err := a.raw.Control(func(fd uintptr) {
		spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
		failed = unix.TimerfdSettime(int(fd), 0, &spec, nil)
	})
	if err == nil {
		err = failed
	}
	if err == nil {
		_, err = a.file.Read(make([]byte, 8))
	}
	return err
}

func (a *alarm) close() { a.file.Close() }
