package sim

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"time"

	"github.com/twinlun/twinlun/task/simtask"
)

// memoFile is the file with a site's memos, as it outlives processes: it is replaced as a
// whole, and after an operating system crash it is the new one or the one before.
type memoFile struct {
	rand    *rand.Rand
	cache   []byte // what a reader sees; nil: there is none
	durable []byte
	slow    time.Duration // added to every access, at most
}

// memoFails is how many of 100 writes fail; half of them are done nevertheless.
const memoFails = 4

var errNoRoom = errors.New("no space left on the device")

func (f *memoFile) read() ([]byte, error) {
	if f.cache == nil {
		return nil, fs.ErrNotExist
	}
	return bytes.Clone(f.cache), nil
}

// write replaces the file in the time of a process.
func (f *memoFile) write(g *simtask.Group, p []byte) error {
	pause := func() { g.Sleep(background, upTo(f.rand, syncTime)+upTo(f.rand, f.slow)) }
	pause()
	if chance(f.rand, memoFails/2) {
		return errNoRoom
	}
	f.cache = bytes.Clone(p)
	pause()
	f.durable = f.cache
	pause()
	if chance(f.rand, memoFails/2) {
		return errNoRoom
	}
	return nil
}

// crash is an operating system crash.
func (f *memoFile) crash() {
	if chance(f.rand, 50) {
		f.durable = f.cache
	}
	f.cache = f.durable
}
