package replication

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/coherence"
	"github.com/twinlun/twinlun/replication/wire"
	"github.com/twinlun/twinlun/target/backing"
	"github.com/twinlun/twinlun/task"
)

// Errors of StartVerify.
var (
	ErrVerifying   = errors.New("the replicas of this LUN are being compared already; stop that first")
	ErrNotVerified = errors.New("the replicas cannot be compared now")
)

const (
	// verifyWindow is how many bytes are being compared at a time: at a rate of 100 MB/s
	// they fill a line whose round trip is 80 ms.
	verifyWindow = 8 << 20
	// verifyOpen bounds their number, for small extents; below what the peer's engine
	// takes.
	verifyOpen = 1024
	// verifyLater is how many extents may wait for another try, before no new ones are
	// looked at.
	verifyLater = 4096
	// verifyAgain is the pause before another try, and verifyTries how many there are: an
	// extent that both sites write at all times changes hands a few times a second.
	verifyAgain = 500 * time.Millisecond
	verifyTries = 20
	// verifyLook is how often a comparison that has nothing to do looks again.
	verifyLook = 100 * time.Millisecond
	// VerifyDifferences is how many differences a status lists: more than anybody reads.
	VerifyDifferences = 1000
)

// VerifyOptions say how two replicas are compared.
type VerifyOptions struct {
	Repair bool  // make them the same where they differ
	Keep   Keep  // what counts where they differ
	Rate   int64 // limit, bytes per second of each replica; 0: none
}

// Keep says whose bytes count where two replicas differ.
type Keep uint8

// What is kept.
const (
	KeepOwners Keep = iota // the owner's; where nobody owns the extent, the preferred node's
	KeepHere
	KeepThere
)

// here tells whether this node's bytes count; owners is what KeepOwners would say.
func (k Keep) here(owners bool) bool { return k == KeepHere || k == KeepOwners && owners }

// VerifyStatus is how far a comparison has come. Sizes are in bytes.
type VerifyStatus struct {
	VerifyOptions
	Started, Ended time.Time // zero: it has not
	Waiting        string    // why it makes no progress now
	Err            string    // why it ended before it was through; empty: it is through
	Size, Done     int64     // of the LUN
	Compared       int64
	Copying        int64 // about to be copied then, so there was nothing to compare
	Busy           int64 // could not be compared, as it was always changing hands
	Unread         int64 // cannot be read, here or there
	Differing      int64 // of Compared: not the same at both
	Repaired       int64 // of that: it is now
	Differences    []VerifyDifference
}

// Running tells whether the comparison is under way.
func (s *VerifyStatus) Running() bool { return !s.Started.IsZero() && s.Ended.IsZero() }

// VerifyDifference is a piece of a LUN that is not the same at both sites.
type VerifyDifference struct {
	Off, Length int64 // bytes
	Here        bool  // what this node has is to stay, or was made to; else what the peer has
}

// verifying is a replica's part in comparing. The replica's lock guards it.
type verifying struct {
	wake task.Signal // of the verifier
	last *verifyRun  // nil: there was none
	ops  uint64

	resendID uint64       // of the Resend that was sent last
	resent   *wire.Resent // its answer; nil: none yet
	heard    int          // Resends of the peer's under way
}

// verifyRun is one comparison of the whole LUN.
type verifyRun struct {
	status VerifyStatus
	stop   bool
	alarm  bool   // a difference was found that was not told yet
	next   uint64 // the first extent that was not looked at
	open   map[uint64]verifyItem
	later  []verifyItem // in the order in which they are due
	mends  []verifyItem // to be repaired
}

// verifyItem is an extent that is compared.
type verifyItem struct {
	ext   uint64
	tries int
	due   time.Time
	known dirtymap.Mask // blocks that differed when it was compared before
	mend  dirtymap.Mask // of these, to be seen the same
	here  bool          // and what is here is to stay
}

// StartVerify begins to compare both replicas, while both are used. It goes on through
// parted links. The result is in VerifyStatus, and ReplicaConfig.Verified is told.
func (r *Replica) StartVerify(o VerifyOptions) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch v := &r.verify; {
	case r.closing:
		return ErrReplicaClosed
	case v.last != nil && v.last.status.Running():
		return ErrVerifying
	case r.conn == nil || !r.engine.Joined():
		return fmt.Errorf("%w: they are not joined; try again when both nodes serve", ErrNotVerified)
	case r.conn.Features()&wire.FeatureVerify == 0:
		return fmt.Errorf("%w: %s has an older version that does not know how; upgrade it", ErrNotVerified, r.conn.Peer())
	}
	run := &verifyRun{open: map[uint64]verifyItem{}, status: VerifyStatus{VerifyOptions: o, Started: r.run.Now(), Size: r.cfg.Geometry.Size}}
	r.verify.last = run
	r.pacing.run("verifier", func() { r.verifier(run) })
	return nil
}

