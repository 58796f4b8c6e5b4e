package volume

import (
	"bytes"
	"errors"
	"testing"
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

func TestReadNowAllocatesNothing(t *testing.T) {
	p, ctx := newPair(t), limited(t)
	a := p.sides[0].vol
	buf := pattern(4096, 1)
	must(t, a.WriteAt(ctx, buf, 0, false))
	if n := testing.AllocsPerRun(1000, func() { _, _ = a.ReadNow(buf, 0) }); n >= 1 {
		t.Error(n, "allocations")
	}
}
