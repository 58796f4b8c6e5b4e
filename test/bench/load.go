package main

import (
	"context"
	"crypto/rand"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinlun/twinlun/dirtymap"
)

const (
	blockSize  = dirtymap.BlockSize
	extentSize = dirtymap.DefaultExtentSize
	queueDepth = 32
)

// disk is what load runs on: an initiator.Session.
type disk interface {
	ReadAt(ctx context.Context, p []byte, off int64) error
	WriteAt(ctx context.Context, p []byte, off int64) error
}

// load is commands of one block, queueDepth of them at a time.
type load struct {
	disk  disk
	write bool
	where where
}

// where says to a worker where its next command goes, and whether there is one.
type where func(r *mathrand.Rand) (off int64, more bool)

// run returns how many commands there were each second, and how many in all.
func (l load) run(ctx context.Context, seed uint64) (rate float64, n int64, err error) {
	var (
		workers sync.WaitGroup
		count   atomic.Int64
		failure atomic.Pointer[error]
	)
	began := time.Now()
	for w := range queueDepth {
		workers.Go(func() {
			done, err := l.work(ctx, mathrand.New(mathrand.NewPCG(seed, uint64(w))), &failure)
			count.Add(done)
			if err != nil {
				failure.CompareAndSwap(nil, &err)
			}
		})
	}
	workers.Wait()
	if e := failure.Load(); e != nil {
		return 0, 0, *e
	}
	return float64(count.Load()) / time.Since(began).Seconds(), count.Load(), nil
}

// work is one of the workers.
func (l load) work(ctx context.Context, r *mathrand.Rand, failure *atomic.Pointer[error]) (n int64, err error) {
	p := make([]byte, blockSize)
	rand.Read(p) // never fails
	for failure.Load() == nil {
		off, more := l.where(r)
		if !more {
			break
		}
		if l.write {
			err = l.disk.WriteAt(ctx, p, off)
		} else {
			err = l.disk.ReadAt(ctx, p, off)
		}
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// randomFor is random blocks below size, for a time.
func randomFor(size int64, d time.Duration) where {
	end := time.Now().Add(d)
	return func(r *mathrand.Rand) (int64, bool) {
		return r.Int64N(size/blockSize) * blockSize, time.Now().Before(end)
	}
}

// randomTimes is n random blocks below size.
func randomTimes(size, n int64) where {
	next := sequence(n)
	return func(r *mathrand.Rand) (int64, bool) {
		_, more := next(r)
		return r.Int64N(size/blockSize) * blockSize, more
	}
}

// sequence is the first n blocks.
func sequence(n int64) where {
	var next atomic.Int64
	return func(*mathrand.Rand) (int64, bool) {
		i := next.Add(1) - 1
		return i * blockSize, i < n
	}
}
