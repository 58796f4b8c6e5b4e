package wire

import "github.com/twinlun/twinlun/dirtymap"

// Clear takes extents out of the peer's record. Control stream.
//
//	0  4  number of ranges, 1 to MaxItems; for each:
//	      first extent u64, number of extents u64
type Clear struct {
	Ranges []dirtymap.Range // ascending, disjoint, at least one
}

// Kind implements Message.
func (*Clear) Kind() Kind            { return KindClear }
func (m *Clear) check() error        { return checkRanges(m.Ranges) }
func (m *Clear) size() int           { return 4 + rangeSize*len(m.Ranges) }
func (m *Clear) appendBody(b *Batch) { b.ranges(m.Ranges) }
func (m *Clear) parseBody(p *parser) { m.Ranges = p.ranges() }
