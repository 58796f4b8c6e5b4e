package coherence

import (
	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/wire"
)

// Event is something that happened; Step applies it.
type Event interface{ event() }

// Events from the host side.
type (
	// Want says that the host command Op waits for extents that Map.Enter refused.
	// It holds no extent and is not between Begin and End while it waits. For each
	// extent it gets one Admit. Op numbers are the owner's and are not used again.
	Want struct {
		Op      uint64
		Extents dirtymap.Range
		Write   bool
	}
	// Sync says that the host command Op waits for everything that was written
	// here before to be durable, in a way that outlives an operating system crash
	// (SYNCHRONIZE CACHE, FUA). It gets one Admit.
	Sync struct{ Op uint64 }
	// Cancel takes back what Op still waits for. An Admit for it may have been
	// given already and must be undone by the owner.
	Cancel struct{ Op uint64 }
	// Drained says that Map.Exit returned true for Extent.
	Drained struct{ Extent uint64 }
	// Quiet says that Map.End returned true.
	Quiet struct{}
)

// Events from the peer.
type (
	// Connected says that the link is up, with this many bulk streams.
	Connected struct{ Streams int }
	// Disconnected says that the link is down; nothing sent before arrives later.
	Disconnected struct{}
	// Received is a message from the control stream, JoinMap excepted.
	Received struct{ Msg wire.Message }
	// ReceivedBulk is a message from a bulk stream, counted from 0.
	ReceivedBulk struct {
		Stream int
		Msg    wire.Message
	}
	// PeerStates is a piece of the peer's planes, out of its JoinMap messages:
	// durable states of the extents that follow those of the piece before. States has one
	// that all of them have, or one for each.
	PeerStates struct {
		Extents dirtymap.Range
		States  []dirtymap.State // read only during Step
	}
)

// Events that say how an action with a Token went. Err ends the action; what it
// means is said at each action.
type (
	// Done ends Log, Flush and Store.
	Done struct {
		Token uint64
		Err   error
	}
	// Collected ends Collect.
	Collected struct {
		Token  uint64
		Blocks wire.Blocks // as asked: Present equals Collect.Blocks
		Err    error
	}
	// CopyRead ends ReadCopy: the blocks as asked, in the same order.
	CopyRead struct {
		Token uint64
		Items []wire.Blocks
		Err   error
	}
	// CopyStored says that a StoreCopy is written, CopyDurable (later) that it is
	// flushed. CopyStored with Err ends it, instead of either of them.
	CopyStored struct {
		Token uint64
		Err   error
	}
	CopyDurable struct{ Token uint64 }
	// Digested ends Digest. With Err the replica cannot be read.
	Digested struct {
		Token   uint64
		Digests []wire.Digest // one for each block of the extent
		Err     error
	}
	// Broken says that the replica can go on no longer, for another reason than an
	// action that failed.
	Broken struct{ Err error }
	// Stop says that the replica is being stopped in order: no host is served any more,
	// whatever its role is, and what is under way for hosts ends.
	Stop struct{}
)

// Events that pace the engine.
type (
	// Tick tells the time, in ticks of TicksPerSecond; it begins at 1.
	Tick struct{ Now uint32 }
	// CopyRoom says that bulk stream Stream has room for a COPY of up to Blocks
	// blocks. A ReadCopy comes of it, or nothing if there is nothing to copy now.
	CopyRoom struct{ Stream, Blocks int }
	// GiveBack asks to give up the ownership of those extents of the range that are
	// clean and unused now.
	GiveBack struct{ Extents dirtymap.Range }
	// Verify asks to compare an extent of both replicas. A Verified comes of it.
	Verify struct{ Op, Extent uint64 }
)

// TicksPerSecond is the rate of Tick events.
const TicksPerSecond = 10

func (Role) event()         {}
func (Stop) event()         {}
func (Want) event()         {}
func (Sync) event()         {}
func (Cancel) event()       {}
func (Drained) event()      {}
func (Quiet) event()        {}
func (Connected) event()    {}
func (Disconnected) event() {}
func (Received) event()     {}
func (ReceivedBulk) event() {}
func (PeerStates) event()   {}
func (Done) event()         {}
func (Collected) event()    {}
func (CopyRead) event()     {}
func (CopyStored) event()   {}
func (CopyDurable) event()  {}
func (Broken) event()       {}
func (Tick) event()         {}
func (CopyRoom) event()     {}
func (GiveBack) event()     {}
func (Verify) event()       {}
func (Digested) event()     {}

