package scsi

import (
	"context"
	"slices"
	"testing"
)

// Update implements Disk.
func (r *ram) Update(_ context.Context, off, n int64, fua bool, change func(p []byte) bool) error {
	r.Lock()
	defer r.Unlock()
	what := "update"
	if fua {
		what = "update fua"
	}
	if err := r.enter(what, off, n); err != nil {
		return err
	}
	if n > maxUpdate {
		r.outside = append(r.outside, "too long an update")
	}
	p := slices.Clone(r.p[off : off+n])
	if change(p) {
		copy(r.p[off:], p)
	}
	return nil
}

// WriteAtomic implements Disk.
func (r *ram) WriteAtomic(_ context.Context, p []byte, off int64, fua bool) error {
	r.Lock()
	defer r.Unlock()
	what := "atomic"
	if fua {
		what = "atomic fua"
	}
	if err := r.enter(what, off, int64(len(p))); err != nil {
		return err
	}
	if len(p) > maxUpdate {
		r.outside = append(r.outside, "too long an atomic write")
	}
	copy(r.p[off:], p)
	return nil
}

func (huge) WriteAtomic(context.Context, []byte, int64, bool) error  { return nil }
func (sized) WriteAtomic(context.Context, []byte, int64, bool) error { return nil }

func (huge) Update(context.Context, int64, int64, bool, func(p []byte) bool) error  { return nil }
func (sized) Update(context.Context, int64, int64, bool, func(p []byte) bool) error { return nil }

// thin is a ram with holes: where all of hole bytes are zeros.
type thin struct {
	*ram
	hole int64
	most int64 // it tells of so much at a time
}

// Mapped implements Mapper.
func (d thin) Mapped(off, n int64) (mapped bool, run int64, err error) {
	d.Lock()
	defer d.Unlock()
	if err := d.enter("mapped", off, n); err != nil {
		return false, 0, err
	}
	n = min(n, d.most)
	for run < n {
		at := off + run
		end := min((at/d.hole+1)*d.hole, int64(len(d.p)))
		m := !allZero(d.p[at/d.hole*d.hole : end])
		if run > 0 && m != mapped {
			break
		}
		mapped, run = m, min(end-off, n)
	}
	return mapped, run, nil
}

// newRigOf is newRig with another disk, and logical blocks of another size.
func newRigOf(t *testing.T, r *ram, d Disk, blockSize uint32) *rig {
	t.Helper()
	g := &rig{t: t, disk: r, target: quietTarget()}
	l := testLUN(d)
	l.BlockSize = blockSize
	if err := g.target.AddLUN(0, l); err != nil {
		t.Fatal(err)
	}
	g.nexus = g.target.NewNexus(testPort, 2)
	g.ua("2900")
	return g
}

// bothSizes runs a test with 64 logical blocks of either size, each filled with its
// number.
func bothSizes(t *testing.T, test func(r *rig, size int)) {
	for _, size := range []int{512, 4096} {
		t.Run(map[int]string{512: "512", 4096: "4096"}[size], func(t *testing.T) {
			disk := newRAM(64 * size)
			for i := range disk.p {
				disk.p[i] = byte(i / size)
			}
			test(newRigOf(t, disk, disk, uint32(size)), size)
		})
	}
}

// fill makes blocks out of bytes, one for each.
func fill(size int, each ...byte) []byte {
	p := make([]byte, 0, size*len(each))
	for _, b := range each {
		p = append(p, slices.Repeat([]byte{b}, size)...)
	}
	return p
}
