package replication

import (
	"context"
	"errors"
	"fmt"

	"github.com/twinlun/twinlun/replication/wire"
	"github.com/twinlun/twinlun/task"
)

// ErrNotTold: the peer cannot be told, or it is not known whether it was. Whoever asked
// decides what that means.
var ErrNotTold = errors.New("the peer cannot be told")

// Twin is what a LUN's two nodes say to one another beside its data: the state of one
// logical unit. The replication only carries it.
type Twin interface {
	// Heard is told what the peer's Tell said, and returns the answer. False: it does
	// not know the topic. It may block; up to maxHearing run at once, in no order.
	Heard(topic uint16, body []byte) (answer []byte, understood bool)
	// Joined is called after each join, in a task of its own: what the peer must know
	// may be told now.
	Joined()
}

// maxTells bounds the Tells that wait for their answers: a unit's state changes once
// in a while, so more is a mistake.
const maxTells = 64

// maxHearing is how many tasks hear what the peer tells: enough for a slow one, a
// reset say, not to hold up others.
const maxHearing = 4

// telling is a replica's share of the conversation.
type telling struct {
	crew    crew
	hearing pool

	// Under the replica's lock.
	last    uint64
	waiting map[uint64]*tellWait
	heard   int // in the pool
	joined  bool
}

// tellWait is a Tell that waits for its answer.
type tellWait struct {
	wake   task.Signal
	answer *wire.Told // nil: none came
	ended  bool
}

func (t *telling) start(rt task.Runtime) {
	t.waiting = map[uint64]*tellWait{}
	t.crew.start(rt)
	t.hearing.start(rt, "hear", maxHearing)
}

// Tell has the peer's Twin hear body, up to wire.MaxTell bytes, and returns its answer.
// It needs replicas that are joined. The error is ErrNotTold, or the context's cause:
// then the peer may have heard or not.
func (r *Replica) Tell(ctx context.Context, topic uint16, body []byte) ([]byte, error) {
	t, id, err := r.sendTell(topic, body)
	if err != nil {
		return nil, err
	}
	for {
		done, answer, err := r.told(t)
		if done {
			return answer, err
		}
		if err := t.wake.Wait(ctx); err != nil {
			r.mu.Lock()
			delete(r.telling.waiting, id)
			r.mu.Unlock()
			return nil, err
		}
	}
}

func (r *Replica) sendTell(topic uint16, body []byte) (*tellWait, uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := &r.telling
	switch {
	case len(body) > wire.MaxTell:
		return nil, 0, fmt.Errorf("%w: %d bytes, at most %d can be told", ErrNotTold, len(body), wire.MaxTell)
	case r.conn == nil || !t.joined:
		return nil, 0, fmt.Errorf("%w: %s", ErrNotTold, r.whyLocked())
	case r.conn.Features()&wire.FeatureTell == 0:
		return nil, 0, fmt.Errorf("%w: %s has an older version; upgrade it", ErrNotTold, r.conn.Peer())
	case len(t.waiting) >= maxTells:
		return nil, 0, fmt.Errorf("%w: %d others wait for its answer", ErrNotTold, maxTells)
	}
	t.last++
	w := &tellWait{wake: r.run.NewSignal()}
	t.waiting[t.last] = w
	r.conn.SendControl(r.cfg.Number, &wire.Tell{ID: t.last, Topic: topic, Body: body})
	return w, t.last, nil
}

// told looks whether a Tell has ended.
func (r *Replica) told(t *tellWait) (done bool, answer []byte, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !t.ended:
		return false, nil, nil
	case t.answer == nil:
		return true, nil, fmt.Errorf("%w: the link broke before it answered", ErrNotTold)
	case !t.answer.Understood:
		return true, nil, fmt.Errorf("%w: it has an older version; upgrade it", ErrNotTold)
	}
	return true, t.answer.Body, nil
}

// hear takes what belongs to the conversation. False: it is something else.
func (r *Replica) hear(c LinkConn, m wire.Message) bool {
	switch m := m.(type) {
	case *wire.Tell:
		r.heard(c, m)
	case *wire.Told:
		r.mu.Lock()
		defer r.mu.Unlock()
		if t := r.telling.waiting[m.ID]; t != nil && r.conn == c {
			delete(r.telling.waiting, m.ID)
			t.answer, t.ended = m, true
			t.wake.Set()
		}
	default:
		return false
	}
	return true
}

// heard hands a Tell to the Twin, and sends its answer.
func (r *Replica) heard(c LinkConn, m *wire.Tell) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != c || r.closing {
		return
	}
	if r.telling.heard == maxTells {
		c.Close(fmt.Errorf("LUN %d: more than %d messages wait to be heard", r.cfg.Number, maxTells))
		return
	}
	r.telling.heard++
	r.telling.hearing.put(func() {
		answer := &wire.Told{ID: m.ID}
		if r.cfg.Twin != nil {
			answer.Body, answer.Understood = r.cfg.Twin.Heard(m.Topic, m.Body)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.telling.heard--
		if r.conn == c {
			c.SendControl(r.cfg.Number, answer)
		}
	})
}

// joinedLocked: the replica serves, or does so no more.
func (r *Replica) joinedLocked(yes bool) {
	r.telling.joined = yes
	if yes && r.cfg.Twin != nil && !r.closing {
		r.telling.crew.run("joined", r.cfg.Twin.Joined)
	}
}

// dropTellsLocked: nobody answers any more.
func (r *Replica) dropTellsLocked() {
	for id, t := range r.telling.waiting {
		delete(r.telling.waiting, id)
		t.ended = true
		t.wake.Set()
	}
}

// close returns when nothing is heard any more.
func (t *telling) close() {
	t.crew.wait()
	t.hearing.close()
}
