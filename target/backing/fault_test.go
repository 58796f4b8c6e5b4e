package backing

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// faulty is a medium that fails where a test says so.
type faulty struct {
	medium
	read, written, punched, synced func() error // nil: as the medium does
}

func (f *faulty) ReadAt(p []byte, off int64) (int, error) {
	if f.read != nil {
		return 0, f.read()
	}
	return f.medium.ReadAt(p, off)
}

func (f *faulty) WriteAt(p []byte, off int64) (int, error) {
	if f.written != nil {
		return len(p) / 2, f.written()
	}
	return f.medium.WriteAt(p, off)
}

func (f *faulty) punch(off, n int64) error {
	if f.punched != nil {
		return f.punched()
	}
	return f.medium.punch(off, n)
}

func (f *faulty) datasync() error {
	if f.synced != nil {
		return f.synced()
	}
	return f.medium.datasync()
}

func always(err error) func() error { return func() error { return err } }

func TestFaultsSayWhatToDo(t *testing.T) {
	p := make([]byte, 8192)
	for _, c := range []struct {
		name  string
		fault faulty
		do    func(*Disk) error
		is    error
		says  string
	}{
		{"read EIO", faulty{read: always(unix.EIO)}, func(d *Disk) error { return d.ReadAt(p, 4096) }, unix.EIO, "synchronised anew"},
		{"write ENOSPC", faulty{written: always(unix.ENOSPC)}, func(d *Disk) error { return d.WriteAt(p, 4096) }, unix.ENOSPC, "add space"},
		{"write EDQUOT", faulty{written: always(unix.EDQUOT)}, func(d *Disk) error { return d.WriteAt(p, 4096) }, unix.EDQUOT, "quota"},
		{"write EROFS", faulty{written: always(unix.EROFS)}, func(d *Disk) error { return d.WriteAt(p, 4096) }, unix.EROFS, "read-only"},
		{"punch EIO", faulty{punched: always(unix.EIO)}, func(d *Disk) error { return d.Zero(4096, 8192) }, unix.EIO, "kernel log"},
		{"edge ENOSPC", faulty{written: always(unix.ENOSPC)}, func(d *Disk) error { return d.Zero(4000, 8192) }, unix.ENOSPC, "zero 96 bytes at offset 4000"},
		{"sync EIO", faulty{synced: always(unix.EIO)}, (*Disk).Sync, unix.EIO, "kernel log"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := create(t, 64<<10)
			c.fault.medium, d.medium = d.medium, &c.fault
			err := c.do(d)
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), d.Path()) {
				t.Error(err)
			}
		})
	}
}

func TestZeroWhereTheMediumCannot(t *testing.T) {
	d := create(t, mib)
	calls := 0
	d.medium = &faulty{medium: d.medium, punched: func() error { calls++; return errors.ErrUnsupported }}
	want := pattern(mib, 1)
	write(t, d, want, 0)
	for range 2 {
		if err := d.Zero(1000, mib/2); err != nil {
			t.Fatal(err)
		}
	}
	clear(want[1000 : 1000+mib/2])
	if !bytes.Equal(read(t, d, 0, mib), want) {
		t.Error("wrong bytes")
	}
	if calls != 1 {
		t.Errorf("it was asked %d times to do what it cannot", calls)
	}
}

func TestFailedSyncStays(t *testing.T) {
	d := create(t, 8192)
	f := &faulty{medium: d.medium, synced: always(unix.EIO)}
	d.medium = f
	first := d.Sync()
	f.synced = nil // as the kernel does: the error is reported once
	p := make([]byte, 10)
	for what, err := range map[string]error{
		"first sync": first, "sync": d.Sync(), "read": d.ReadAt(p, 0), "write": d.WriteAt(p, 0),
		"zero": d.Zero(0, 10), "close": d.Close(),
	} {
		if !errors.Is(err, ErrFailed) || !errors.Is(err, unix.EIO) {
			t.Errorf("%s: %v", what, err)
		}
	}
	again, err := OpenFile(d.Path(), 8192)
	if err != nil {
		t.Fatalf("Close has not given the file up: %v", err)
	}
	again.Close()
}

// TestSyncIsNotServedByAnEarlierOne: a datasync that runs already when Sync is
// called says nothing about what was written since; one that starts later serves
// all who wait.
func TestSyncIsNotServedByAnEarlierOne(t *testing.T) {
	d := create(t, 8192)
	entered, release := make(chan struct{}, 100), make(chan struct{})
	d.medium = &faulty{medium: d.medium, synced: func() error {
		entered <- struct{}{}
		<-release
		return nil
	}}
	var wg sync.WaitGroup
	wg.Go(func() { d.Sync() })
	<-entered
	for range 20 {
		wg.Go(func() {
			if err := d.Sync(); err != nil {
				t.Error(err)
			}
		})
	}
	release <- struct{}{} // the first ends; somebody has to start a second one
	<-entered
	close(release)
	wg.Wait()
}

// TestSyncIsServedByALaterOne: the bookkeeping of the group.
func TestSyncIsServedByALaterOne(t *testing.T) {
	d := create(t, 8192)
	calls := 0
	d.medium = &faulty{medium: d.medium, synced: func() error { calls++; return nil }}
	d.syncing.Lock()
	seen := d.started.Load()
	done := make(chan error)
	go func() { done <- d.syncSince(seen) }()
	d.started.Add(1) // another caller's, after ours had read the counter
	d.syncing.Unlock()
	if err := <-done; err != nil || calls != 0 {
		t.Errorf("%v; %d datasyncs of its own", err, calls)
	}
	if err := d.Sync(); err != nil || calls != 1 {
		t.Errorf("%v; %d datasyncs", err, calls)
	}
}

// TestOneFailureIsForAll: of many that wait for a datasync which fails, none is
// told that its data is safe.
func TestOneFailureIsForAll(t *testing.T) {
	d := create(t, 8192)
	once := sync.Once{}
	d.medium = &faulty{medium: d.medium, synced: func() (err error) {
		once.Do(func() { err = unix.EIO })
		return err
	}}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := d.Sync(); !errors.Is(err, unix.EIO) {
				t.Errorf("told that all is well: %v", err)
			}
		})
	}
	wg.Wait()
}

// TestGrowIsToldOfFailedWriteBack: the kernel tells of a failed write-back once, and it
// may be Grow that hears it. No later Sync may say that all is well.
func TestGrowIsToldOfFailedWriteBack(t *testing.T) {
	d := create(t, mib)
	write(t, d, pattern(4096, 1), 0)
	once := 0
	d.medium = &faulty{medium: d.medium, synced: func() error {
		if once++; once == 1 {
			return unix.EIO
		}
		return nil
	}}
	if err := d.Grow(2 * mib); !errors.Is(err, ErrFailed) || !errors.Is(err, unix.EIO) {
		t.Errorf("Grow: %v", err)
	}
	if err := d.Sync(); !errors.Is(err, ErrFailed) {
		t.Errorf("the next Sync: %v", err)
	}
	if err := d.Grow(2 * mib); !errors.Is(err, ErrFailed) {
		t.Errorf("the next Grow: %v", err)
	}
}