// StopVerify ends a comparison that is under way.
func (r *Replica) StopVerify() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if run := r.verify.last; run != nil {
		run.stop = true
		r.verify.wake.Set()
	}
}

// VerifyStatus is how far the last comparison has come. False: there was none.
func (r *Replica) VerifyStatus() (VerifyStatus, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.verify.last == nil {
		return VerifyStatus{}, false
	}
	return r.verify.last.copyStatus(), true
}

func (v *verifyRun) copyStatus() VerifyStatus {
	s := v.status
	s.Differences = append([]VerifyDifference(nil), s.Differences...)
	return s
}

// lastVerify is the comparison of the replica that was open before this one.
func (r *Replica) lastVerify() *verifyRun {
	if r == nil {
		return nil
	}
	return r.verify.last
}

// verifier is the task of one comparison. It ends with that, or with r.ctx.
func (r *Replica) verifier(run *verifyRun) {
	bucket := newBucket(run.status.Rate, r.run.Now())
	for {
		bytes, tell := r.verifyStep(run)
		if tell != nil && r.cfg.Verified != nil {
			r.cfg.Verified(*tell)
		}
		r.mendNext(run)
		var err error
		switch wait := bucket.take(bytes, r.run.Now()); {
		case tell != nil && !tell.Running():
			return
		case wait > 0:
			err = r.run.Sleep(r.ctx, wait)
		case bytes == 0:
			_, err = r.verify.wake.WaitFor(r.ctx, verifyLook)
		}
		if err != nil {
			r.StopVerify() // the next step ends it
		}
	}
}

// verifyStep begins to compare an extent, if there is one and room for it, and returns its
// size. tell is what people are to be told, if anything.
func (r *Replica) verifyStep(run *verifyRun) (bytes int64, tell *VerifyStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	item, ok := r.verifyPickLocked(run)
	if ok {
		r.verify.ops++
		run.open[r.verify.ops] = item
		r.stepLocked(coherence.Verify{Op: r.verify.ops, Extent: item.ext})
		bytes = r.cfg.Geometry.ExtentSize
	}
	if run.alarm || !run.status.Running() {
		run.alarm = false
		s := run.copyStatus()
		tell = &s
	}
	return bytes, tell
}

// verifyPickLocked is the extent to be compared next; it notices the end.
func (r *Replica) verifyPickLocked(run *verifyRun) (item verifyItem, ok bool) {
	extents := r.cfg.Geometry.Extents()
	run.status.Waiting = ""
	switch {
	case r.closing:
		r.verifyEndLocked(run, "the LUN was closed on this node, or has grown; start anew")
	case run.stop:
		r.verifyEndLocked(run, "it was stopped")
	case r.conn == nil || !r.engine.Joined():
		run.status.Waiting = r.whyLocked()
	case r.conn.Features()&wire.FeatureVerify == 0:
		r.verifyEndLocked(run, "the peer has an older version now that does not know how")
	case len(run.open) >= verifyOpen || int64(len(run.open))*r.cfg.Geometry.ExtentSize >= verifyWindow:
	case len(run.later) > 0 && !r.run.Now().Before(run.later[0].due):
		item, run.later = run.later[0], run.later[1:]
		return item, true
	case run.next < extents && len(run.later) < verifyLater:
		run.next++
		return verifyItem{ext: run.next - 1}, true
	case run.next == extents && len(run.open)+len(run.later)+len(run.mends) == 0:
		r.verifyEndLocked(run, "")
	}
	return item, false
}

func (r *Replica) verifyEndLocked(run *verifyRun, why string) {
	run.status.Ended, run.status.Err = r.run.Now(), why
	clear(run.open)
	run.later, run.mends = nil, nil
}

// verifiedLocked takes what became of an extent.
func (r *Replica) verifiedLocked(a coherence.Verified) {
	run := r.verify.last
	if run == nil {
		return
	}
	item, ok := run.open[a.Op]
	if !ok {
		return // of one that was stopped
	}
	delete(run.open, a.Op)
	r.verify.wake.Set()
	switch a.Outcome {
	case wire.VerifyCompared:
		r.comparedLocked(run, item, a)
	case wire.VerifyFailed:
		if item.known.Empty() {
			run.status.Unread += r.blocksIn(item.ext)
			run.status.Done += r.blocksIn(item.ext)
		}
	default:
		r.verifyLaterLocked(run, item)
	}
}

