package replication

import (
	"errors"
	"fmt"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/coherence"
	"github.com/twinlun/twinlun/replication/wire"
	"github.com/twinlun/twinlun/target/backing"
)

// Workers of a replica. Eight keep an NVMe device or a RAID busy with fetches
// that somebody waits for; copies have their own, so that they never stand in
// front of a fetch, and fewer, since their pieces are larger and the page cache
// takes them.
const (
	ioWorkers   = 8
	bulkWorkers = 4
)

// collect reads blocks for a FETCH of the peer's.
func (r *Replica) collect(a coherence.Collect) {
	b := wire.Blocks{Extent: a.Extent, Present: a.Blocks}
	err := r.readBlocks(&b, r.Read)
	r.step(coherence.Collected{Token: a.Token, Blocks: b, Err: err})
}

// errNotNow is a read that would have to wait.
var errNotNow = errors.New("the blocks are not at hand")

// collectNow is collect for a goroutine that must not wait: what is not at hand it
// leaves to the pool.
func (r *Replica) collectNow(a coherence.Collect) {
	b := wire.Blocks{Extent: a.Extent, Present: a.Blocks}
	err := r.readBlocks(&b, func(p []byte, off int64) error {
		done, err := r.ReadNow(p, off)
		if err == nil && !done {
			err = errNotNow
		}
		return err
	})
	if errors.Is(err, errNotNow) {
		r.io.put(func() { r.collect(a) })
		return
	}
	r.step(coherence.Collected{Token: a.Token, Blocks: b, Err: err})
}

// readCopy reads blocks for a COPY.
func (r *Replica) readCopy(a coherence.ReadCopy) {
	var err error
	for i := range a.Items {
		if err = r.readBlocks(&a.Items[i], r.Read); err != nil {
			break
		}
	}
	r.step(coherence.CopyRead{Token: a.Token, Items: a.Items, Err: err})
}

// store writes blocks that were fetched.
func (r *Replica) store(a coherence.Store) {
	r.step(coherence.Done{Token: a.Token, Err: r.writeBlocks(a.Items)})
}

// storeCopy writes blocks that the peer copied; the flusher does the rest. bytes is
// what storing began with.
func (r *Replica) storeCopy(a coherence.StoreCopy, bytes int64) {
	err := r.writeBlocks(a.Items)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.storing.ended(bytes)
	r.stepLocked(coherence.CopyStored{Token: a.Token, Err: err})
	if err == nil {
		r.flush.put(flushWait{token: a.Token, copied: true})
	}
}

// readBlocks reads the blocks of b.Present into b.Data, and leaves out, as b.Zero,
// those that are zeros.
func (r *Replica) readBlocks(b *wire.Blocks, read func(p []byte, off int64) error) error {
	const size = dirtymap.BlockSize
	b.Data = make([]byte, b.Present.Count()*size)
	base := r.cfg.Geometry.Offset(b.Extent)
	at, kept := 0, 0
	for first, n := range b.Present.Runs {
		run := b.Data[at : at+n*size]
		if err := read(run, base+int64(first)*size); err != nil {
			return fmt.Errorf("read blocks %d+%d of extent %d: %w", first, n, b.Extent, err)
		}
		at += n * size
		for i := range n {
			block := run[i*size : (i+1)*size]
			if backing.Zeroes(block) {
				b.Zero[(first+i)/64] |= 1 << ((first + i) % 64)
				continue
			}
			copy(b.Data[kept:], block)
			kept += size
		}
	}
	b.Data = b.Data[:kept]
	return nil
}

// writeBlocks writes blocks to the replica.
func (r *Replica) writeBlocks(items []wire.Blocks) error {
	for i := range items {
		if err := r.writeExtent(&items[i]); err != nil {
			return err
		}
	}
	return nil
}

// Solid says whether blocks of zeros that come from the peer are written, until it says
// otherwise, rather than made holes: where what was there before is to be overwritten,
// a hole leaves it on the medium.
func (r *Replica) Solid(yes bool) { r.solid.Store(yes) }

// zeroed is what a Solid replica writes at a time; never changed.
var zeroed [64 << 10]byte

// zeroBlocks stores blocks of zeros that came from the peer.
func (r *Replica) zeroBlocks(off, n int64) error {
	if !r.solid.Load() {
		return r.Zero(off, n)
	}
	for end := off + n; off < end; {
		p := zeroed[:min(end-off, int64(len(zeroed)))]
		if err := r.Write(p, off); err != nil {
			return err
		}
		off += int64(len(p))
	}
	return nil
}

func (r *Replica) writeExtent(b *wire.Blocks) error {
	const size = dirtymap.BlockSize
	base := r.cfg.Geometry.Offset(b.Extent)
	for first, n := range b.Zero.Runs {
		if err := r.zeroBlocks(base+int64(first)*size, int64(n)*size); err != nil {
			return fmt.Errorf("zero blocks %d+%d of extent %d: %w", first, n, b.Extent, err)
		}
	}
	data := b.Data
	for first, n := range b.Present.Minus(b.Zero).Runs {
		if err := r.Write(data[:n*size], base+int64(first)*size); err != nil {
			return fmt.Errorf("write blocks %d+%d of extent %d: %w", first, n, b.Extent, err)
		}
		data = data[n*size:]
	}
	return nil
}
