package volume

import (
	"bytes"
	"errors"
	"runtime"
	"testing"

	"github.com/twinlun/twinlun/dirtymap"
)

// ReadNow makes memory a backing.NowReader: whatever is free is at hand.
func (m *memory) ReadNow(p []byte, off int64) (bool, error) {
	if !m.mu.TryLock() {
		return false, nil
	}
	defer m.mu.Unlock()
	if m.fail != nil {
		return false, nil
	}
	copy(p, m.data[off:])
	return true, nil
}

func TestReadNow(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	a, b := p.sides[0].vol, p.sides[1].vol
	want, got := pattern(100<<10, 1), make([]byte, 100<<10)
	never := func(v *Volume, off int64, why string) {
		t.Helper()
		if done, err := v.ReadNow(got, off); done || err != nil {
			t.Fatalf("read at once %s: %v, %v", why, done, err)
		}
	}
	now := func(v *Volume, why string) {
		t.Helper()
		clear(got)
		// The other site may keep the extent for a while, or read a block that is
		// asked for here, to copy it.
		for {
			must(t, v.ReadAt(ctx, got, 4096))
			clear(got)
			done, err := v.ReadNow(got, 4096)
			must(t, err)
			if done {
				break
			}
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("read at once %s: other bytes", why)
		}
	}
	must(t, a.WriteAt(ctx, want, 4096, false))
	now(a, "what was written here")
	never(b, 4096, "what was written at the other site")
	now(b, "what has been fetched")
	for _, off := range []int64{-1, a.Size() - 4096, a.Size(), 1 << 62, -1 << 63} {
		never(a, off, "outside of the LUN")
	}
	p.cut()
	never(a, 4096, "without a lease")
}

func TestReadNowLeavesFailuresToReadAt(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	a := p.sides[0]
	buf := pattern(4096, 1)
	must(t, a.vol.WriteAt(ctx, buf, 0, true))
	a.store.setFail(errors.New("the medium is gone"))
	defer a.store.setFail(nil)
	if done, err := a.vol.ReadNow(buf, 0); done || err != nil {
		t.Fatal("a failing medium:", done, err)
	}
	if a.vol.ReadAt(ctx, buf, 0) == nil {
		t.Fatal("no error")
	}
}

func TestWriteNow(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	a, b := p.sides[0].vol, p.sides[1].vol
	want, got := pattern(100<<10, 1), make([]byte, 100<<10)
	never := func(v *Volume, off int64, why string) {
		t.Helper()
		if done, err := v.WriteNow(want, off); done || err != nil {
			t.Fatalf("written at once %s: %v, %v", why, done, err)
		}
	}
	// now makes the extents v's, and writes them; the other site may take blocks, to
	// copy them, meanwhile.
	now := func(v *Volume, p []byte) {
		t.Helper()
		for done := false; !done; {
			must(t, v.WriteAt(ctx, make([]byte, len(p)), 4096, false))
			var err error
			done, err = v.WriteNow(p, 4096)
			must(t, err)
		}
	}
	never(a, 4096, "in an extent that nobody owns")
	now(a, want)
	never(b, 4096, "in an extent of the other site")
	must(t, b.ReadAt(ctx, got, 4096)) // so it is dirty at a
	if !bytes.Equal(got, want) {
		t.Fatal("the other site reads other bytes")
	}
	want = pattern(100<<10, 2)
	now(b, want)
	must(t, a.ReadAt(ctx, got, 4096))
	if !bytes.Equal(got, want) {
		t.Fatal("the first site reads other bytes")
	}
	for _, off := range []int64{-1, a.Size() - 4096, a.Size(), 1 << 62, -1 << 63} {
		never(a, off, "outside of the LUN")
	}
	p.cut()
	never(a, 4096, "without a lease")
}

// A write that fails leaves its blocks dirty: the peer gets what there is.
func TestWriteNowFails(t *testing.T) {
	p, ctx := newPairRate(t, 1), limited(t) // it copies one block, and is in debt then
	a := p.sides[0]
	buf := pattern(4096, 1)
	must(t, a.vol.WriteAt(ctx, buf, 0, true))
	for a.vol.m.Dirty(0).Count() > 0 {
		must(t, ctx.Err())
		runtime.Gosched()
	}
	gone := errors.New("the medium is gone")
	a.store.setFail(gone)
	defer a.store.setFail(nil)
	if _, err := a.vol.WriteNow(buf, 8192); !errors.Is(err, gone) {
		t.Fatal("a failing medium:", err)
	}
	if a.vol.m.Dirty(0) != dirtymap.MaskOf(2, 1) {
		t.Error("the block is not dirty")
	}
}

func TestNowAllocatesNothing(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	a := p.sides[0].vol
	buf := pattern(4096, 1)
	must(t, a.WriteAt(ctx, buf, 0, false))
	if n := testing.AllocsPerRun(1000, func() { _, _ = a.ReadNow(buf, 0) }); n >= 1 {
		t.Error(n, "allocations in a read")
	}
	if n := testing.AllocsPerRun(1000, func() { _, _ = a.WriteNow(buf, 0) }); n >= 1 {
		t.Error(n, "allocations in a write")
	}
}
