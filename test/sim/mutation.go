package sim

import (
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
)

// mutation is a fault that tests put in between the parts of a node, to see that it is
// found.
type mutation uint8

const (
	_           mutation = iota
	alwaysHolds          // a volume does not ask for the lease
	memoEarly            // a memo is reported durable long before it is
	toldLate             // the Keeper hears how far the log was applied before it hears who serves
	staleTerm            // what was proposed in a term takes effect in a later one
	forcedLate           // a take-over that was forced too late counts
	lacksBlock           // a salvage file is without its first block
	harmless             // none
)

// How late the Keeper hears who serves, and how late a memo is durable, at most.
const (
	toldWithin  = time.Second
	memosWithin = 3 * time.Second
)

// writeMemos writes the memo file.
func (a *agent) writeMemos(p []byte) error {
	if a.c.w.o.mutation != memoEarly {
		return a.memos.write(a.s.group, p)
	}
	a.s.group.Go("late memo", func() {
		a.s.group.Sleep(background, upTo(a.c.w.rand, memosWithin))
		a.memos.write(a.s.group, p)
	})
	return nil
}

// tell tells the Keeper of an entry.
func (a *agent) tell(e entry) {
	if a.c.w.o.mutation != toldLate || e.result.Command.Body == nil {
		a.keeper.Apply(e.state, e.result)
		return
	}
	a.keeper.Apply(e.state, catalog.Result{Command: e.result.Command})
	a.s.group.Go("late", func() {
		a.s.group.Sleep(background, upTo(a.c.w.rand, toldWithin))
		a.keeper.Apply(a.state(), catalog.Result{})
	})
}

// renewed puts the present term in the place of that in which a change was proposed.
func (r *raft) renewed(raw []byte) []byte {
	c, err := catalog.Decode(raw)
	if err != nil {
		return raw
	}
	var steps []catalog.Step
	switch b := c.Body.(type) {
	case *catalog.TakeAlone:
		steps = b.LUNs
	case *catalog.JoinBoth:
		steps = b.LUNs
	case *catalog.Leave:
		steps = b.LUNs
	case *catalog.ForceAlone:
		steps = b.LUNs
	}
	for i := range steps {
		l, _ := r.latest().LUN(steps[i].LUN)
		steps[i].Term = l.Term
	}
	return encode(c)
}
