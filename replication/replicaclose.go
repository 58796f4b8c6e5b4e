package replication

import (
	"context"
	"errors"
	"fmt"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/dirtymap/mapfile"
	"github.com/twinlun/twinlun/replication/coherence"
)

// Close stops the replica in order: host commands end, everything is flushed and
// the map file says so, and Store and MapFile are closed. Its Node must have let
// go of it before (Node.Remove).
func (r *Replica) Close() error {
	if !r.beginClosing() {
		return nil
	}
	for !r.m.Quiet() {
		r.quiet.Wait(context.Background())
	}
	r.cancel(ErrReplicaClosed)
	r.pacing.wait()
	r.telling.close()
	r.atomic.close()
	// What these still say to one another goes down this list, never up.
	r.bulk.close()
	r.io.close()
	r.flush.close()
	r.file.close()
	return r.closeFiles()
}

// beginClosing lets no host command in any more. False: it was called before.
func (r *Replica) beginClosing() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		return false
	}
	r.closing = true
	r.downLocked(ErrReplicaClosed)
	r.dismissLocked(ErrReplicaClosed)
	r.stepLocked(coherence.Stop{})
	r.m.Shut()
	return true
}

func (r *Replica) closeFiles() error {
	err := r.markClean()
	if err != nil {
		err = fmt.Errorf("stop LUN %d in order: %w (it will start as after a crash)", r.cfg.Number, err)
	}
	if e := r.file.file.Close(); e != nil && err == nil {
		err = fmt.Errorf("stop LUN %d: %w", r.cfg.Number, e)
	}
	if j := r.atomic.journal; j != nil {
		if e := j.Close(); e != nil && err == nil {
			err = fmt.Errorf("stop LUN %d: %w", r.cfg.Number, e)
		}
	}
	if e := r.cfg.Store.Close(); e != nil && err == nil {
		err = fmt.Errorf("stop LUN %d: %w", r.cfg.Number, e)
	}
	return err
}

// markClean flushes the replica and says in the map file that nothing is volatile.
// What an operating system crash made doubtful stays so until the next join.
func (r *Replica) markClean() error {
	s := r.engine.Stats()
	switch {
	case r.health.fault != nil:
		return errors.New("it has failed before")
	case r.crash && s.Joins == 0:
		return nil
	}
	if err := r.cfg.Store.Sync(); err != nil {
		return fmt.Errorf("flush the replica: %w", err)
	}
	for _, c := range volatile(r.m) {
		if err := r.file.file.Append(mapfile.Set{Range: c.Extents, State: c.State}); err != nil {
			return err
		}
	}
	meta := r.file.file.Meta()
	meta.Clean = true
	if err := r.file.file.Append(meta); err != nil {
		return err
	}
	return r.file.file.Sync()
}

// volatile are the extents whose bytes are not known to be flushed, with the state
// that they have when they are.
func volatile(m *dirtymap.Map) (changes []coherence.Change) {
	for run, s := range m.Runs(m.All(), dirtymap.Durable) {
		if s&dirtymap.Volatile == 0 {
			continue
		}
		s &^= dirtymap.Volatile
		if n := len(changes); n > 0 && changes[n-1].Extents.End() == run.First && changes[n-1].State == s {
			changes[n-1].Extents.Count += run.Count
		} else {
			changes = append(changes, coherence.Change{Extents: run, State: s})
		}
	}
	return changes
}
