package replication

import (
	"context"
	"sync"
	"time"

	"github.com/twinlun/twinlun/dirtymap/mapfile"
	"github.com/twinlun/twinlun/replication/coherence"
	"github.com/twinlun/twinlun/task"
)

// lazyDelay is the longest that a lazy entry of the log waits for company.
const lazyDelay = time.Second

// logger writes the map file. One sync serves all entries that were there when it
// began; their order is that of put.
type logger struct {
	r    *Replica
	crew crew
	wake task.Signal

	// The task's own; Close's when it has ended.
	file     *mapfile.Log
	unsynced []uint64 // tokens of entries appended, in order
	hurry    bool     // one of them is not lazy
	oldest   time.Time

	mu      sync.Mutex
	entries []coherence.Log
	closing bool
}

func (l *logger) start(r *Replica, file *mapfile.Log) {
	l.r, l.wake, l.file = r, r.run.NewSignal(), file
	l.crew.start(r.run)
	l.crew.run("logger", l.work)
}

func (l *logger) put(entry coherence.Log) {
	l.mu.Lock()
	l.entries = append(l.entries, entry)
	l.mu.Unlock()
	l.wake.Set()
}

// work is the logger's task. It ends when the logger is closed and everything is
// durable.
func (l *logger) work() {
	for {
		entries, closing := l.take()
		err := l.append(entries)
		switch {
		case err != nil || l.hurry || len(l.unsynced) > 0 && (closing || l.late() <= 0):
			l.sync(err)
		case len(l.unsynced) > 0:
			l.wake.WaitFor(context.Background(), l.late())
		case closing:
			return
		default:
			l.wake.Wait(context.Background())
		}
	}
}

// late is how long the oldest lazy entry may still wait.
func (l *logger) late() time.Duration { return lazyDelay - l.r.run.Now().Sub(l.oldest) }

func (l *logger) append(entries []coherence.Log) error {
	for _, e := range entries {
		if len(l.unsynced) == 0 {
			l.oldest = l.r.run.Now()
		}
		l.unsynced = append(l.unsynced, e.Token)
		l.hurry = l.hurry || !e.Lazy
		if err := l.file.Append(l.records(e)...); err != nil {
			l.refuse(entries, e.Token)
			return err
		}
	}
	return nil
}

// refuse makes the entries behind the one that failed fail with it.
func (l *logger) refuse(entries []coherence.Log, failed uint64) {
	behind := false
	for _, e := range entries {
		if behind {
			l.unsynced = append(l.unsynced, e.Token)
		}
		behind = behind || e.Token == failed
	}
}

// sync makes what was appended durable, and tells.
func (l *logger) sync(err error) {
	if err == nil {
		err = l.file.Sync()
	}
	tokens := l.unsynced
	l.unsynced, l.hurry = nil, false
	r := l.r
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, token := range tokens {
		r.stepLocked(coherence.Done{Token: token, Err: err})
	}
}

func (l *logger) take() ([]coherence.Log, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries
	l.entries = nil
	return e, l.closing
}

// close returns when every entry is durable.
func (l *logger) close() {
	l.mu.Lock()
	l.closing = true
	l.mu.Unlock()
	l.wake.Set()
	l.crew.wait()
}

// records are an entry's records.
func (l *logger) records(e coherence.Log) []mapfile.Record {
	var recs []mapfile.Record
	for _, s := range sets(e.Changes) {
		recs = append(recs, s)
	}
	if e.Distrust {
		meta := l.file.Meta()
		meta.BootID, meta.Clean = [16]byte{}, false // no kernel's
		recs = append(recs, meta)
	}
	if p := e.Prepare; p != nil {
		recs = append(recs, mapfile.Prepare{
			Join:    p.Join,
			Meta:    mapfile.Meta{History: p.History, Join: p.Join, BootID: l.r.cfg.Boot, Term: term(p.RoleState)},
			Changes: sets(p.Changes),
		})
	}
	if e.Role != nil {
		recs = append(recs, l.role(e.Role))
	}
	if e.Commit != 0 {
		recs = append(recs, mapfile.Commit{Join: e.Commit})
	}
	return recs
}

// role is the Meta with a role. A replica that serves alone is not as its last stop in
// order has left it, any more; what a crash before that made doubtful stays so.
func (l *logger) role(s *coherence.RoleState) mapfile.Meta {
	meta := l.file.Meta()
	meta.Blank = meta.Blank && s.History == [16]byte{}
	meta.History, meta.Term = s.History, term(*s)
	if s.AloneTerm != 0 && meta.Clean {
		meta.Clean, meta.BootID = false, l.r.cfg.Boot
	}
	return meta
}

func term(s coherence.RoleState) mapfile.Term {
	return mapfile.Term{Number: s.Term, ID: s.ID, Alone: s.AloneTerm, Fork: s.Fork}
}

// roleState is what a map file says of the role, in the engine's words.
func roleState(m mapfile.Meta) coherence.RoleState {
	return coherence.RoleState{History: m.History, Term: m.Term.Number, ID: m.Term.ID, AloneTerm: m.Term.Alone, Fork: m.Term.Fork}
}

func sets(changes []coherence.Change) []mapfile.Set {
	list := make([]mapfile.Set, len(changes))
	for i, c := range changes {
		list[i] = mapfile.Set{Range: c.Extents, State: c.State}
	}
	return list
}

// prepared is the join that a map file has prepared, in the engine's words.
func prepared(file *mapfile.Log) *coherence.Outcome {
	p := file.Prepared()
	if p == nil {
		return nil
	}
	o := &coherence.Outcome{Join: p.Join, RoleState: roleState(p.Meta)}
	for _, s := range p.Changes {
		o.Changes = append(o.Changes, coherence.Change{Extents: s.Range, State: s.State})
	}
	return o
}
