package wire

import "github.com/twinlun/twinlun/dirtymap"

// Mark asks the peer to add extents to its record. Control stream.
//
//	0  8  request id
//	8  4  number of ranges, 1 to MaxItems; for each:
//	      first extent u64, number of extents u64
type Mark struct {
	ID     uint64
	Ranges []dirtymap.Range // ascending, disjoint, at least one
}

// Kind implements Message.
func (*Mark) Kind() Kind     { return KindMark }
func (m *Mark) check() error { return checkRanges(m.Ranges) }
func (m *Mark) size() int    { return 12 + rangeSize*len(m.Ranges) }

func (m *Mark) appendBody(b *Batch) {
	b.u64(m.ID)
	b.ranges(m.Ranges)
}

func (m *Mark) parseBody(p *parser) {
	m.ID = p.u64()
	m.Ranges = p.ranges()
}
