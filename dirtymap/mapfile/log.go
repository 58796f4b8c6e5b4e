package mapfile

import (
	"fmt"

	"github.com/twinlun/twinlun/dirtymap"
)

// limits are those of a Log; only tests have others than usual.
type limits struct {
	payloadLimit int   // bytes of records in a block, more than maxRecord
	logLimit     int64 // makes Sync checkpoint: bounds what Open has to replay
	overlayLimit int   // makes Sync checkpoint: bounds the memory of a Log
}

func usual() limits {
	return limits{payloadLimit: maxPayload, logLimit: 16 << 20, overlayLimit: 8 << 20}
}

// full tells whether a checkpoint is due. The overlay may have one patch for every page
// beside its limit: a join that gives the whole LUN one state must not have hosts wait
// until all pages are written.
func (l *Log) full() bool {
	patches := int(l.id.pages()) * (overlaidMemory + patchMemory)
	return l.end-l.carried > l.logLimit || l.overlay.memory > l.overlayLimit+patches
}

// Log is an open map file. It has one owner.
type Log struct {
	state
	version    uint32 // of the header slots
	number     uint64 // of the header slot written last
	generation uint64
	start      int64  // of the log
	carried    int64  // where the records end with which the log began
	end        int64  // of the log
	sequence   uint64 // of the last block
	durable    uint64 // last block known to be durable
	failed     error

	payload []byte // of the block being put together
	block   []byte // the same, encoded

	limits
}

// Meta is its current value.
func (l *Log) Meta() Meta { return l.meta }

// Prepared is the join that waits for its Commit, or nil. It must not be changed.
func (l *Log) Prepared() *Prepare { return l.prepared }

// Identity is what the file is about.
func (l *Log) Identity() Identity { return l.id }

// Append writes records in order, and lets them take effect in this Log; they
// are durable after Sync. Records of one Append that take less than 1 MiB
// together become durable together. A Commit without its Prepare is refused
// before anything is written; every other error is final.
func (l *Log) Append(recs ...Record) error {
	if l.failed != nil {
		return l.failed
	}
	if err := l.check(recs); err != nil {
		return err
	}
	for _, r := range recs {
		l.raise(r)
		encodeRecord(r, l.put)
	}
	l.flush()
	for _, r := range recs {
		if l.failed != nil {
			break
		}
		l.fail(l.apply(r))
	}
	return l.failed
}

// raise makes the file one of the version that a record needs, before the record is in
// it: a program that does not know the record says so, and does not take it for damage.
func (l *Log) raise(r Record) {
	needs := l.version
	switch r := r.(type) {
	case Meta:
		needs = r.version()
	case Prepare:
		needs = r.Meta.version()
	}
	if needs > l.version && l.failed == nil {
		l.version = needs
		l.writeSlots()
	}
}

// check looks at records before they are written.
func (l *Log) check(recs []Record) error {
	prepared := l.prepared
	for _, r := range recs {
		switch r := r.(type) {
		case Set:
			l.checkSet(r)
		case Prepare:
			for _, s := range r.Changes {
				l.checkSet(s)
			}
			prepared = &r
		case Abort:
			prepared = nil
		case Commit:
			if prepared == nil || prepared.Join != r.Join {
				return fmt.Errorf("commit join %d: %w", r.Join, ErrNoPrepare)
			}
			prepared = nil
		}
	}
	return nil
}

func (l *Log) checkSet(s Set) {
	if !inside(s.Range, l.id.Extents()) {
		panic(fmt.Sprintf("mapfile: set of extents %d+%d, the LUN has %d", s.Range.First, s.Range.Count, l.id.Extents()))
	}
	if !validState(s.State & dirtymap.Durable) {
		panic(fmt.Sprintf("mapfile: extents %d+%d both STALE and HELD", s.Range.First, s.Range.Count))
	}
}

// put adds a record to the payload, and writes it as a block when it is full.
func (l *Log) put(encode func([]byte) []byte) {
	if len(l.payload)+maxRecord > l.payloadLimit {
		l.flush()
	}
	l.payload = encode(l.payload)
}

// flush writes the payload as a block behind the log.
func (l *Log) flush() {
	if len(l.payload) == 0 || l.failed != nil {
		l.payload = l.payload[:0]
		return
	}
	h := blockHead{generation: l.generation, sequence: l.sequence + 1, durable: l.durable}
	l.block = l.id.appendBlock(l.block[:0], h, l.payload)
	l.payload = l.payload[:0]
	if l.write(l.block, l.end) {
		l.sequence++
		l.end += int64(len(l.block))
	}
}

// write writes; false: failed, for good.
func (l *Log) write(p []byte, off int64) bool {
	if l.failed == nil {
		if n, err := l.f.WriteAt(p, off); err != nil || n != len(p) {
			l.fail(fmt.Errorf("write %d of %d bytes at offset %d: %w", n, len(p), off, err))
		}
	}
	return l.failed == nil
}

// sync makes everything written durable; false: failed, for good. A failed sync
// may have thrown the writes away, so that a second try would prove nothing.
func (l *Log) sync() bool {
	if l.failed == nil {
		if err := l.f.Sync(); err != nil {
			l.fail(fmt.Errorf("sync: %w", err))
		}
	}
	return l.failed == nil
}

func (l *Log) fail(err error) {
	if err != nil && l.failed == nil {
		l.failed = fmt.Errorf("%w: %w (is the disk full or faulty? put that right and start twinlund again)", ErrFailed, err)
	}
}

// Sync makes every record appended so far durable: one call serves all that
// wait. Now and then it makes a checkpoint.
func (l *Log) Sync() error {
	if l.failed == nil && l.durable < l.sequence && l.sync() {
		l.durable = l.sequence
	}
	if l.failed == nil && l.full() {
		return l.Checkpoint()
	}
	return l.failed
}

// State is an extent's durable state.
func (l *Log) State(ext uint64) (dirtymap.State, error) {
	page, off := ext/pageStates, int(ext%pageStates)
	if s, ok := l.overlay.pages[page].at(off); ok {
		return s, nil
	}
	buf := make([]byte, pageSize)
	if err := l.page(page, buf); err != nil {
		return 0, err
	}
	return dirtymap.State(buf[8+off]), nil
}

// Fill gives every extent of a map, whose geometry is the file's and that nobody uses
// yet, its durable state.
func (l *Log) Fill(m *dirtymap.Map) error {
	var run Set // that may go on in the next page
	err := l.eachPage(func(first uint64, states []byte, wrong error) error {
		if wrong != nil {
			return damaged(wrong)
		}
		for i := 0; i < len(states); {
			n := alike(states[i:])
			if s := dirtymap.State(states[i]); s != run.State {
				m.SetRange(run.Range, run.State)
				run = Set{Range: dirtymap.Range{First: first + uint64(i)}, State: s}
			}
			run.Range.Count += uint64(n)
			i += n
		}
		return nil
	})
	m.SetRange(run.Range, run.State)
	return err
}

// Close makes everything durable and closes the file.
func (l *Log) Close() error {
	if l.failed == nil {
		l.sync()
	}
	if err := l.f.Close(); err != nil {
		l.fail(fmt.Errorf("close: %w", err))
	}
	err := l.failed
	if err == nil {
		l.failed = fmt.Errorf("%w: it is closed", ErrFailed)
	}
	return err
}
