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
	r := newRealmOf(t, nil, *returnSize<<20+lunSize)
	for size := int64(64); size <= *returnSize; size *= 4 {
		r.must(r.Mend(t.Context()))
		up, all, err := r.away(t.Context(), size<<20)
		if err != nil {
			t.Errorf("%d MiB: %v", size, err)
			continue
		}
		t.Logf("%5d MiB written meanwhile: a host is served %v after the start of the process; all is copied after %v", size, up.Round(time.Millisecond), all.Round(time.Millisecond))
	}
}

// chunk is what is written at once, in bytes.
const chunk = 1 << 20

// away has site b be away while so many bytes are written at site a.
func (r *realm) away(ctx context.Context, size int64) (served, copied time.Duration, err error) {
	a, b := r.host("writer", failover.SiteA), r.host("reader", failover.SiteB)
	defer func() { err = errors.Join(err, a.Close(), b.Close()) }()
	if err := r.Kill(failover.SiteB); err != nil {
		return 0, 0, err
	}
	fill := func(off int64) []byte { return bytes.Repeat([]byte{byte(off/chunk) | 1, byte(size >> 20)}, chunk/2) }
	for off := int64(0); off < size; off += chunk {
		if err := a.WriteAt(ctx, fill(off), off); err != nil {
			return 0, 0, err
		}
	}
	began := time.Now()
	if err := r.Resume(failover.SiteB); err != nil {
		return 0, 0, err
	}
	check := func(off int64) error {
		got := make([]byte, chunk)
		if err := b.ReadAt(ctx, got, off); err != nil {
			return err
		}
		if !bytes.Equal(got, fill(off)) {
			return fmt.Errorf("what was written at %d while the site was away is not what it returns", off)
		}
		return nil
	}
	err = errors.Join(check(0), check(size-chunk), b.WriteAt(ctx, make([]byte, 4096), size))
	served = time.Since(began)
	for off := int64(0); off < size && err == nil; off += 16 * chunk {
		err = check(off) // most of it is not there yet
	}
	if err == nil {
		err = r.Mend(ctx)
	}
	return served, time.Since(began), err
}
