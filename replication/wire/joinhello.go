package wire

// JoinHello begins the joining of two replicas of a LUN. Control stream, as all
// of the join.
//
//	 0  16  LUN
//	16  16  history
//	32   8  size
//	40   4  extent size
//	44   1  bit 0 preferred, 1 blank, 2 crashed, 3 restarted, 4 alone, 5 fork; others 0
//	45   8  committed
//	53   8  prepared
//	61  16  proposal
//	77   8  want
//	85   4  block size
//	89   8  term
//	97  16  term's name
//	113  8  term in which it served alone
//	121  8  least
type JoinHello struct {
	LUN        [16]byte // UUID
	History    [16]byte // which history the replica belongs to; zero: none yet
	Size       uint64   // bytes
	ExtentSize uint32   // bytes
	Preferred  bool     // the sender is the LUN's preferred node
	Blank      bool     // no history, and every byte is zero
	Crashed    bool     // the operating system went down since the replica was last open
	Restarted  bool     // the process did: which blocks are dirty is forgotten
	Alone      bool     // the sender serves hosts alone, by the word of Term
	Committed  uint64   // number of the last join that took effect here
	Prepared   uint64   // number of a join that is prepared here and not committed; 0: none
	Proposal   [16]byte // random: the preferred node's names a new history
	Want       uint64   // bytes that the sender has room for, Size or more: the LUN may grow to it
	BlockSize  uint32   // of the logical blocks that hosts see, bytes
	Term       uint64   // of the last change of who serves that the sender knows
	TermID     [16]byte // random: tells apart two changes that were made at once
	AloneTerm  uint64   // the last Term in which it served alone since it last joined; 0: it did not
	Fork       bool     // and what it served then is not what the cluster has agreed upon
	Least      uint64   // the join is numbered above that: the cluster has heard of one with this number
}

const joinHelloSize = 129

// Kind implements Message.
func (*JoinHello) Kind() Kind { return KindJoinHello }
func (*JoinHello) size() int  { return joinHelloSize }

// check leaves the geometry to the joining: two that differ are for the operator
// to hear of, not a damaged frame.
func (*JoinHello) check() error { return nil }

func (m *JoinHello) appendBody(b *Batch) {
	b.bytes(m.LUN[:])
	b.bytes(m.History[:])
	b.u64(m.Size)
	b.u32(m.ExtentSize)
	b.u8(joinFlags(m.Preferred, m.Blank, m.Crashed, m.Restarted, m.Alone, m.Fork))
	b.u64(m.Committed)
	b.u64(m.Prepared)
	b.bytes(m.Proposal[:])
	b.u64(m.Want)
	b.u32(m.BlockSize)
	b.u64(m.Term)
	b.bytes(m.TermID[:])
	b.u64(m.AloneTerm)
	b.u64(m.Least)
}

func (m *JoinHello) parseBody(p *parser) {
	m.LUN = p.array16()
	m.History = p.array16()
	m.Size = p.u64()
	m.ExtentSize = p.u32()
	f := p.u8()
	if f > 63 {
		p.fail("unknown flags %#02x", f)
	}
	m.Preferred, m.Blank, m.Crashed, m.Restarted, m.Alone = f&1 != 0, f&2 != 0, f&4 != 0, f&8 != 0, f&16 != 0
	m.Fork = f&32 != 0
	m.Committed = p.u64()
	m.Prepared = p.u64()
	m.Proposal = p.array16()
	m.Want = p.u64()
	m.BlockSize = p.u32()
	m.Term = p.u64()
	m.TermID = p.array16()
	m.AloneTerm = p.u64()
	m.Least = p.u64()
}

func joinFlags(bits ...bool) (f uint8) {
	for i, set := range bits {
		if set {
			f |= 1 << i
		}
	}
	return f
}
