package wire

import "github.com/twinlun/twinlun/dirtymap"

// Fetch asks the owner for the newest data of extents. Control stream.
//
//	0  8  request id
//	8  1  1: and for their ownership; else 0
//	9  4  number of ranges, 1 to MaxItems; for each:
//	      first extent u64, number of extents u64
type Fetch struct {
	ID     uint64
	Own    bool             // and for their ownership
	Ranges []dirtymap.Range // ascending, disjoint, at least one
}

// Kind implements Message.
func (*Fetch) Kind() Kind     { return KindFetch }
func (m *Fetch) check() error { return checkRanges(m.Ranges) }
func (m *Fetch) size() int    { return 13 + rangeSize*len(m.Ranges) }

func (m *Fetch) appendBody(b *Batch) {
	b.u64(m.ID)
	b.flag(m.Own)
	b.ranges(m.Ranges)
}

func (m *Fetch) parseBody(p *parser) {
	m.ID = p.u64()
	m.Own = p.flag()
	m.Ranges = p.ranges()
}
