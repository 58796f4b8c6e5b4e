package wire

import (
	"fmt"

	"github.com/twinlun/twinlun/dirtymap"
)

// MarkAck answers a Mark, in one or several parts: each extent once. Control stream.
//
//	0  8  request id
//	8  4  number of grants, up to MaxItems; for each:
//	      first extent u64, number of extents u64, busy u8 (0 or 1), turn u8
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

const grantSize = rangeSize + 2

// Kind implements Message.
func (*MarkAck) Kind() Kind  { return KindMarkAck }
func (m *MarkAck) size() int { return 12 + grantSize*len(m.Grants) }

func (m *MarkAck) check() error {
	if len(m.Grants) > MaxItems {
		return fmt.Errorf("%d grants, at most %d", len(m.Grants), MaxItems)
	}
	for _, g := range m.Grants {
		if err := checkRange(g.Range); err != nil {
			return err
		}
		if err := checkTurn(g.Turn); err != nil {
			return err
		}
	}
	return nil
}

func (m *MarkAck) appendBody(b *Batch) {
	b.u64(m.ID)
	b.u32(uint32(len(m.Grants)))
	for _, g := range m.Grants {
		b.extents(g.Range)
		b.flag(g.Busy)
		b.u8(g.Turn)
	}
}

func (m *MarkAck) parseBody(p *parser) {
	m.ID = p.u64()
	n := p.count(grantSize)
	if n == 0 {
		return
	}
	m.Grants = make([]Grant, n)
	for i := range m.Grants {
		m.Grants[i] = Grant{Range: p.extents(), Busy: p.flag(), Turn: p.u8()}
	}
}
