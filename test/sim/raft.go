package sim

import (
	"errors"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
)

// Odds of what becomes of a command on its way to the log, of 100, and its times at most.
const (
	commandLost   = 10 // its proposer sends it again
	commandTwice  = 5
	answerLost    = 10
	commitTime    = 20 * time.Millisecond
	lateness      = 10 * time.Second
	retryTime     = 20 * time.Millisecond
	majorityAgain = 50 * time.Millisecond // between two looks whether there is one
)

// raft is a model of what the raft group of two sites and a witness guarantees, over the
// real catalog: one log of commands, which each site applies in order and in its own time.
// A command may be lost, late, or there twice, and its proposer may not hear of it.
type raft struct {
	w    *world
	log  []entry // that of index i+1 at i
	away bool    // the witness is
	late int     // of 100 commands
}

// entry is an agreed command: what it has led to.
type entry struct {
	state  *catalog.State
	result catalog.Result
}

func (r *raft) latest() *catalog.State {
	if len(r.log) == 0 {
		return catalog.New()
	}
	return r.log[len(r.log)-1].state
}

// command makes one of its own.
func (r *raft) command(by string, body catalog.Body) catalog.Command {
	return catalog.Command{ID: r.uuid(), Time: catalog.StampOf(r.w.group.Now()), By: by, Body: body}
}

func (r *raft) uuid() (id catalog.UUID) {
	for i := range id {
		id[i] = byte(r.w.rand.Uint32())
	}
	return id
}

// encode cannot fail: the commands here are short.
func encode(c catalog.Command) []byte {
	raw, err := c.Encode()
	if err != nil {
		panic(err)
	}
	return raw
}

// append agrees on a command.
func (r *raft) append(raw []byte) catalog.Result {
	r.w.judge(raw)
	if m := r.w.o.mutation; m == staleTerm || m == forcedLate {
		raw = r.renewed(raw)
	}
	state, result, err := r.latest().Apply(uint64(len(r.log)+1), raw)
	if err != nil {
		r.w.fail("raft: %v", err)
		return result
	}
	r.log = append(r.log, entry{state, result})
	l, _ := state.LUN(lunUUID)
	r.w.tracef("RAFT: %d is %s by %s: %v, repeated %v; term %d: %v", len(r.log), result.Command.Body.Kind(), result.Command.By,
		result.Error, result.Repeated, l.Term, l.Serving)
	for _, s := range r.w.sites {
		if s.agent != nil {
			s.agent.news.Set()
		}
	}
	if _, leave := result.Command.Body.(*catalog.Leave); leave {
		r.w.totals.Left += result.Done
		if result.Done > 0 {
			r.w.cluster.hasLeft(l.Term)
		}
	}
	if result.Done > 0 && !r.w.resting && chance(r.w.rand, r.w.shape.awkward) {
		r.w.later(awkward, r.w.decided)
	}
	return result
}

// carry takes a command to whoever leads. It goes on after its proposer has given up.
func (r *raft) carry(raw []byte) {
	delay := upTo(r.w.rand, commitTime)
	if chance(r.w.rand, r.late) {
		delay = upTo(r.w.rand, lateness)
	}
	r.w.group.Go("commit", func() {
		r.w.sleep(delay)
		r.agree(raw)
		if chance(r.w.rand, commandTwice) {
			r.w.sleep(upTo(r.w.rand, lateness))
			r.agree(raw)
		}
	})
}

// agree waits for a majority. It is called by a task of the world.
func (r *raft) agree(raw []byte) catalog.Result {
	for !r.majority() {
		r.w.sleep(majorityAgain)
	}
	return r.append(raw)
}

// majority tells whether two of the three can speak with each other.
func (r *raft) majority() bool {
	n := 0
	for _, s := range r.w.sites {
		if s.votes() {
			n++
		}
	}
	return n == 2 || n == 1 && !r.away
}

// votes tells whether the site's process runs, gets its turns, and is reached.
func (s *site) votes() bool { return s.wanted && !s.group.Paused() && !s.seat.isolated }

var errAnswerLost = errors.New("the answer was lost")
