package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twinlun/twinlun/test/failover"
)

// TestReturn measures how soon a site serves that was away while so much was written at
// the other one: from the start of its process, which takes its time itself, until a host
// at it has read the first and the last of what was written, and has written. Everything
// that it returns has to be right.
func TestReturn(t *testing.T) {
	if *returnSize == 0 {
		t.Skip("it measures time: make failover")
	}
	const chunk = 1 << 20
	r := newRealmOf(t, nil, *returnSize<<20+lunSize)
	for size := int64(64); size <= *returnSize; size *= 4 {
		r.away(fmt.Sprintf("%d MiB", size), writes{count: size << 20 / chunk, size: chunk, step: chunk, mark: byte(size >> 6)})
	}
}

// TestReturnHuge is TestReturn with huge LUNs, in sparse files, and small writes all over
// the LUN.
func TestReturnHuge(t *testing.T) {
	if *returnSize == 0 {
		t.Skip("it measures time: make failover")
	}
	for _, tib := range []int64{1, 16} {
		t.Run(fmt.Sprintf("%dTiB", tib), func(t *testing.T) {
			size := tib<<40 - lunSize // ext4 has no files of 16 TiB
			r := newRealmOf(t, nil, size)
			w := writes{count: 4096, size: 4096, step: (size - lunSize) >> 24 << 12, mark: byte(tib)}
			r.away(fmt.Sprintf("%d blocks of 4096 bytes, all over %d TiB,", w.count, tib), w)
		})
	}
}

// writes are many, with step bytes from each to the next.
type writes struct {
	count, size, step int64
	mark              byte
}

func (w writes) end() int64 { return w.count * w.step }

// data is what is written at i.
func (w writes) data(i int64) []byte { return bytes.Repeat([]byte{byte(i) | 1, w.mark}, int(w.size/2)) }

// away has site b be away while something is written at site a, and logs what comes of it.
func (r *realm) away(what string, w writes) {
	r.t.Helper()
	ctx := r.t.Context()
	r.must(r.Mend(ctx))
	a, b := r.host("writer", failover.SiteA), r.host("reader", failover.SiteB)
	defer func() { r.must(errors.Join(a.Close(), b.Close())) }()
	r.must(r.Kill(failover.SiteB))
	for i := range w.count {
		r.must(a.WriteAt(ctx, w.data(i), i*w.step))
	}
	began := time.Now()
	r.must(r.Resume(failover.SiteB))
	r.must(errors.Join(w.check(ctx, b, 0), w.check(ctx, b, w.count-1), b.WriteAt(ctx, make([]byte, 4096), w.end())))
	served := time.Since(began)
	for i := int64(0); i < w.count; i += 16 {
		r.must(w.check(ctx, b, i)) // most of it is not there yet
	}
	r.must(r.Mend(ctx))
	r.t.Logf("%s written meanwhile: a host is served %v after the start of the process; all is copied after %v",
		what, served.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
}

// check reads one of the writes.
func (w writes) check(ctx context.Context, h failover.Host, i int64) error {
	got := make([]byte, w.size)
	if err := h.ReadAt(ctx, got, i*w.step); err != nil {
		return err
	}
	if !bytes.Equal(got, w.data(i)) {
		return fmt.Errorf("what was written at %d while the site was away is not what it returns", i*w.step)
	}
	return nil
}
