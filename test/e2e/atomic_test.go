package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/twinlun/twinlun/test/initiator"
)

// atomicSpan is where hosts write atomically: all of it, each time.
type atomicSpan struct{ off, n int64 }

// atomicSpans are in an extent, across two, and across three; they do not overlap.
var atomicSpans = []atomicSpan{{16 << 10, 16 << 10}, {128<<10 - 8192, 16 << 10}, {256<<10 - 4096, 128 << 10}}

// atomicTime is how long TestAtomic lets hosts write.
const atomicTime = 20 * time.Second

// TestAtomic: hosts at both sites write spans atomically and read them, while links are
// cut and daemons killed. Nobody ever reads a span of two writes.
func TestAtomic(t *testing.T) {
	t.Parallel()
	r := start(t, "--size", "256MiB")
	ctx, cancel := context.WithTimeout(context.Background(), atomicTime)
	defer cancel()
	f := &faults{r: r, rand: rand.New(rand.NewPCG(rand.Uint64(), 1))}
	var working sync.WaitGroup
	var writes, reads [4]int
	for i := range 4 {
		c := r.resilient(i%2, fmt.Sprintf("atomic%d", i))
		working.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				s := atomicSpans[n%len(atomicSpans)]
				if err := s.write(ctx, c, uint64(i)<<32|uint64(n+1)); err == nil {
					writes[i]++
				} else if ctx.Err() == nil {
					t.Errorf("client %d: %v", i, err)
				}
				if s.read(ctx, t, c, fmt.Sprintf("client %d", i)) {
					reads[i]++
				}
			}
		})
	}
	f.run(ctx)
	working.Wait()
	r.link(`{"cut":"none","delay":"0ms"}`)
	settle, done := context.WithTimeout(context.Background(), patience)
	defer done()
	for site := range 2 {
		last := r.resilient(site, fmt.Sprintf("last%d", site))
		for _, s := range atomicSpans {
			if !s.read(settle, t, last, "in the end") {
				t.Errorf("site %d: the span at %d cannot be read", site, s.off)
			}
		}
	}
	t.Logf("%d atomic writes and %d reads, faults %v", writes, reads, f.done)
	r.waitClean()
	sameBytes(t, r)
}

// write fills a span with a number.
func (s atomicSpan) write(ctx context.Context, c *initiator.Resilient, number uint64) error {
	p := make([]byte, s.n)
	for at := 0; at < len(p); at += 8 {
		binary.LittleEndian.PutUint64(p[at:], number)
	}
	return c.WriteAtomic(ctx, p, s.off)
}

// read reads a span, and wants it to be of one write. False: it could not be read.
func (s atomicSpan) read(ctx context.Context, t *testing.T, c *initiator.Resilient, who string) bool {
	p := make([]byte, s.n)
	if err := c.ReadAt(ctx, p, s.off); err != nil {
		return false
	}
	first := binary.LittleEndian.Uint64(p)
	for at := 8; at < len(p); at += 8 {
		if v := binary.LittleEndian.Uint64(p[at:]); v != first {
			t.Errorf("%s: a part of an atomic write: at %d %x, and from byte %d on %x", who, s.off, first, at, v)
			return true
		}
	}
	return true
}
