// Package volume is a LUN as the front ends see it: bytes to read and write, the
// same at both sites.
//
// Every command asks the dirtymap.Map, extent by extent, whether it may use the
// local replica. If so, that is all there is to it: no lock that another command
// holds for long, no message, no goroutine, no allocation. For the extents that
// are refused it waits with a replication.Request, holding nothing meanwhile.
//
// Inside one command the extents are done in any order; each 4 KiB block of it is
// atomic, the command as a whole is not, unless it is an Update or a WriteAtomic.
// DESIGN.md tells the rest.
package volume

import (
	"context"
	"fmt"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication"
)

// window is how much of a command is in hand at a time, in bytes. It bounds what
// an UNMAP of terabytes asks for at once, and is as wide as marks are ever sent
// ahead.
const window = 64 << 20

// Volume is a LUN over its replica. All methods may be called concurrently.
type Volume struct {
	r   *replication.Replica
	m   *dirtymap.Map
	geo dirtymap.Geometry

	lease Lease // nil: this node and its peer are no cluster

	turn turn // to wait for several extents at once
}

// New makes the volume of a replica.
func New(r *replication.Replica) *Volume {
	return &Volume{r: r, m: r.Map(), geo: r.Map().Geometry(), turn: turn{run: r.Runtime()}}
}

// Size is the LUN's size in bytes.
func (v *Volume) Size() int64 { return v.geo.Size }

// readTries is how often a read is tried that atomic writes have come in between of: it
// takes them seldom, and the second try finds the newest data at hand.
const readTries = 8

// ReadAt fills p with the bytes at off. It waits until the replica serves and has
// the newest data, or until ctx ends; then it returns the context's cause. Of an atomic
// write it shows all or nothing.
func (v *Volume) ReadAt(ctx context.Context, p []byte, off int64) error {
	return v.leased(ctx, func() error { return v.read(ctx, p, off) })
}

func (v *Volume) read(ctx context.Context, p []byte, off int64) error {
	a := access{kind: read, p: p, off: off, n: int64(len(p))}
	for range readTries {
		before := v.m.Mixings()
		if err := v.do(ctx, a); err != nil || a.small() || v.m.Mixings() == before {
			return err
		}
	}
	return v.readWhole(ctx, p, off)
}

// WriteAt stores p at off, durably if fua. With an error, any part of it may have
// been written.
func (v *Volume) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	return v.store(ctx, access{kind: write, p: p, off: off, n: int64(len(p))}, fua)
}

// Zero makes [off, off+n) read as zeros, durably if fua, and gives its space back
// where the medium can do that.
func (v *Volume) Zero(ctx context.Context, off, n int64, fua bool) error {
	return v.store(ctx, access{kind: zero, off: off, n: n}, fua)
}

func (v *Volume) store(ctx context.Context, a access, fua bool) error {
	return v.leased(ctx, func() error {
		if err := v.do(ctx, a); err != nil || !fua {
			return err
		}
		return v.sync(ctx)
	})
}

// Sync makes everything that was written here before durable.
func (v *Volume) Sync(ctx context.Context) error {
	return v.leased(ctx, func() error { return v.sync(ctx) })
}

func (v *Volume) sync(ctx context.Context) error {
	q := v.r.NewRequest()
	defer q.Cancel()
	q.Sync()
	if err := awaitSync(ctx, q); err != nil {
		return fmt.Errorf("flush the LUN: %w", err)
	}
	return nil
}

// kind is what a command does.
type kind uint8

const (
	read kind = iota
	write
	zero
)

func (k kind) String() string { return [...]string{"read", "write", "zero"}[k] }

// access is a command, or a part of one.
type access struct {
	kind kind
	p    []byte // for read and write
	off  int64
	n    int64
}

func (a access) end() int64 { return a.off + a.n }

// small tells whether a is in one block.
func (a access) small() bool {
	return a.n == 0 || a.off/dirtymap.BlockSize == (a.end()-1)/dirtymap.BlockSize
}

// cut is the part of a in [from, to), which it touches.
func (a access) cut(from, to int64) access {
	from, to = max(from, a.off), min(to, a.end())
	c := access{kind: a.kind, off: from, n: to - from}
	if a.p != nil {
		c.p = a.p[from-a.off : to-a.off]
	}
	return c
}

