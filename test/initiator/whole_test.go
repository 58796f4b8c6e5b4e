package initiator_test

import (
	"bytes"
	"testing"

	"github.com/twinlun/twinlun/test/initiator"
)

// TestWholeCommands: compare-and-write tells whether it was done, atomic writes arrive,
// and what is not in whole blocks, or too long, is no command at all.
func TestWholeCommands(t *testing.T) {
	m := &memory{data: make([]byte, 1<<20)}
	r, err := initiator.NewResilient(initiator.Options{Address: serveMemory(t, m), TargetIQN: memoryName}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx := t.Context()
	never := func() { t.Error("tried again") }
	a, b := bytes.Repeat([]byte{1}, 4096), bytes.Repeat([]byte{2}, 4096)
	for i, c := range []struct {
		old, new []byte
		done     bool
	}{{make([]byte, 4096), a, true}, {make([]byte, 4096), b, false}, {a, b, true}, {b, b, true}, {a, a, false}} {
		done, err := r.CompareAndWriteTries(ctx, c.old, c.new, 8192, never)
		if done != c.done || err != nil {
			t.Errorf("number %d: done %v, %v", i, done, err)
		}
	}
	if err := r.WriteAtomic(ctx, bytes.Repeat([]byte{3}, 128<<10), 64<<10); err != nil {
		t.Error(err)
	}
	want := make([]byte, len(m.data))
	copy(want[8192:], b)
	copy(want[64<<10:], bytes.Repeat([]byte{3}, 128<<10))
	m.mu.Lock()
	if !bytes.Equal(m.data, want) {
		t.Error("something else was stored")
	}
	m.mu.Unlock()
	for _, c := range []struct{ n, off int64 }{{100, 0}, {512, 100}, {512, -512}, {256 * 512, 0}} {
		if _, err := r.CompareAndWriteTries(ctx, make([]byte, c.n), make([]byte, c.n), c.off, never); err == nil {
			t.Errorf("compared and wrote %d bytes at %d", c.n, c.off)
		}
	}
	for _, c := range []struct{ n, off int64 }{{100, 0}, {512, 100}, {512, -512}, {1 << 16 * 512, 0}, {132 << 10, 0}, {4096, 512}} {
		if err := r.WriteAtomic(ctx, make([]byte, c.n), c.off); err == nil {
			t.Errorf("wrote %d bytes at %d atomically", c.n, c.off)
		}
	}
	if _, err := r.CompareAndWriteTries(ctx, a, b[:512], 0, never); err == nil {
		t.Error("compared one length and wrote another")
	}
}
