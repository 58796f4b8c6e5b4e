// Package mapfile keeps the durable part of a dirtymap.Map: for each extent the
// State bits of dirtymap.Durable, and a little Meta about the replica as a whole.
//
// A map file has one owner, which appends records and calls Sync once for all
// that wait. Invariant: a record whose Sync has returned is found by every later
// Open, whatever crashes; records not yet synced survive as a prefix, in order;
// a damaged file is refused, never taken for another state.
//
// All numbers are little endian, all checksums CRC-32C. The file:
//
//	offset          size
//	     0          4096  header slot 0
//	  4096          4096  header slot 1
//	  8192  4096 × pages  states of all extents at the last checkpoint
//	     …             …  log: blocks, up to the end of the file
//
// A header slot; of two that are valid the one with the higher number counts:
//
//	   0   8  magic "TWLNMAP1"
//	   8   4  version: 1, or 2 as soon as a Meta has a term
//	  12   4  extent size, bytes
//	  16  16  LUN UUID
//	  32   8  LUN size, bytes
//	  40   8  slot number: one more than the slot written before
//	  48   8  generation of the log that continues the pages
//	  56   8  offset of that log's first block
//	  64  41  Meta when that log began
//	 105   4  size of the logical blocks that hosts see, bytes; 0: 512
//	 109  32  the term of that Meta, if it has one
//	 141   …  zeros
//	4092   4  CRC of all before
//
// A page:
//
//	0     4  page number, plus one
//	4     4  CRC of LUN UUID and states
//	8  4088  one byte per extent: State & Durable; 0 behind the last extent
//
// A block of the log fills whole sectors of 512 bytes. The last byte of each
// sector is the mark 1 + generation%255, which tells a sector that was never
// written (the crash's doing) from one that was damaged; the other 511 bytes
// of the sectors, put together, are:
//
//	 0  4  magic "TWLB"
//	 4  4  length of the records, bytes: 1 to 1 MiB
//	 8  8  generation
//	16  8  sequence number: 1, 2, … in each generation
//	24  8  sequence number up to which the log was durable already
//	32  4  CRC of LUN UUID and records
//	36  4  CRC of LUN UUID and the 36 bytes before
//	40  …  records, then zeros
//
// A record is a kind byte and a body; uv is an unsigned varint:
//
//	1 Set      first extent uv, count uv, state u8
//	2 Meta     history 16 bytes, join u64, boot id 16 bytes, flags u8 (1 clean, 2 blank,
//	           4 a term follows: number u64, id 16 bytes, alone u64; 8 alone in a fork)
//	3 Prepare  join u64, Meta: begins a prepared join
//	4 Changes  count uv, then for each: first extent uv, count uv, state u8
//	5 Prepared number of changes uv: the prepared join is complete
//	6 Commit   join u64
//	7 Abort    no body
//	8 Image    page uv, 4088 states
//	9 Fill     first page uv, count uv, state u8: pages full of one state
//
// Two nodes that join exchange a header slot of this format, and the states in pieces,
// through zstd: WritePlanes, ReadPlanes (planes.go draws the pieces).
package mapfile

import (
	"cmp"
	"errors"
	"hash/crc32"

	"github.com/twinlun/twinlun/dirtymap"
)

// Sentinels of Open and ReadPlanes. The errors that wrap them say what to do.
var (
	// ErrDamaged: what is there cannot be relied upon.
	ErrDamaged = errors.New("map file is damaged")
	// ErrForeign: the file belongs to another LUN, or to another geometry.
	ErrForeign = errors.New("map file belongs to something else")
	// ErrVersion: the file was written by a newer twinlun.
	ErrVersion = errors.New("map file has a newer version")
	// ErrEmpty: the file has no bytes; Create makes a map in it.
	ErrEmpty = errors.New("map file is empty")
	// ErrFailed: a write or sync failed before; the Log takes no more.
	ErrFailed = errors.New("map file has failed")
	// ErrNoPrepare: a Commit names a join that is not prepared.
	ErrNoPrepare = errors.New("join is not prepared")
)

// Identity is what a map file is about.
type Identity struct {
	LUN [16]byte // UUID
	dirtymap.Geometry
	// BlockSize is that of the logical blocks that hosts see, in bytes: 512 or 4096; 0 is
	// 512. It means nothing to the map, and stands here because it is fixed for as long
	// as there is a LUN: what hosts have written is full of block numbers.
	BlockSize int64
}

// blockSize is BlockSize with its default.
func (id *Identity) blockSize() int64 { return cmp.Or(id.BlockSize, 512) }

// Meta is what a map file knows about the replica as a whole.
type Meta struct {
	History [16]byte // which line of data this replica belongs to
	Join    uint64   // number of the last join that took effect
	BootID  [16]byte // of the kernel under which the map was last written
	Clean   bool     // stopped in order, everything flushed
	Blank   bool     // nothing in the replica is valid yet
	Term    Term
}

// Term is what a replica knows of who serves its LUN; zero: nothing.
type Term struct {
	Number uint64   // of the last change of who serves
	ID     [16]byte // names that change
	Alone  uint64   // in which the replica last served alone since its last join; 0: it did not
	Fork   bool     // and the cluster has agreed upon something else meanwhile
}

// Record is one of Set, Meta, Prepare, Commit, Abort.
type Record interface{ isRecord() }

// Set gives every extent of a range a state; only its Durable bits are kept.
type Set struct {
	Range dirtymap.Range // not empty, inside the LUN
	State dirtymap.State // not STALE and HELD together
}

// Prepare is the outcome of a join that takes effect with its Commit. It
// replaces a join prepared before.
type Prepare struct {
	Join    uint64
	Meta    Meta  // its value from the Commit on
	Changes []Set // applied in order
}

// Commit lets the prepared join of that number take effect, at one stroke.
type Commit struct{ Join uint64 }

// Abort forgets the prepared join, if there is one.
type Abort struct{}

func (Set) isRecord()     {}
func (Meta) isRecord()    {}
func (Prepare) isRecord() {}
func (Commit) isRecord()  {}
func (Abort) isRecord()   {}

// Report is what Open found and did.
type Report struct {
	Records  int      // replayed, page images included
	Torn     int64    // bytes cut off the end of the log: a crash left them incomplete
	Old      int64    // bytes cut off that a checkpoint, interrupted by a crash, had left
	Repaired bool     // one of the two header slots was written anew
	Prepared *Prepare // a join without its Commit
}

const (
	pageSize   = 4096
	pageStates = pageSize - 8
	slotSize   = 4096
	pagesAt    = 2 * slotSize
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sum is the checksum of data in a file that belongs to the LUN.
func (id *Identity) sum(data []byte) uint32 {
	return crc32.Update(crc32.Checksum(id.LUN[:], castagnoli), castagnoli, data)
}

// pages is the number of pages that hold all extents.
func (id *Identity) pages() uint64 { return (id.Extents() + pageStates - 1) / pageStates }

// logAt is where the first log of a file begins.
func (id *Identity) logAt() int64 { return pagesAt + int64(id.pages())*pageSize }

// statesIn is how many extents a page holds; fewer than pageStates in the last.
func (id *Identity) statesIn(page uint64) int {
	return int(min(pageStates, id.Extents()-page*pageStates))
}
