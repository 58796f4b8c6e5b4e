package wire

import (
	"fmt"

	"github.com/twinlun/twinlun/dirtymap"
)

// rangeSize is a range's length: first extent u64, number of extents u64.
const rangeSize = 16

func (b *Batch) extents(r dirtymap.Range) {
	b.u64(r.First)
	b.u64(r.Count)
}

func (p *parser) extents() dirtymap.Range {
	return dirtymap.Range{First: p.u64(), Count: p.u64()}
}

func (b *Batch) ranges(list []dirtymap.Range) {
	b.u32(uint32(len(list)))
	for _, r := range list {
		b.extents(r)
	}
}

func (p *parser) ranges() []dirtymap.Range {
	n := p.count(rangeSize)
	if n == 0 {
		return nil
	}
	list := make([]dirtymap.Range, n)
	for i := range list {
		list[i] = p.extents()
	}
	return list
}

// checkRange: not empty, and inside the largest LUN.
func checkRange(r dirtymap.Range) error {
	if r.Count == 0 || r.First >= MaxExtents || r.Count > MaxExtents-r.First {
		return fmt.Errorf("range of %d extents from %d on", r.Count, r.First)
	}
	return nil
}

// checkRanges: at least one, all of them in order, ascending and disjoint.
func checkRanges(list []dirtymap.Range) error {
	if len(list) == 0 || len(list) > MaxItems {
		return fmt.Errorf("%d ranges, must be 1 to %d", len(list), MaxItems)
	}
	end := uint64(0)
	for _, r := range list {
		if err := checkRange(r); err != nil {
			return err
		}
		if r.First < end {
			return fmt.Errorf("range from extent %d on, after one that ends at %d", r.First, end)
		}
		end = r.End()
	}
	return nil
}

// checkTurn: two bits.
func checkTurn(turn uint8) error {
	if turn > 3 {
		return fmt.Errorf("turn is %d, must be 0 to 3", turn)
	}
	return nil
}
