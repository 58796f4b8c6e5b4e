package wire

import (
	"fmt"

	"github.com/twinlun/twinlun/dirtymap"
)

// FeatureVerify: the sender understands Verify and Resend, and answers each.
const FeatureVerify = 1 << 3

// Digest stands for a block's bytes: the first half of their SHA-256. That is enough
// for blocks that differ by accident, needs no word on which accidents it finds, and
// processors that are for sale compute it faster than disks read.
type Digest [16]byte

// maxDigests is how many blocks the largest extent has.
const maxDigests = dirtymap.MaxExtentSize / dirtymap.BlockSize

// Verify asks for an extent of the peer's replica, to be compared. Control stream.
//
//	0   8  request id
//	8   8  extent
//	16  1  1: the sender is STALE, the peer is to compare; 0: its digests, please
type Verify struct {
	ID, Extent uint64
	Compare    bool
}

// Kind implements Message.
func (*Verify) Kind() Kind     { return KindVerify }
func (m *Verify) check() error { return checkExtent(m.Extent) }
func (m *Verify) size() int    { return 17 }

func (m *Verify) appendBody(b *Batch) {
	b.u64(m.ID)
	b.u64(m.Extent)
	b.flag(m.Compare)
}

func (m *Verify) parseBody(p *parser) {
	m.ID, m.Extent, m.Compare = p.u64(), p.u64(), p.flag()
}

// Verified answers a Verify. Control stream.
//
//	0    8    request id
//	8    8    extent
//	16   1    outcome
//	17   1    1: the sender owns the extent, else 0
//	18   32   Differ, block 0 is bit 0 of the first u64
//	50   32   Skipped
//	82   2    n, number of digests: 0, or one for each block of the extent
//	84   16n  digests
type Verified struct {
	ID, Extent uint64
	Outcome    VerifyOutcome
	Owned      bool          // the sender owned the extent when it compared
	Differ     dirtymap.Mask // compared: blocks that are not the same at both
	Skipped    dirtymap.Mask // compared: blocks that were about to be copied
	Digests    []Digest
}

// VerifyOutcome is what became of a Verify.
type VerifyOutcome uint8

// The outcomes of a Verify.
const (
	VerifyBusy     VerifyOutcome = 1 // the extent was changing hands: later, perhaps
	VerifyFailed   VerifyOutcome = 2 // a replica cannot be read
	VerifyDigests  VerifyOutcome = 3 // here are the digests
	VerifyCompared VerifyOutcome = 4 // by the sender
)

// Kind implements Message.
func (*Verified) Kind() Kind  { return KindVerified }
func (m *Verified) size() int { return 84 + 16*len(m.Digests) }

func (m *Verified) check() error {
	switch {
	case m.Outcome < VerifyBusy || m.Outcome > VerifyCompared:
		return fmt.Errorf("unknown outcome %d", m.Outcome)
	case len(m.Digests) > maxDigests:
		return fmt.Errorf("%d digests, at most %d", len(m.Digests), maxDigests)
	case (len(m.Digests) > 0) != (m.Outcome == VerifyDigests):
		return fmt.Errorf("outcome %d with %d digests", m.Outcome, len(m.Digests))
	case m.Outcome != VerifyCompared && !m.Differ.Or(m.Skipped).Empty():
		return fmt.Errorf("outcome %d with blocks that were compared", m.Outcome)
	case !m.Differ.And(m.Skipped).Empty():
		return fmt.Errorf("blocks %x differ and were not compared", m.Differ.And(m.Skipped))
	}
	return checkExtent(m.Extent)
}

func (m *Verified) appendBody(b *Batch) {
	b.u64(m.ID)
	b.u64(m.Extent)
	b.u8(uint8(m.Outcome))
	b.flag(m.Owned)
	b.mask(m.Differ)
	b.mask(m.Skipped)
	b.u16(uint16(len(m.Digests)))
	for i := range m.Digests {
		b.bytes(m.Digests[i][:])
	}
}

func (m *Verified) parseBody(p *parser) {
	m.ID, m.Extent = p.u64(), p.u64()
	m.Outcome, m.Owned = VerifyOutcome(p.u8()), p.flag()
	m.Differ, m.Skipped = p.mask(), p.mask()
	n := int(p.u16())
	if n > maxDigests || n*16 != len(p.rest) {
		p.fail("%d digests in %d bytes", n, len(p.rest))
		return
	}
	if n == 0 {
		return
	}
	m.Digests = make([]Digest, n)
	for i := range m.Digests {
		m.Digests[i] = p.array16()
	}
}

// Resend asks the peer to make these blocks, which differ, the same at both: what it has
// is to count. Control stream.
//
//	0   8   request id
//	8   8   extent
//	16  32  blocks, at least one; block 0 is bit 0 of the first u64
type Resend struct {
	ID, Extent uint64
	Blocks     dirtymap.Mask
}

// Kind implements Message.
func (*Resend) Kind() Kind  { return KindResend }
func (m *Resend) size() int { return 48 }

func (m *Resend) check() error {
	if m.Blocks.Empty() {
		return fmt.Errorf("extent %d: no blocks", m.Extent)
	}
	return checkExtent(m.Extent)
}

func (m *Resend) appendBody(b *Batch) {
	b.u64(m.ID)
	b.u64(m.Extent)
	b.mask(m.Blocks)
}

func (m *Resend) parseBody(p *parser) {
	m.ID, m.Extent, m.Blocks = p.u64(), p.u64(), p.mask()
}

// Resent answers a Resend. Control stream.
//
//	0  8  request id
//	8  1  1: the blocks are on their way; 0: they cannot be sent now
type Resent struct {
	ID uint64
	OK bool
}

// Kind implements Message.
func (*Resent) Kind() Kind            { return KindResent }
func (m *Resent) check() error        { return nil }
func (m *Resent) size() int           { return 9 }
func (m *Resent) appendBody(b *Batch) { b.u64(m.ID); b.flag(m.OK) }
func (m *Resent) parseBody(p *parser) { m.ID, m.OK = p.u64(), p.flag() }

func checkExtent(ext uint64) error {
	if ext >= MaxExtents {
		return fmt.Errorf("extent %d: there are at most %d", ext, uint64(MaxExtents))
	}
	return nil
}

func (b *Batch) mask(m dirtymap.Mask) {
	for _, bits := range m {
		b.u64(bits)
	}
}

func (p *parser) mask() (m dirtymap.Mask) {
	for i := range m {
		m[i] = p.u64()
	}
	return m
}