func (v *Volume) do(ctx context.Context, a access) error {
	_, err := v.doParts(ctx, []access{a})
	return err
}

// doParts does parts of a command. With an error it returns those that were surely not
// begun, if the error is that the replica was closed.
func (v *Volume) doParts(ctx context.Context, parts []access) (left []access, err error) {
	for i, a := range parts {
		if a.off < 0 || a.n < 0 || a.n > v.geo.Size-a.off {
			return nil, fmt.Errorf("%v %d bytes at offset %d: the LUN has %d", a.kind, a.n, a.off, v.geo.Size)
		}
		for off := a.off; off < a.end(); {
			end := min(off-off%window+window, a.end())
			if left, err = v.doWindow(ctx, a.cut(off, end)); err != nil {
				if end < a.end() {
					left = append(left, a.cut(end, a.end()))
				}
				return append(left, parts[i+1:]...), fmt.Errorf("%v %d bytes at offset %d: %w", a.kind, a.n, a.off, err)
			}
			off = end
		}
	}
	return nil, nil
}

// doWindow does what is allowed at once, and waits for the rest.
func (v *Volume) doWindow(ctx context.Context, a access) (left []access, err error) {
	refused, err := v.doAllowed(a)
	if err == nil && len(refused) > 0 {
		left, err = v.doRefused(ctx, a, refused)
	}
	return left, err
}

// doAllowed does a's part in the extents that the map allows it, run by run, and
// returns the others. It stops at an error.
func (v *Volume) doAllowed(a access) (refused []dirtymap.Range, err error) {
	all := v.geo.Covering(a.off, a.n)
	if !v.m.Begin() {
		return []dirtymap.Range{all}, nil
	}
	for ext := all.First; ext < all.End() && err == nil; {
		run := v.enter(a, dirtymap.Range{First: ext, Count: all.End() - ext})
		if run.Count == 0 {
			refused = add(refused, ext)
			ext++
			continue
		}
		err = v.perform(a, run)
		v.exit(run)
		ext = run.End()
	}
	if v.m.End() {
		v.r.Quiet()
	}
	return refused, err
}

// add puts an extent behind ascending runs.
func add(runs []dirtymap.Range, ext uint64) []dirtymap.Range {
	if n := len(runs); n > 0 && runs[n-1].End() == ext {
		runs[n-1].Count++
		return runs
	}
	return append(runs, dirtymap.Range{First: ext, Count: 1})
}

// enter enters the allowed extents at the front of a range.
func (v *Volume) enter(a access, r dirtymap.Range) dirtymap.Range {
	n := uint64(0)
	for n < r.Count && v.m.Enter(r.First+n, a.kind != read) {
		n++
	}
	return dirtymap.Range{First: r.First, Count: n}
}

func (v *Volume) exit(run dirtymap.Range) {
	for ext := run.First; ext < run.End(); ext++ {
		if v.m.Exit(ext) {
			v.r.Drained(ext)
		}
	}
}

// perform does a's part in a run of extents that are entered.
func (v *Volume) perform(a access, run dirtymap.Range) error {
	part := a.cut(v.geo.Offset(run.First), v.geo.Offset(run.End()))
	switch part.kind {
	case read:
		return v.r.Read(part.p, part.off)
	case write:
		err := v.r.Write(part.p, part.off)
		v.wrote(part, run)
		return err
	default:
		err := v.r.Zero(part.off, part.n)
		v.wrote(part, run)
		return err
	}
}

// wrote sets the blocks dirty that a write touched; also when it failed, for then
// nobody knows what they hold.
func (v *Volume) wrote(a access, run dirtymap.Range) {
	for ext := run.First; ext < run.End(); ext++ {
		base := v.geo.Offset(ext)
		part := a.cut(base, base+v.geo.ExtentSize)
		first := (part.off - base) / dirtymap.BlockSize
		last := (part.end() - 1 - base) / dirtymap.BlockSize
		v.m.Wrote(ext, int(first), int(last-first+1))
	}
}
