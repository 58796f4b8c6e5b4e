package replication

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/dirtymap/mapfile"
	"github.com/twinlun/twinlun/replication/coherence"
	"github.com/twinlun/twinlun/target/backing"
	"github.com/twinlun/twinlun/target/backing/journal"
	"github.com/twinlun/twinlun/task"
)

// errNoJournal is an atomic write of a Replica that was opened without a journal.
var errNoJournal = errors.New("the replica has no journal of atomic writes")

// WriteAtomic writes the replica, all of p or nothing, and durably; so it is after a
// crash too. Its extents are entered for writing. After an error the bytes are what they
// were, or else the replica is out of service, until it is opened again and finds the
// write in its journal. At most journal.MaxBytes.
func (r *Replica) WriteAtomic(p []byte, off int64) error {
	if r.atomic.journal == nil {
		return errNoJournal
	}
	n := int64(len(p))
	r.locks.lock(off, n, true)
	defer r.locks.unlock(off, n, true)
	return r.atomic.write(p, off)
}

// atomicWriter does atomic writes: into the journal, to their place, out of the journal.
// Those that come meanwhile are done together next. Nobody else writes their blocks
// before the journal has forgotten them, for each is under its block locks until then;
// so no two of them have a block in common.
type atomicWriter struct {
	r       *Replica
	journal *journal.Journal // nil: there is none
	crew    crew
	wake    task.Signal

	// The task's own.
	broken  error // no more: what the journal has now is for the next start
	writes  []journal.Write
	old     []byte // what is where a write goes, and
	present []byte // what is there when it has failed

	mu      sync.Mutex
	waiting []*atomicWrite
	closing bool
}

// atomicWrite is one that waits.
type atomicWrite struct {
	journal.Write
	done task.Signal
	err  error
}

func (w *atomicWriter) start(r *Replica, j *journal.Journal) {
	w.r, w.journal, w.wake = r, j, r.run.NewSignal()
	w.crew.start(r.run)
	if j != nil {
		w.crew.run("atomic writer", w.work)
	}
}

// write waits until it is done.
func (w *atomicWriter) write(p []byte, off int64) error {
	a := &atomicWrite{Write: journal.Write{Off: off, Data: p}, done: w.r.run.NewSignal()}
	w.mu.Lock()
	w.waiting = append(w.waiting, a)
	w.mu.Unlock()
	w.wake.Set()
	a.done.Wait(context.Background())
	return a.err
}

// work is the writer's task. It ends when the writer is closed and nobody waits.
func (w *atomicWriter) work() {
	for {
		batch, closing := w.take()
		switch {
		case len(batch) > 0:
			w.perform(batch)
		case closing:
			return
		default:
			w.wake.Wait(context.Background())
		}
	}
}

// take is as many of those that wait as fit into the journal.
func (w *atomicWriter) take() (batch []*atomicWrite, closing bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, bytes := 0, 0
	for n < len(w.waiting) && journal.Fits(n+1, bytes+len(w.waiting[n].Data)) {
		bytes += len(w.waiting[n].Data)
		n++
	}
	batch, w.waiting = w.waiting[:n:n], w.waiting[n:]
	return batch, w.closing
}

// perform does writes, and tells those that wait for them. What fails the journal, or a
// sync, fails the replica: then nobody knows what the next start will find, and it has
// to be as if the operating system had gone down here.
func (w *atomicWriter) perform(batch []*atomicWrite) {
	if w.broken == nil {
		if err := w.tryPerform(batch); err != nil {
			w.broken = fmt.Errorf("write atomically: %w", err)
			w.r.step(coherence.Broken{Err: w.broken})
		}
	}
	for _, a := range batch {
		if w.broken != nil {
			a.err = w.broken
		}
		a.done.Set()
	}
}

func (w *atomicWriter) tryPerform(batch []*atomicWrite) error {
	w.writes = w.writes[:0]
	for _, a := range batch {
		w.writes = append(w.writes, a.Write)
	}
	defer clear(w.writes)
	if err := w.journal.Put(w.writes); err != nil {
		return err
	}
	for _, a := range batch {
		var broken error
		if a.err, broken = w.place(a.Write); broken != nil {
			return broken
		}
	}
	if err := w.r.cfg.Store.Sync(); err != nil {
		return err
	}
	return w.journal.Clear()
}

