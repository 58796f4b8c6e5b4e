package wire

import "github.com/twinlun/twinlun/dirtymap"

// Message is the body of a frame.
type Message interface {
	Kind() Kind
}

// Kind says what a frame carries.
type Kind uint8

// The kinds of message. Numbers are never used again for something else.
const (
	KindHello        Kind = 1
	KindRefuse       Kind = 2
	KindPing         Kind = 3
	KindPong         Kind = 4
	KindJoinHello    Kind = 8
	KindJoinMap      Kind = 9
	KindJoinPrepared Kind = 10
	KindJoinDone     Kind = 11
	KindMark         Kind = 16
	KindMarkAck      Kind = 17
	KindFetch        Kind = 18
	KindFetchReply   Kind = 19
	KindClear        Kind = 20
	KindCopy         Kind = 32
	KindCopyAck      Kind = 33
)

// Mark asks the peer to add extents to its record. Control stream.
type Mark struct {
	ID     uint64
	Ranges []dirtymap.Range // ascending, disjoint
}

// MarkAck answers a Mark, in one or several parts: each extent once. Control stream.
type MarkAck struct {
	ID     uint64
	Grants []Grant
}

// Grant is the answer for a run of extents.
type Grant struct {
	Range dirtymap.Range
	Busy  bool  // the preferred node is marking them itself: not granted
	Turn  uint8 // the turn after the grant, 0 to 3
}

// Fetch asks the owner for the newest data of extents. Control stream.
type Fetch struct {
	ID     uint64
	Own    bool             // and for their ownership
	Ranges []dirtymap.Range // ascending, disjoint
}

// FetchReply answers a Fetch, in one or several parts: each extent once. Control
// stream. A reader drops COPY frames for these extents up to Floors.
type FetchReply struct {
	ID     uint64
	Floors []uint64 // per bulk stream: the last COPY number sent so far
	Items  []FetchItem
}

// Outcome is what the owner did with an extent that was fetched.
type Outcome uint8

// The outcomes of a fetch.
const (
	FetchedShared Outcome = 1 // the owner is SHARED now, and so is the reader
	FetchedOwned  Outcome = 2 // ownership is granted to the reader
	FetchedKept   Outcome = 3 // the owner stays OWNED; good for the reads that waited only
	FetchedFailed Outcome = 4 // the owner could not read its replica; nothing changed
)

// FetchItem is the answer for one extent. No blocks: it was in sync.
type FetchItem struct {
	Outcome Outcome
	Turn    uint8 // the turn after a grant, 0 to 3
	Blocks
}

// Blocks are blocks of one extent. Data has those of Present that are not in
// Zero, in ascending order, dirtymap.BlockSize bytes each.
type Blocks struct {
	Extent  uint64
	Present dirtymap.Mask
	Zero    dirtymap.Mask // subset of Present: blocks of zeros
	Data    []byte
}

// Clear takes extents out of the peer's record. Control stream.
type Clear struct {
	Ranges []dirtymap.Range // ascending, disjoint
}

// Copy carries mirrored blocks. Bulk stream; Seq counts each stream's COPY
// frames from 1 on.
type Copy struct {
	Seq   uint64
	Items []Blocks // ascending extents
}

// CopyAck says that a COPY is durable (or was out of date). On the COPY's own
// bulk stream, in the other direction.
type CopyAck struct {
	Seq uint64
}

// JoinHello begins the joining of two replicas of a LUN. Control stream, as all
// of the join.
type JoinHello struct {
	LUN        [16]byte // UUID
	History    [16]byte // which history the replica belongs to; zero: none yet
	Size       uint64   // bytes
	ExtentSize uint32   // bytes
	Preferred  bool     // the sender is the LUN's preferred node
	Blank      bool     // no history, and every byte is zero
	Crashed    bool     // the operating system went down since the replica was last open
	Restarted  bool     // the process did: which blocks are dirty is forgotten
	Committed  uint64   // number of the last join that took effect here
	Prepared   uint64   // number of a join that is prepared here and not committed; 0: none
	Proposal   [16]byte // random: the preferred node's names a new history
}

// JoinMap carries a piece of the sender's planes in the shared format of package
// mapfile, compressed.
type JoinMap struct {
	Last bool
	Data []byte
}

// JoinPrepared says that the sender has the outcome of join Join durably, not in effect.
type JoinPrepared struct{ Join uint64 }

// JoinDone says that join Join is in effect at the sender; it takes requests.
type JoinDone struct{ Join uint64 }

// Refuse ends a connection with a reason for the other side's operator. Any stream.
type Refuse struct{ Reason string }

// Ping is a heartbeat; Pong answers it. Control stream, LUN 0.
type Ping struct{ ID uint64 }

// Pong answers a Ping.
type Pong struct{ ID uint64 }

// Kind implements Message.
func (*Mark) Kind() Kind         { return KindMark }
func (*MarkAck) Kind() Kind      { return KindMarkAck }
func (*Fetch) Kind() Kind        { return KindFetch }
func (*FetchReply) Kind() Kind   { return KindFetchReply }
func (*Clear) Kind() Kind        { return KindClear }
func (*Copy) Kind() Kind         { return KindCopy }
func (*CopyAck) Kind() Kind      { return KindCopyAck }
func (*JoinHello) Kind() Kind    { return KindJoinHello }
func (*JoinMap) Kind() Kind      { return KindJoinMap }
func (*JoinPrepared) Kind() Kind { return KindJoinPrepared }
func (*JoinDone) Kind() Kind     { return KindJoinDone }
func (*Refuse) Kind() Kind       { return KindRefuse }
func (*Ping) Kind() Kind         { return KindPing }
func (*Pong) Kind() Kind         { return KindPong }

// MaxBulkStreams bounds the bulk streams of a connection.
const MaxBulkStreams = 16