// blocksIn is the length of an extent in bytes; the last one may be short.
func (r *Replica) blocksIn(ext uint64) int64 {
	return int64(r.cfg.Geometry.Blocks(ext)) * dirtymap.BlockSize
}

// verifyLaterLocked has an extent tried again. That the link has parted counts for nothing.
func (r *Replica) verifyLaterLocked(run *verifyRun, item verifyItem) {
	if r.conn != nil && r.engine.Joined() {
		item.tries++
	}
	switch {
	case item.tries < verifyTries:
		item.due = r.run.Now().Add(verifyAgain)
		run.later = append(run.later, item)
	case item.known.Empty():
		run.status.Busy += r.blocksIn(item.ext)
		run.status.Done += r.blocksIn(item.ext)
	default: // what was to be mended is not seen mended: it is counted as differing
		r.log.Error("blocks that differ could not be made the same at both sites", "extent", item.ext, "blocks", fmt.Sprintf("%x", item.mend))
	}
}

// comparedLocked takes a verdict.
func (r *Replica) comparedLocked(run *verifyRun, item verifyItem, a coherence.Verified) {
	s := &run.status
	a.Here = s.Keep.here(a.Here)
	const size = dirtymap.BlockSize
	if item.known.Empty() {
		skipped := int64(a.Skipped.And(r.cfg.Geometry.Full(item.ext)).Count()) * size
		s.Copying += skipped
		s.Compared += r.blocksIn(item.ext) - skipped
		s.Done += r.blocksIn(item.ext)
	}
	if s.Differing += int64(a.Differ.Minus(item.known).Count()) * size; !a.Differ.Minus(item.known).Empty() {
		r.differLocked(run, item, a)
	}
	mended := item.mend.Minus(a.Skipped).Minus(a.Differ)
	again := a.Differ.And(item.known).Minus(item.mend) // was repaired, and differs once more
	s.Repaired += int64(mended.Count()-again.Count()) * size
	item.mend = item.mend.Minus(mended)
	switch {
	case s.Repair && !a.Differ.Empty():
		item.known, item.mend, item.here = item.known.Or(a.Differ), item.mend.Or(a.Differ), a.Here
		run.mends = append(run.mends, item)
	case !item.mend.Empty():
		r.verifyLaterLocked(run, item)
	}
}

// differLocked notes blocks that differ: something that must not be.
func (r *Replica) differLocked(run *verifyRun, item verifyItem, a coherence.Verified) {
	s := &run.status
	if len(s.Differences) == 0 {
		run.alarm = true
		r.health.alarms++
		r.health.alarm = "the two replicas differ: twinlun lun verify --status tells where"
	}
	base := r.cfg.Geometry.Offset(item.ext)
	for first, n := range a.Differ.Minus(item.known).Runs {
		d := VerifyDifference{Off: base + int64(first)*dirtymap.BlockSize, Length: int64(n) * dirtymap.BlockSize, Here: a.Here}
		if len(s.Differences) < VerifyDifferences {
			r.log.Error("the two replicas differ", "offset", d.Off, "length", d.Length)
			s.Differences = append(s.Differences, d)
		}
	}
}

// zeroDigest is the digest of a block of zeros; never changed.
var zeroDigest = digestOf(make([]byte, dirtymap.BlockSize))

func digestOf(block []byte) wire.Digest {
	sum := sha256.Sum256(block)
	return wire.Digest(sum[:len(wire.Digest{})])
}

// digest reads an extent for a comparison.
func (r *Replica) digest(a coherence.Digest) {
	const size = dirtymap.BlockSize
	geo := r.cfg.Geometry
	p := make([]byte, r.blocksIn(a.Extent))
	err := r.Read(p, geo.Offset(a.Extent))
	if err != nil {
		r.log.Error("cannot read the replica to compare it", "extent", a.Extent, "err", err)
	}
	digests := make([]wire.Digest, geo.Blocks(a.Extent))
	for i := range digests {
		if block := p[i*size : (i+1)*size]; backing.Zeroes(block) {
			digests[i] = zeroDigest
		} else {
			digests[i] = digestOf(block)
		}
	}
	r.step(coherence.Digested{Token: a.Token, Digests: digests, Err: err})
}