// place puts a write in its place. If that fails, what was there before is put back;
// only if that fails too, nothing can go on.
func (w *atomicWriter) place(a journal.Write) (failed, broken error) {
	s := w.r.cfg.Store
	w.old = append(w.old[:0], a.Data...)
	if err := s.ReadAt(w.old, a.Off); err != nil {
		return err, nil
	}
	if a.Off/dirtymap.BlockSize != (a.Off+int64(len(a.Data))-1)/dirtymap.BlockSize {
		w.r.m.BeginAtomic()
	}
	err := s.WriteAt(a.Data, a.Off)
	if err == nil {
		return nil, nil
	}
	if undo := w.putBack(a.Off); undo != nil {
		broken = fmt.Errorf("%w; and what was there before cannot be put back: %w", err, undo)
		w.r.torn.Store(&broken) // before anybody gets the block locks
	}
	return err, broken
}

// putBack writes w.old, but only those blocks that are something else now, and a hole
// where there were zeros: a medium that is full takes both.
func (w *atomicWriter) putBack(off int64) error {
	s := w.r.cfg.Store
	w.present = append(w.present[:0], w.old...)
	if err := s.ReadAt(w.present, off); err != nil {
		return err
	}
	for at := int64(0); at < int64(len(w.old)); {
		n := min(dirtymap.BlockSize-(off+at)%dirtymap.BlockSize, int64(len(w.old))-at)
		was, is := w.old[at:at+n], w.present[at:at+n]
		var err error
		switch {
		case bytes.Equal(was, is):
		case backing.Zeroes(was):
			err = s.Zero(off+at, n)
		default:
			err = s.WriteAt(was, off+at)
		}
		if err != nil {
			return err
		}
		at += n
	}
	return nil
}

// close returns when nobody waits any more.
func (w *atomicWriter) close() {
	w.mu.Lock()
	w.closing = true
	w.mu.Unlock()
	w.wake.Set()
	w.crew.wait()
}

// openJournal opens the journal of atomic writes, if there is one, and finishes those
// that were interrupted, before anybody reads the replica.
func (c *ReplicaConfig) openJournal(file *mapfile.Log, m *dirtymap.Map) (*journal.Journal, error) {
	if c.Journal == nil {
		return nil, nil
	}
	j, writes, err := journal.Open(c.Journal, c.UUID)
	if err != nil || len(writes) == 0 {
		return j, err
	}
	for _, w := range writes {
		switch {
		case !belongs(w, file, m):
			c.Log.Warn("an atomic write in the journal is not of this replica, and is forgotten", "lun", c.Number, "offset", w.Off, "bytes", len(w.Data))
		default:
			c.Log.Info("an atomic write was interrupted, and is finished", "lun", c.Number, "offset", w.Off, "bytes", len(w.Data))
			err = c.Store.WriteAt(w.Data, w.Off)
		}
		if err != nil {
			return nil, fmt.Errorf("finish an atomic write that was interrupted, %d bytes at offset %d: %w", len(w.Data), w.Off, err)
		}
	}
	if err := c.Store.Sync(); err != nil {
		return nil, fmt.Errorf("finish atomic writes that were interrupted: %w", err)
	}
	return j, j.Clear()
}

// belongs tells whether a write that was interrupted is one of this replica: the map is
// no new one, and owns what it went to. Another replica, which had been in this one's
// place, may have left its journal; what is not owned here the peer has.
func belongs(w journal.Write, file *mapfile.Log, m *dirtymap.Map) bool {
	n := int64(len(w.Data))
	if file.Meta().History == [16]byte{} || w.Off > m.Geometry().Size-n {
		return false
	}
	run := m.Geometry().Covering(w.Off, n)
	for ext := run.First; ext < run.End(); ext++ {
		if m.State(ext)&dirtymap.Held == 0 {
			return false
		}
	}
	return true
}
