package iscsi

import "io"

// readBuffer is large enough to take many commands with one system call.
const readBuffer = 64 << 10

// loginBuffer is what a connection gets until it is logged in: strangers cost little.
const loginBuffer = 4 << 10

const (
	// directRead is from which length on what is asked for is read to its place, in
	// bytes, and not by way of the buffer: copying less costs less than the vector.
	directRead = 512
	// largeRead is from which length on a data segment is a large one, in bytes: copying
	// as much costs about what a system call costs.
	largeRead = 32 << 10
)

// scatterer reads like an io.Reader, first into a, and what else is there into b.
type scatterer interface {
	readBoth(a, b []byte) (n int, err error)
}

// intake reads ahead. What is asked for goes straight to its place if it is not there
// yet, and what comes behind it to the buffer, with one system call.
type intake struct {
	r    io.Reader
	both scatterer // r, or nil: it cannot
	buf  []byte    // not smaller than directRead
	at   int       // buf[at:end] was read ahead
	end  int

	// large says that a large segment comes, or is the last one that came. Then no more
	// than the next header is read ahead: the segment behind it is likely to be as large,
	// and shall go straight to its place too.
	large bool
}

func newIntake(r io.Reader, size int) *intake {
	both, _ := r.(scatterer)
	return &intake{r: r, both: both, buf: make([]byte, size)}
}

// grow gives the intake a larger buffer.
func (i *intake) grow(size int) {
	buf := make([]byte, size)
	i.at, i.end = 0, copy(buf, i.buf[i.at:i.end])
	i.buf = buf
}

// buffered is how much was read ahead, in bytes.
func (i *intake) buffered() int { return i.end - i.at }

// read fills p. Among large segments, no more than ahead bytes are read ahead. Errors
// are those of io.ReadFull.
func (i *intake) read(p []byte, ahead int) error {
	n := i.take(p)
	for n < len(p) {
		m, err := i.fill(p[n:], ahead)
		if n += m; n < len(p) && err != nil {
			if err == io.EOF && n > 0 {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// take copies what was read ahead.
func (i *intake) take(p []byte) int {
	n := copy(p, i.buf[i.at:i.end])
	i.at += n
	return n
}

// fill reads once, when nothing is left of what was read ahead, and gives p its part.
func (i *intake) fill(p []byte, ahead int) (n int, err error) {
	if !i.large {
		ahead = len(i.buf)
	}
	switch {
	case !i.large && len(p) < directRead:
		i.at = 0
		i.end, err = i.r.Read(i.buf)
		return i.take(p), err
	case i.both == nil || ahead == 0:
		return i.r.Read(p)
	}
	n, err = i.both.readBoth(p, i.buf[:ahead])
	i.at, i.end = 0, max(0, n-len(p))
	return min(n, len(p)), err
}
