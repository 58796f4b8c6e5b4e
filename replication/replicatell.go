package replication

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/twinlun/twinlun/replication/wire"
	"github.com/twinlun/twinlun/task"
)

// ErrNotTold: the peer cannot be told, or it is not known whether it was. Whoever asked
// decides what that means.
var ErrNotTold = errors.New("the peer cannot be told")

// Twin is what a LUN's two nodes say to one another beside its data: the state of one
// logical unit. The replication only carries it. The contexts end with the connection,
// and when the replica closes, which waits for these calls: they must return then.
type Twin interface {
	// Heard is told what the peer's Tell said, and returns the answer, up to
	// wire.MaxTell bytes. False: it does not know the topic. It may block; up to
	// maxHearing run at once, in no order.
	Heard(ctx context.Context, topic uint16, body []byte) (answer []byte, understood bool)
	// Joined is called after each join, in a task of its own: what the peer must know
	// may be told now.
	Joined(ctx context.Context)
}

// maxTells bounds the Tells of a connection that were not answered: a unit's state
// changes once in a while, so more is a mistake.
const maxTells = 64

// maxHearing is how many tasks hear what the peer tells: enough for a slow one, a
// reset say, not to hold up others.
const maxHearing = 4

// telling is a replica's share of the conversation.
type telling struct {
	joining crew // Joined
	hearing pool // Heard

	// Under the replica's lock; anew with each connection.
	joined  bool // the replica serves, together with the peer
	ctx     context.Context
	cancel  context.CancelCauseFunc
	last    uint64
	waiting map[uint64]*tellWait // not answered, even if nobody waits any more
	heard   int                  // not answered here
}

// tellWait is a Tell that waits for its answer.
type tellWait struct {
	wake   task.Signal
	answer *wire.Told // nil: none came
	ended  bool
}

func (t *telling) start(rt task.Runtime) {
	t.joining.start(rt)
	t.hearing.start(rt, "hear", maxHearing)
}

// upLocked begins a conversation.
func (t *telling) upLocked(c LinkConn) {
	t.ctx, t.cancel = context.WithCancelCause(c.Context())
	t.joined, t.last, t.waiting, t.heard = false, 0, map[uint64]*tellWait{}, 0
}

// downLocked ends it: nobody answers any more.
func (t *telling) downLocked(why error) {
	t.cancel(why)
	for _, id := range slices.Sorted(maps.Keys(t.waiting)) {
		t.waiting[id].end(nil)
	}
	t.waiting = nil
}

func (w *tellWait) end(answer *wire.Told) {
	w.answer, w.ended = answer, true
	w.wake.Set()
}

// close returns when nothing is heard any more.
func (t *telling) close() {
	t.joining.wait()
	t.hearing.close()
}

// joinedLocked: the replica serves, or does so no more.
func (r *Replica) joinedLocked(yes bool) {
	t := &r.telling
	t.joined = yes && r.conn != nil
	if ctx := t.ctx; t.joined && r.cfg.Twin != nil && !r.closing {
		t.joining.run("joined", func() { r.cfg.Twin.Joined(ctx) })
	}
}

// Tell has the peer's Twin hear body, up to wire.MaxTell bytes, and returns its answer.
// It needs replicas that are joined. The error is ErrNotTold, or the context's cause:
// then the peer may have heard or not.
func (r *Replica) Tell(ctx context.Context, topic uint16, body []byte) ([]byte, error) {
	w, err := r.sendTell(topic, body)
	if err != nil {
		return nil, err
	}
	for {
		if done, answer, err := r.told(w); done {
			return answer, err
		}
		if err := w.wake.Wait(ctx); err != nil {
			return nil, err
		}
	}
}

func (r *Replica) sendTell(topic uint16, body []byte) (*tellWait, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := &r.telling
	switch {
	case len(body) > wire.MaxTell:
		return nil, fmt.Errorf("%w: %d bytes, at most %d can be told", ErrNotTold, len(body), wire.MaxTell)
	case r.conn == nil || !t.joined:
		return nil, fmt.Errorf("%w: %s", ErrNotTold, r.whyLocked())
	case r.conn.Features()&wire.FeatureTell == 0:
		return nil, fmt.Errorf("%w: %s has an older version; upgrade it", ErrNotTold, r.conn.Peer())
	case len(t.waiting) == maxTells:
		return nil, fmt.Errorf("%w: it has not answered the last %d messages", ErrNotTold, maxTells)
	}
	t.last++
	w := &tellWait{wake: r.run.NewSignal()}
	t.waiting[t.last] = w
	r.conn.SendControl(r.cfg.Number, &wire.Tell{ID: t.last, Topic: topic, Body: body})
	return w, nil
}

// told looks whether a Tell has ended.
func (r *Replica) told(w *tellWait) (done bool, answer []byte, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !w.ended:
		return false, nil, nil
	case w.answer == nil:
		return true, nil, fmt.Errorf("%w: the link broke before it answered", ErrNotTold)
	case !w.answer.Understood:
		return true, nil, fmt.Errorf("%w: it does not understand; upgrade it if its version is older", ErrNotTold)
	}
	return true, w.answer.Body, nil
}

// converse takes what belongs to the conversation. False: it is something else.
func (r *Replica) converse(c LinkConn, m wire.Message) bool {
	switch m := m.(type) {
	case *wire.Tell:
		r.heard(c, m)
	case *wire.Told:
		r.answered(c, m)
	default:
		return false
	}
	return true
}

func (r *Replica) answered(c LinkConn, m *wire.Told) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != c {
		return
	}
	if w := r.telling.waiting[m.ID]; w != nil {
		delete(r.telling.waiting, m.ID)
		w.end(m)
	}
}

// heard has a Tell heard: by a task, since the stream's reader must not wait for it.
func (r *Replica) heard(c LinkConn, m *wire.Tell) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != c {
		return
	}
	if r.telling.heard == maxTells {
		c.Close(fmt.Errorf("LUN %d: more than %d messages wait to be heard", r.cfg.Number, maxTells))
		return
	}
	r.telling.heard++
	ctx := r.telling.ctx
	r.telling.hearing.put(func() { r.hear(ctx, c, m) })
}

// hear hands a Tell to the Twin, and sends its answer. What nobody waits for any more
// is not heard.
func (r *Replica) hear(ctx context.Context, c LinkConn, m *wire.Tell) {
	answer := &wire.Told{ID: m.ID}
	if r.cfg.Twin != nil && ctx.Err() == nil {
		answer.Body, answer.Understood = r.cfg.Twin.Heard(ctx, m.Topic, m.Body)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn == c {
		r.telling.heard--
		c.SendControl(r.cfg.Number, answer)
	}
}
