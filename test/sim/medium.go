package sim

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/task/simtask"
)

const sectorSize = 512

// medium is a file as it outlives processes, with the page cache in front of it.
// Everybody reads the cache; what is not synced when the operating system crashes
// survives, vanishes or is torn, sector by sector, in any order.
type medium struct {
	rand    *rand.Rand
	cache   []byte
	durable []byte
	pending []change // not synced, in order
	seq     uint64
	slow    time.Duration // added to every access, at most
}

// change is a write, or a truncation if data is nil.
type change struct {
	seq  uint64
	off  int64
	data []byte
}

func newMedium(r *rand.Rand, size int64) *medium {
	return &medium{rand: r, cache: make([]byte, size), durable: make([]byte, size)}
}

func (m *medium) write(p []byte, off int64) {
	m.cache = apply(m.cache, p, off)
	m.seq++
	m.pending = append(m.pending, change{m.seq, off, append([]byte{}, p...)})
}

func (m *medium) truncate(size int64) {
	m.cache = resize(m.cache, size)
	m.seq++
	m.pending = append(m.pending, change{seq: m.seq, off: size})
}

func apply(b, p []byte, off int64) []byte {
	if end := off + int64(len(p)); end > int64(len(b)) {
		b = resize(b, end)
	}
	copy(b[off:], p)
	return b
}

func resize(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

// sync makes durable what was written up to seq.
func (m *medium) sync(seq uint64) {
	n := 0
	for ; n < len(m.pending) && m.pending[n].seq <= seq; n++ {
		m.persist(m.pending[n])
	}
	m.pending = append(m.pending[:0], m.pending[n:]...)
}

func (m *medium) persist(c change) {
	if c.data == nil {
		m.durable = resize(m.durable, c.off)
	} else {
		m.durable = apply(m.durable, c.data, c.off)
	}
}

// crash is an operating system crash. It returns how many writes were in doubt.
func (m *medium) crash() int {
	n := len(m.pending)
	keep := []int{0, 0, 30, 70, 97, 100}[m.rand.IntN(6)]
	for _, c := range m.pending {
		switch {
		case c.data == nil:
			if chance(m.rand, keep) {
				m.persist(c)
			}
		default:
			m.crashWrite(c, keep)
		}
	}
	m.pending = nil
	m.cache = append([]byte{}, m.durable...)
	return n
}

// crashWrite lets each sector of a write survive or not.
func (m *medium) crashWrite(c change, keep int) {
	for at := int64(0); at < int64(len(c.data)); {
		n := min(sectorSize-(c.off+at)%sectorSize, int64(len(c.data))-at)
		if chance(m.rand, keep) {
			m.durable = apply(m.durable, c.data[at:at+n], c.off+at)
		}
		at += n
	}
}

// reset is a new, empty medium.
func (m *medium) reset(size int64) {
	m.cache, m.durable, m.pending = make([]byte, size), make([]byte, size), nil
}

// disk is a process's access to a replica's medium: a backing.Store.
type disk struct {
	*medium
	group *simtask.Group
	size  int64
}

var errDead = errors.New("the process is dead")

// pause takes the time of an access.
func (m *medium) pause(g *simtask.Group, d time.Duration) error {
	d = upTo(m.rand, d)
	if chance(m.rand, 2) {
		d *= 20
	}
	if err := g.Sleep(background, d+upTo(m.rand, m.slow)); err != nil {
		return err
	}
	if !g.Alive() {
		return errDead
	}
	return nil
}

// Times of an access, at most and mostly.
const (
	readTime = 300 * time.Microsecond
	syncTime = 5 * time.Millisecond
)

func (d *disk) inside(off, n int64) error {
	if off < 0 || n < 0 || off+n > d.size {
		return fmt.Errorf("%d bytes at offset %d of %d", n, off, d.size)
	}
	return nil
}

// ReadAt implements backing.Store. A read may be overtaken by a write.
func (d *disk) ReadAt(p []byte, off int64) error {
	if err := d.inside(off, int64(len(p))); err != nil {
		return err
	}
	if err := d.pause(d.group, readTime); err != nil {
		return err
	}
	half := d.split(off, len(p))
	copy(p[:half], d.cache[off:])
	if half < len(p) {
		if err := d.pause(d.group, readTime/10); err != nil {
			return err
		}
	}
	copy(p[half:], d.cache[off+int64(half):])
	return nil
}

// ReadNow implements backing.NowReader: some of the medium is at hand, some is not.
func (d *disk) ReadNow(p []byte, off int64) (bool, error) {
	if err := d.inside(off, int64(len(p))); err != nil || chance(d.rand, 40) {
		return false, err
	}
	copy(p, d.cache[off:])
	return true, nil
}

// split is where an access is interrupted, at a sector; mostly at its end.
func (d *disk) split(off int64, n int) int {
	if n <= sectorSize || !chance(d.rand, 20) {
		return n
	}
	at := (off+1+d.rand.Int64N(int64(n)-1))/sectorSize*sectorSize - off
	return int(max(at, 0))
}

// WriteAt implements backing.Store. A process that is killed meanwhile leaves
// whole blocks.
func (d *disk) WriteAt(p []byte, off int64) error {
	if err := d.inside(off, int64(len(p))); err != nil {
		return err
	}
	if err := d.pause(d.group, readTime); err != nil {
		return err
	}
	half := d.split(off, len(p))
	d.write(p[:half], off)
	if half < len(p) {
		rest, at := p[half:], off+int64(half)
		killed := true
		defer func() {
			if killed {
				n := (dirtymap.BlockSize - at%dirtymap.BlockSize) % dirtymap.BlockSize
				d.write(rest[:min(n, int64(len(rest)))], at)
			}
		}()
		if err := d.pause(d.group, readTime/10); err != nil {
			return err
		}
		killed = false
		d.write(rest, at)
	}
	// The write is done, and nobody knows yet.
	return d.pause(d.group, readTime/10)
}

// Zero implements backing.Store.
func (d *disk) Zero(off, n int64) error { return d.WriteAt(make([]byte, n), off) }

// Sync implements backing.Store.
func (d *disk) Sync() error { return d.syncTo(d.group) }

func (m *medium) syncTo(g *simtask.Group) error {
	seq := m.seq
	if err := m.pause(g, syncTime); err != nil {
		return err
	}
	m.sync(seq)
	return m.pause(g, syncTime/10)
}

// Size implements backing.Store.
func (d *disk) Size() int64 { return d.size }

// Close implements backing.Store.
func (d *disk) Close() error { return d.Sync() }

// mapDisk is a process's access to a map file's medium: a mapfile.File.
type mapDisk struct {
	*medium
	group *simtask.Group
}

// ReadAt implements io.ReaderAt.
func (f *mapDisk) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(f.cache)) {
		return 0, io.EOF
	}
	n := copy(p, f.cache[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements io.WriterAt. A process that is killed meanwhile may leave a
// part.
func (f *mapDisk) WriteAt(p []byte, off int64) (int, error) {
	if err := f.pause(f.group, readTime/10); err != nil {
		return 0, err
	}
	f.write(p, off)
	return len(p), nil
}

// Sync implements mapfile.File.
func (f *mapDisk) Sync() error { return f.syncTo(f.group) }

// Truncate implements mapfile.File.
func (f *mapDisk) Truncate(size int64) error {
	if err := f.pause(f.group, readTime/10); err != nil {
		return err
	}
	f.truncate(size)
	return nil
}

// Size implements mapfile.File.
func (f *mapDisk) Size() (int64, error) { return int64(len(f.cache)), nil }

// Close implements mapfile.File.
func (f *mapDisk) Close() error { return nil }
