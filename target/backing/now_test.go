package backing

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// reads counts what comes to a medium in which way.
type reads struct {
	medium
	now    func(p []byte, off int64) (int, error)
	nows   int
	waited int
}

func (r *reads) readNow(p []byte, off int64) (int, error) {
	r.nows++
	return r.now(p, off)
}

func (r *reads) ReadAt(p []byte, off int64) (int, error) {
	r.waited++
	return r.medium.ReadAt(p, off)
}

func TestReadNow(t *testing.T) {
	d := create(t, mib)
	want := pattern(64<<10, 7)
	write(t, d, want, 4096) // so it is in the page cache
	got := make([]byte, len(want))
	switch done, err := d.ReadNow(got, 4096); {
	case err != nil:
		t.Fatal(err)
	case !done && !d.cannotNow.Load():
		t.Error("what was just written is not in the page cache")
	case done && !bytes.Equal(got, want):
		t.Error("it read something else")
	}
	for _, off := range []int64{-1, mib, mib - 100} {
		if done, err := d.ReadNow(make([]byte, 101), off); done || !errors.Is(err, ErrRange) {
			t.Errorf("at offset %d: %v, %v; want %v", off, done, err, ErrRange)
		}
	}
	d.Close()
	if done, _ := d.ReadNow(got, 0); done {
		t.Error("it read a closed replica")
	}
}

// What is not there, or not all of it, is left to ReadAt; and a medium that cannot
// tell is not asked again.
func TestReadNowLeavesTheRest(t *testing.T) {
	for _, test := range []struct {
		name  string
		n     int
		err   error
		again int // how often the medium is asked in two reads
		done  bool
	}{
		{"all there", 4096, nil, 2, true},
		{"a part is there", 1024, nil, 2, false},
		{"nothing is there", 0, unix.EAGAIN, 2, false},
		{"the end, unexpectedly", 0, nil, 2, false},
		{"medium error", 0, unix.EIO, 2, false},
		{"closed", 0, os.ErrClosed, 2, false},
		{"not for this file system", 0, unix.EOPNOTSUPP, 1, false},
		{"not in this kernel", 0, unix.ENOSYS, 1, false},
	} {
		d := create(t, mib)
		r := &reads{medium: d.medium, now: func([]byte, int64) (int, error) { return test.n, test.err }}
		d.medium = r
		for range 2 {
			if done, err := d.ReadNow(make([]byte, 4096), 0); done != test.done || err != nil {
				t.Errorf("%s: %v, %v", test.name, done, err)
			}
		}
		if r.nows != test.again || r.waited != 0 {
			t.Errorf("%s: asked %d times, waited %d times", test.name, r.nows, r.waited)
		}
	}
}

func TestReadNowAllocatesNothing(t *testing.T) {
	d := create(t, mib)
	write(t, d, pattern(4096, 1), 0)
	p := make([]byte, 4096)
	if n := testing.AllocsPerRun(1000, func() { d.ReadNow(p, 0) }); n >= 1 {
		t.Errorf("%v allocations for each read", n)
	}
}
