package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/twinlun/twinlun/test/initiator"
)

const (
	loadBlock  = 4096
	loadRegion = 16 << 20 // bytes, for each client
	kills      = 8
)

// loader writes its own region at random, and knows what every block must hold.
type loader struct {
	client   *initiator.Resilient
	at       int64 // where its region begins, in bytes
	rand     *rand.Rand
	versions [loadRegion / loadBlock]uint64 // of the last write of each block; 0: none
	ops      int
	slowest  time.Duration // operation
}

// TestKillUnderLoad: either daemon is killed again and again while both sites are
// written and verified; nothing that was acknowledged is lost, and in the end the
// two replicas are the same.
func TestKillUnderLoad(t *testing.T) {
	t.Parallel()
	r := start(t, "--size", "256MiB")
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	var loaders []*loader
	var working sync.WaitGroup
	stop := make(chan struct{})
	for i := range 4 {
		l := &loader{client: r.resilient(i%2, fmt.Sprintf("loader%d", i)), at: int64(i) * loadRegion, rand: rand.New(rand.NewPCG(uint64(i), rand.Uint64()))}
		loaders = append(loaders, l)
		working.Go(func() {
			if err := l.work(ctx, stop); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	for n := range kills {
		before := joins(r)
		r.kill(n % 2)
		r.eventually("the pair serves again", func() error {
			if now := joins(r); now == before || now == [2]join{} {
				return fmt.Errorf("joins %v", now)
			}
			return nil
		})
		pause(ctx, time.Second) // of load on the pair as it is now
	}
	close(stop)
	working.Wait()
	for i, l := range loaders {
		other := r.resilient(1-i%2, fmt.Sprintf("reader%d", i))
		if err := l.verify(ctx, other, 0, len(l.versions)); err != nil {
			t.Errorf("client %d, at the other site: %v", i, err)
		}
		t.Logf("client %d: %d operations, the slowest took %v, %d logins", i, l.ops, l.slowest.Round(time.Millisecond), l.client.Logins())
		if l.client.Logins() < 2 {
			t.Errorf("client %d has not felt any of %d kills", i, kills)
		}
	}
	r.waitClean()
	sameBytes(t, r)
}

// join tells one join from another: a daemon's process and its number there.
type join struct {
	pid int
	n   uint64
}

// joins are the joins in effect; zero: a site does not serve.
func joins(r *running) (j [2]join) {
	for site := range 2 {
		s, err := r.status(site)
		if err != nil || !s.LUNs[0].Serving {
			return [2]join{}
		}
		j[site] = join{s.PID, s.LUNs[0].Joins}
	}
	return j
}

// work writes and verifies until stop.
func (l *loader) work(ctx context.Context, stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return l.verify(ctx, l.client, 0, len(l.versions))
		default:
		}
		first := l.rand.IntN(len(l.versions))
		n := min(1+l.rand.IntN(16), len(l.versions)-first)
		l.ops++
		began := time.Now()
		var err error
		if l.rand.IntN(3) == 0 {
			err = l.verify(ctx, l.client, first, n)
		} else {
			err = l.write(ctx, first, n)
		}
		if err != nil {
			return err
		}
		l.slowest = max(l.slowest, time.Since(began))
	}
}

func (l *loader) write(ctx context.Context, first, n int) error {
	p := make([]byte, n*loadBlock)
	for i := range n {
		l.versions[first+i]++
		l.fill(p[i*loadBlock:(i+1)*loadBlock], first+i)
	}
	return l.client.WriteAt(ctx, p, l.at+int64(first)*loadBlock)
}

// fill makes a block's present content: zeros if it was never written.
func (l *loader) fill(p []byte, block int) {
	clear(p)
	if v := l.versions[block]; v > 0 {
		for i := 0; i < len(p); i += 16 {
			binary.LittleEndian.PutUint64(p[i:], uint64(l.at)+uint64(block))
			binary.LittleEndian.PutUint64(p[i+8:], v)
		}
	}
}

// verify reads blocks, a megabyte at a time, and compares.
func (l *loader) verify(ctx context.Context, c *initiator.Resilient, first, n int) error {
	const most = 256
	got, want := make([]byte, most*loadBlock), make([]byte, loadBlock)
	for ; n > 0; first, n = first+most, n-most {
		p := got[:min(n, most)*loadBlock]
		if err := c.ReadAt(ctx, p, l.at+int64(first)*loadBlock); err != nil {
			return err
		}
		for i := 0; i < len(p)/loadBlock; i++ {
			l.fill(want, first+i)
			if have := p[i*loadBlock : (i+1)*loadBlock]; !bytes.Equal(have, want) {
				return fmt.Errorf("block %d, version %d, is not what was written: begins with %x, want %x", first+i, l.versions[first+i], have[:16], want[:16])
			}
		}
	}
	return nil
}
