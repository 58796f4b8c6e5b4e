package replication

import (
	"time"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/coherence"
	"github.com/twinlun/twinlun/task"
)

const (
	// copyFrame is the largest COPY, in blocks: 256 KiB. Its fixed costs (two
	// messages, a system call or two for each, a place in a flush) are small against
	// its data, and on a line of 1 Gbit/s it holds the stream for just 2 ms.
	copyFrame = 64
	// defaultCopyWindow is how many bytes are on their way on each bulk stream,
	// from being read here to being flushed there. A line of 1 Gbit/s with a round
	// trip of 20 ms holds 2.5 MB; a flush of a slow disk behind it, 100 ms, makes
	// that 15 MB. Two streams of 16 MiB fill it twice over, and cost 32 MiB of
	// memory at each side.
	defaultCopyWindow = 16 << 20
	// copyPause is how long the copier looks away when there is nothing to copy:
	// short against what anybody calls a delay of mirroring, and 50 looks a second
	// at a counter cost nothing.
	copyPause = 20 * time.Millisecond
	// letIn is how long copying waits, after a join, for the other node to serve hosts
	// again: until then its disk has the cluster's log to write, which on one file system
	// with the replica waits for every byte that was copied before it. Longer than that
	// takes; and a node that is drained, and will not serve, gets its copy all the same.
	letIn = 5 * time.Second
)

// copying is what the copier has under way. The replica's lock guards it.
type copying struct {
	wake     task.Signal
	inFlight [maxStreams]int64
	jobs     map[uint64]copyJob
	last     int64     // bytes of the ReadCopy that came of the last CopyRoom
	join     uint64    // the last one that the copier has seen
	joined   time.Time // when
}

type copyJob struct {
	stream int
	bytes  int64
}

func (c *copying) start(rt task.Runtime) {
	c.wake = rt.NewSignal()
	c.jobs = map[uint64]copyJob{}
}

// reset forgets everything: another connection begins with empty windows.
func (c *copying) reset() {
	clear(c.jobs)
	c.inFlight = [maxStreams]int64{}
}

func (c *copying) took(a coherence.ReadCopy) {
	bytes := int64(0)
	for i := range a.Items {
		bytes += int64(a.Items[i].Present.Count()) * dirtymap.BlockSize
	}
	c.jobs[a.Token] = copyJob{stream: a.Stream, bytes: bytes}
	c.inFlight[a.Stream] += bytes
	c.last += bytes
}

func (c *copying) ended(token uint64) {
	if job, ok := c.jobs[token]; ok {
		delete(c.jobs, token)
		c.inFlight[job.stream] -= job.bytes
		c.wake.Set()
	}
}

// copier offers the engine room on the bulk streams, as long as their windows and
// the rate allow. It ends with r.ctx.
func (r *Replica) copier() {
	bucket := newBucket(r.cfg.CopyRate, r.run.Now())
	for {
		n := r.offerRoom()
		var err error
		switch wait := bucket.take(n, r.run.Now()); {
		case wait > 0:
			err = r.run.Sleep(r.ctx, wait)
		case n == 0:
			_, err = r.copying.wake.WaitFor(r.ctx, copyPause)
		default:
			err = r.ctx.Err()
		}
		if err != nil {
			return
		}
	}
}

// offerRoom offers one frame on each stream that has room, and returns how many
// bytes the engine took to be copied.
func (r *Replica) offerRoom() (bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn == nil || r.closing || r.lettingInLocked() || r.m.DirtyBlocks() == 0 {
		return 0
	}
	c := &r.copying
	c.last = 0
	for s := range r.conn.Streams() {
		if room := (r.cfg.CopyWindow - c.inFlight[s]) / dirtymap.BlockSize; room > 0 {
			r.stepLocked(coherence.CopyRoom{Stream: s, Blocks: int(min(room, copyFrame))})
		}
		if r.conn == nil {
			break
		}
	}
	return c.last
}

// lettingInLocked tells whether the other node, joined a moment ago, is still to be let
// serve hosts.
func (r *Replica) lettingInLocked() bool {
	c, now := &r.copying, r.run.Now()
	if join := r.engine.LastJoin(); join != c.join {
		c.join, c.joined = join, now
	}
	return r.engine.Role().Serve == coherence.ServeAlone && now.Sub(c.joined) < letIn
}

// bucket limits a rate: it holds credit for up to a tenth of a second, and lets
// what was already taken be paid for afterwards.
type bucket struct {
	rate   int64 // bytes per second; 0: no limit
	credit float64
	at     time.Time
}

func newBucket(rate int64, now time.Time) *bucket { return &bucket{rate: rate, at: now} }

// take pays for n bytes, and returns how long to wait before the next ones.
func (b *bucket) take(n int64, now time.Time) time.Duration {
	if b.rate <= 0 {
		return 0
	}
	rate := float64(b.rate)
	b.credit = min(b.credit+rate*now.Sub(b.at).Seconds(), rate/10) - float64(n)
	b.at = now
	if b.credit >= 0 {
		return 0
	}
	return time.Duration(-b.credit / rate * float64(time.Second))
}