// Action is something that the owner must do. Actions are started in the order
// in which Step returned them, and messages and log entries keep that order
// among all steps; apart from that they run concurrently. Reads and writes of
// the replica are atomic for each block (package volume's block locks).
type Action interface{ action() }

// Actions for the host side.
type (
	// Admit lets the host command Op use Extent. Without Kept and Err the extent is
	// entered for it and Begin was called for it: the owner reads or writes (and
	// calls Wrote), then Exit and End. With Kept (reads only): Begin was called,
	// the extent is not entered; the command reads the local replica, puts the
	// blocks of Kept over it, then calls End. With Err the extent, or the Sync,
	// failed; nothing to undo. With Sync it answers a Sync: nothing was entered or begun.
	Admit struct {
		Op     uint64
		Extent uint64
		Kept   *wire.Blocks
		Sync   bool
		Err    error
	}
)

// Actions for the peer.
type (
	// Send sends a message on the control stream.
	Send struct{ Msg wire.Message }
	// SendBulk sends one on a bulk stream.
	SendBulk struct {
		Stream int
		Msg    wire.Message
	}
	// SendPlanes sends the map's states as JoinMap messages. Nothing changes the map
	// until the peer has answered them.
	SendPlanes struct{}
	// Disconnect closes the link, since the peer did what it must not;
	// Disconnected follows.
	Disconnect struct{ Reason string }
	// Grow says that both nodes have room for a larger LUN. The owner makes the map
	// larger (package mapfile) and goes on with a new engine, over a new connection.
	// Nothing is joined meanwhile.
	Grow struct{ Size int64 }
	// CopyEnded says that the COPY of this ReadCopy is out of the way: durable at
	// the peer, or dropped.
	CopyEnded struct{ Token uint64 }
)

// Actions for the replica and its map file. An error of Log, Store, StoreCopy or
// Flush makes the engine give up serving (Fault).
type (
	// Log appends to the map file, and says Done when that is durable. With Lazy it
	// says Done too, but nothing waits for it, it may take its time.
	Log struct {
		Token   uint64
		Lazy    bool
		Changes []Change // take effect together with the entry
		Prepare *Outcome // replaces what was prepared before
		Commit  uint64   // not 0: the prepared join of this number takes effect
		Role    *RoleState
		// Distrust makes the next start take this one for an operating system crash:
		// what was not flushed cannot be relied upon.
		Distrust bool
	}
	// Flush makes durable what was written to the replica before.
	Flush struct{ Token uint64 }
	// Collect reads blocks of an extent.
	Collect struct {
		Token  uint64
		Extent uint64
		Blocks dirtymap.Mask
	}
	// Store writes blocks that were fetched. For is a host command that waits for
	// it; 0: none.
	Store struct {
		Token uint64
		Items []wire.Blocks
		For   uint64
	}
	// StoreCopy writes blocks that the peer copied, then flushes.
	StoreCopy struct {
		Token uint64
		Items []wire.Blocks
	}
	// Salvage makes a durable copy of what this replica is about to lose: blocks that
	// were acknowledged here, and that the other replica, which wins, knows nothing of.
	// Of the extents in Whole that is everything, of those in Dirty what the map says is
	// dirty. Nothing changes them until Done. An error ends the join: nothing is lost.
	Salvage struct {
		Token        uint64
		Join         uint64 // the number of the join; a salvage of the same number before is superseded
		Whole, Dirty []dirtymap.Range
	}
	// Digest reads an extent, and makes a digest of each block.
	Digest struct{ Token, Extent uint64 }
	// Verified ends a Verify. Differ are blocks that are not the same at both sites, which
	// must not be; where they are mended, what is Here is to stay, or else what the peer
	// has. Skipped are those that are about to be copied, and were not compared.
	Verified struct {
		Op, Extent      uint64
		Outcome         wire.VerifyOutcome // VerifyDigests excepted
		Differ, Skipped dirtymap.Mask
		Here            bool
	}
	// ReadCopy reads blocks for a COPY on Stream; Present says which.
	ReadCopy struct {
		Token  uint64
		Stream int
		Items  []wire.Blocks
	}
)

