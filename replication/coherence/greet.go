package coherence

import (
	"cmp"
	"fmt"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/wire"
)

// refuse leaves the peer's replica of this LUN alone until the next connection: a
// new try would end the same way before somebody has acted. Other LUNs go on.
func (e *Engine) refuse(reason string) {
	e.do(Alarm{Text: "not joined with the peer: " + reason})
	e.do(Send{&wire.JoinRefuse{Reason: reason}})
	e.disconnected()
}

func (e *Engine) hello() *wire.JoinHello {
	h := &wire.JoinHello{
		LUN: e.cfg.LUN, History: e.cfg.History, Proposal: e.cfg.Proposal,
		Size: uint64(e.geo.Size), ExtentSize: uint32(e.geo.ExtentSize),
		Preferred: e.cfg.Preferred, Blank: e.cfg.Blank, Crashed: e.cfg.Crashed, Restarted: e.join.restarted,
		Alone: e.role.Serve == ServeAlone, Term: e.role.Term, TermID: e.role.ID, AloneTerm: e.aloneTerm, Fork: e.fork, Least: e.role.Least,
		Committed: e.cfg.Committed, Want: uint64(max(e.cfg.Want, e.geo.Size)), BlockSize: e.cfg.BlockSize,
	}
	if e.mut == aloneForgotten {
		h.AloneTerm = 0
	}
	h.Fork = h.Fork && e.mut != forkForgotten
	if e.cfg.Prepared != nil {
		h.Prepared = e.cfg.Prepared.Join
	}
	return h
}

// greet goes on when both greetings are there.
func (e *Engine) greet() {
	if e.join.phase != greeting || e.join.peer == nil {
		return
	}
	p := e.join.peer
	if e.growing(p) {
		return
	}
	if reason := cmp.Or(e.misfit(p), e.stranger(p)); reason != "" {
		e.refuse(reason)
		return
	}
	e.follow()
	if mine := e.cfg.Prepared; mine != nil && p.Committed == mine.Join {
		e.join.phase = settling
		e.settle()
		return
	}
	e.compare()
}

// hurry ends a wait for a flush at once when the peer may serve in place of this node.
func (e *Engine) hurry(p *wire.JoinHello) {
	if e.join.warm != 0 && p.Alone && p.Term > e.role.Term {
		e.quiesce()
	}
}

// settle commits what the peer has committed. What was written alone since it was
// prepared stands above it.
func (e *Engine) settle() {
	if e.aloneTerm == 0 || e.mut == settleOver {
		e.commit()
		return
	}
	o := e.beneath(e.cfg.Prepared)
	e.cfg.Prepared = o
	e.do(Log{Token: e.begin(work{kind: workCommit}), Prepare: o, Commit: o.Join})
}

// stateAbove is an extent's state, mine until now, when a join gives it one, while hosts may have seen
// since, at this replica alone, what is here: that stands. If the join would have given
// the extent to the peer, it counts as taken over.
func (e *Engine) stateAbove(mine, s dirtymap.State) dirtymap.State {
	switch mine &= dirtymap.Durable; {
	case s&dirtymap.Stale != 0 && (mine&dirtymap.Alone != 0 || !e.missing(mine)):
		return (mine | dirtymap.Held | dirtymap.Alone).WithTurn(s.Turn() + takenTurns)
	case mine&dirtymap.Alone != 0:
		return mine.WithTurn(s.Turn())
	}
	return s
}

// beneath is an outcome without what this replica did alone.
func (e *Engine) beneath(o *Outcome) *Outcome {
	under := &Outcome{Join: o.Join, RoleState: o.RoleState}
	under.AloneTerm, under.Fork = e.aloneTerm, e.fork
	for _, c := range o.Changes {
		for run, mine := range e.m.Runs(c.Extents, dirtymap.Durable) {
			under.Changes = appendChange(under.Changes, run, e.stateAbove(mine, c.State))
		}
	}
	return under
}

// growing tells whether one of the nodes makes its map larger now. Both have heard
// what there is room for, and each comes to its own part of the same verdict; a node
// whose peer has grown already, and that failed meanwhile, follows later. So the
// sizes are never different for longer than it takes both to start.
func (e *Engine) growing(p *wire.JoinHello) bool {
	mine := e.hello()
	if p.LUN != mine.LUN || p.ExtentSize != mine.ExtentSize || p.BlockSize != mine.BlockSize || max(p.Size, p.Want) > dirtymap.MaxSize {
		return false
	}
	common := min(mine.Want, p.Want)
	if common > mine.Size {
		e.do(Grow{Size: int64(common)})
	}
	return common > min(mine.Size, p.Size)
}

// misfit says why the two cannot be replicas of one LUN.
func (e *Engine) misfit(p *wire.JoinHello) string {
	var zero [16]byte
	switch {
	case p.LUN != e.cfg.LUN:
		return fmt.Sprintf("different LUNs: %x here, %x there; give both nodes the same LUN UUID", e.cfg.LUN, p.LUN)
	case p.Size != uint64(e.geo.Size) || p.ExtentSize != uint32(e.geo.ExtentSize):
		return fmt.Sprintf("different sizes: %d bytes in extents of %d here, %d in extents of %d there; a LUN grows when both nodes are configured with the larger size", e.geo.Size, e.geo.ExtentSize, p.Size, p.ExtentSize)
	case p.BlockSize != e.cfg.BlockSize:
		return fmt.Sprintf("hosts are shown blocks of %d bytes here, of %d there; configure the LUN with the same block-size at both nodes: that of the node whose replica holds data, and let the other one start with a new replica", e.cfg.BlockSize, p.BlockSize)
	case p.Preferred == e.cfg.Preferred:
		return "both nodes are configured as preferred, or neither is; name the same preferred node at both"
	case p.Alone && e.role.Serve == ServeAlone && p.Term == e.role.Term, p.AloneTerm != 0 && p.AloneTerm == e.aloneTerm && !p.Fork && !e.fork:
		return fmt.Sprintf("both replicas served alone in one term, %d; decide which of them is to be kept, and move the map file of the other one away: it then joins as a new one", p.Term)
	case p.Term == e.role.Term && p.TermID != e.role.ID:
		return fmt.Sprintf("two different clusters: term %d of the LUN is %x here, %x there", p.Term, e.role.ID, p.TermID)
	case p.History == zero || e.cfg.History == zero:
		return ""
	case p.History != e.cfg.History:
		return "the replicas have different histories; to overwrite one of them, move its map file away: it then joins as a new one"
	case p.Committed == e.cfg.Committed,
		e.cfg.Prepared != nil && p.Committed == e.cfg.Prepared.Join,
		p.Prepared != 0 && p.Prepared == e.cfg.Committed:
		return ""
	}
	return fmt.Sprintf("one replica is an older copy: last join %d here, %d there; was one restored from a snapshot? move its map file away: it then joins as a new one", e.cfg.Committed, p.Committed)
}

// stranger says why the cluster's history of the LUN does not have the peer's replica as it is.
func (e *Engine) stranger(p *wire.JoinHello) string {
	if e.cfg.Judge == nil || p.History == [16]byte{} {
		return ""
	}
	return e.cfg.Judge(p.Term, p.TermID, p.Fork)
}

// history is the one that both belong to, or a new one.
func (e *Engine) history() [16]byte {
	var zero [16]byte
	switch {
	case e.cfg.History != zero:
		return e.cfg.History
	case e.join.peer.History != zero:
		return e.join.peer.History
	case e.cfg.Preferred:
		return e.cfg.Proposal
	}
	return e.join.peer.Proposal
}
