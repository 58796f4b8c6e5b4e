package failover

import "github.com/twinlun/twinlun/cluster/catalog"

// Time is a moment of this node's monotonic clock, which goes on while the machine is
// suspended (CLOCK_BOOTTIME), in nanoseconds. Times of two nodes have nothing in common.
type Time int64

// Never is a time that does not come.
const Never Time = 1<<63 - 1

// Request asks the other node for a lease.
type Request struct {
	Life uint64 // of the node that asks
	Seq  uint64 // from 1
}

// Grant is the answer. Its sender does not serve alone what it had agreed to serve
// together before Lease, made longer for the drift of clocks, has passed.
type Grant struct {
	Life, Seq uint64 // of the request
	Applied   uint64 // up to where the sender has applied the catalog's log, for good
	Decided   uint64 // catalog.State.Decided there
	Lease     catalog.Duration
}

// Memo is what a node keeps on disk of a LUN, so that it knows it after a restart.
type Memo struct {
	Term uint64
	What What

	// Of Forced.
	From  uint64       // the term that lasted, as far as the node knew
	Epoch catalog.UUID // names Term, which nobody has agreed upon
}

// What is what a Memo says of its term.
type What uint8

// What a node can have done in a term.
const (
	// Nothing: it knows of the term.
	Nothing What = iota
	// Alone: it serves alone in this term, after everything it had to wait for, and has
	// proposed nothing that could end the term. It may go on at once after a restart.
	Alone
	// Offered: it served alone and may have proposed that both serve. The term may be
	// over without this node knowing it.
	Offered
	// Forced: an operator has it serve alone in this term, catalog.ForcedTerm of From, and
	// it does not know yet what the cluster makes of that.
	Forced
)

// Event is something that has happened. See Machine.Step.
type Event interface{ isEvent() }

type (
	// Known: what is on disk of a LUN that the two nodes share, or this node serves. It
	// comes before the first Applied that has the LUN.
	Known struct {
		LUN  catalog.UUID
		Memo Memo
	}
	// Tick: time has passed. The owner sends one at least four times per heartbeat.
	Tick struct{}
	// Asked: the other node asks for a lease.
	Asked struct{ Request Request }
	// Granted: the other node has answered.
	Granted struct{ Grant Grant }
	// Applied: this node has applied the catalog's log up to Index. LUNs are those with
	// replicas at both nodes that have changed since; at first, all of them. The owner
	// gives it before anything else of this node can learn of the new state.
	Applied struct {
		Index    uint64
		Decided  uint64 // catalog.State.Decided
		Settings catalog.Settings
		Longest  catalog.Duration // catalog.State.LongestLease
		LUNs     []catalog.LUN
		Gone     []catalog.UUID // removed, or not shared by the two any more
	}
	// Joined: the replicas of a LUN are joined, durably at both nodes.
	Joined struct {
		LUN  catalog.UUID
		Join uint64 // its number
	}
	// Parted: they are not any more, or the connection is gone.
	Parted struct{ LUN catalog.UUID }
	// Remembered: a Remember is durable.
	Remembered struct {
		LUN  catalog.UUID
		Memo Memo
	}
	// Drained: the operator wants this node to leave a LUN to the other one, hosts have
	// been moved away, and the other node has been told of all that it needs, over the
	// connection on which it is asked for leases. It may be repeated.
	Drained struct{ LUN catalog.UUID }
	// Linked: there is another connection. What was Drained has to be said again: the
	// replicas join anew, and this one may be found to have what the other one lacks.
	Linked struct{}
	// Force: an operator has this node serve alone, since the other one is off and the
	// cluster cannot agree on anything. Nothing comes of it if it does so already.
	Force struct {
		LUN   catalog.UUID
		Epoch catalog.UUID // random; the name of the term that begins
		Heard uint64       // the latest term of which the replica knows: the peer may have told it of one that this node has not applied
	}
)

func (Known) isEvent()      {}
func (Tick) isEvent()       {}
func (Asked) isEvent()      {}
func (Granted) isEvent()    {}
func (Applied) isEvent()    {}
func (Joined) isEvent()     {}
func (Parted) isEvent()     {}
func (Remembered) isEvent() {}
func (Drained) isEvent()    {}
func (Linked) isEvent()     {}
func (Force) isEvent()      {}

// Action is something that the owner has to do.
type Action interface{ isAction() }

type (
	// Ask sends a Request.
	Ask struct{ Request Request }
	// Answer sends a Grant.
	Answer struct{ Grant Grant }
	// Propose proposes a command to the cluster. Nothing is expected to come back but
	// what is applied; it is repeated.
	Propose struct {
		Kind Kind
		LUNs []catalog.Step
	}
	// SetRole says how a LUN is served from now on. It is in force, at every command that
	// has not been answered yet, before the next action is carried out.
	SetRole struct {
		LUN  catalog.UUID
		Role Role
	}
	// SetLease says until when the lease lasts that roles need: a host is answered only
	// while now < Until. It may go back. It is in force at once, too.
	SetLease struct{ Until Time }
	// Remember makes a Memo durable, in place of the one before; then comes Remembered.
	// Those of a LUN are carried out one after the other.
	Remember struct {
		LUN  catalog.UUID
		Memo Memo
	}
)

func (Ask) isAction()      {}
func (Answer) isAction()   {}
func (Propose) isAction()  {}
func (SetRole) isAction()  {}
func (SetLease) isAction() {}
func (Remember) isAction() {}

// Kind is what is proposed.
type Kind uint8

// The kinds, which are commands of package catalog.
const (
	TakeAlone Kind = iota
	JoinBoth
	Leave
	ForceAlone // by the Epoch of the LUN's Memo
)

// Role is how a node serves a LUN.
type Role struct {
	Term  uint64
	Serve Serve
	When  When
	// Tied: this node serves by itself, and has, or may have, proposed that both serve.
	// Should the replicas part now, it must not go on without the other one: that may
	// have learned of the decision already.
	Tied bool
	// Free: this node serves by itself, and the other one answers no host any more,
	// whatever becomes of it. Only then may it go on without the other's replica.
	Free bool
	// Forced: by the word of an operator, and the cluster has not agreed to it yet.
	Forced bool
}

// Serve is with whom a node serves.
type Serve uint8

// The ways to serve.
const (
	None     Serve = iota // not at all: hosts are told to go elsewhere
	Together              // with the other node
	ByItself              // alone
)

// When says when a host may be answered.
type When uint8

// The conditions. A command that may not be answered yet waits.
const (
	Hold   When = iota // not now
	Leased             // while the lease lasts (SetLease)
	Always
)