// Change is a run of extents with their new durable state.
type Change struct {
	Extents dirtymap.Range
	State   dirtymap.State
}

// Outcome is what a join decided for this replica.
type Outcome struct {
	Join uint64
	RoleState
	Changes []Change
}

// RoleState is what the map file says of the replica's role.
type RoleState struct {
	History   [16]byte // the replica is not blank any more when it has one
	Term      uint64   // of the last Role
	ID        [16]byte // and its ID
	AloneTerm uint64   // in which it last served alone since it last joined; 0: it did not
	Fork      bool     // and what it served then is not what the cluster has agreed upon
}

// Actions for the operator.
type (
	// Serving says that host commands are served from now on, or not.
	Serving struct{ Yes bool }
	// Dismiss says that the peer may have served alone: host commands that have begun
	// and were not answered must end with Err, whatever they have done. Those that wait
	// here get an Admit each.
	Dismiss struct{ Err error }
	// Fault says that this replica cannot go on; host commands get Err.
	Fault struct{ Err error }
	// Alarm says something that an operator should know.
	Alarm struct{ Text string }
)

func (Admit) action()      {}
func (Send) action()       {}
func (SendBulk) action()   {}
func (SendPlanes) action() {}
func (Disconnect) action() {}
func (Grow) action()       {}
func (CopyEnded) action()  {}
func (Log) action()        {}
func (Flush) action()      {}
func (Collect) action()    {}
func (Store) action()      {}
func (StoreCopy) action()  {}
func (Salvage) action()    {}
func (ReadCopy) action()   {}
func (Digest) action()     {}
func (Verified) action()   {}
func (Serving) action()    {}
func (Dismiss) action()    {}
func (Fault) action()      {}
func (Alarm) action()      {}

// Predictor widens the extents that a host write needs marked.
type Predictor interface {
	// Window is a superset of r, inside the LUN.
	Window(r dirtymap.Range) dirtymap.Range
	// TooWide says that the peer fetched an extent that was only predicted.
	TooWide(ext uint64)
}

// Config is what an engine is made of.
type Config struct {
	LUN       [16]byte // UUID
	Preferred bool     // this is the LUN's preferred node
	Map       *dirtymap.Map
	Predictor Predictor

	// From the map file.
	RoleState          // History zero: none yet
	Committed uint64   // number of the last join in effect
	Prepared  *Outcome // a join that is prepared and not committed
	Blank     bool     // every byte of the replica is zero
	Crashed   bool     // the operating system went down since; Volatile extents are lost
	// ServeStale is the operator's word that a replica may be taken for current
	// although the peer, which had newer data, has come back without it.
	ServeStale bool
	// Want is how large the LUN may grow here, in bytes; 0: it is not to grow.
	Want int64
	// BlockSize is that of the logical blocks that hosts see, in bytes. The engine only
	// sees to it that the peer shows the same.
	BlockSize uint32
	// Kept is the map of the engine before this one in the same process, closed in
	// order; nil: there was none, or it did not know itself which blocks are dirty.
	// This one may be larger.
	Kept *dirtymap.Map
	// Serve and Loss are the role until the first Role event.
	Serve Serve
	Loss  Loss

	// Judge says why a replica in some term, as its greeting has it, cannot be one of this
	// LUN's that is up to date; "": it can, or that is not known. nil: nobody knows.
	Judge func(term uint64, id [16]byte, fork bool) (reason string)

	Proposal  [16]byte // random; names the history if this replica begins one
	ColdAfter uint32   // ticks without a write after which ownership is given back
}

// Stats are an engine's counters, since it was made.
type Stats struct {
	Marks, MarkExtents       uint64 // MARKs sent, and the extents in them
	Fetches, FetchExtents    uint64 // FETCHes sent, and the extents in them
	Kept                     uint64 // extents answered with keep
	Copies, CopiedBlocks     uint64 // COPYs confirmed, and the blocks in them
	Clears                   uint64 // extents given back
	Joins                    uint64
	Serving, Alone           bool   // hosts; and without the peer
	Taken                    uint64 // extents whose newer data at the peer was given up
	HeldCommands             uint64 // host commands that ended with ErrHeld
	CopyingBlocks            int64  // blocks in COPYs not confirmed yet
	Waiting                  int    // host commands that wait
	JoinedStale, JoinedOwned uint64 // extents, at the last join
}
