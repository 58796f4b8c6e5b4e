package sim

import "fmt"

// wholeAtomics checks that a read saw atomic writes whole or not at all: not one of
// their sectors, and in another one what was surely there before.
func (h *history) wholeAtomics(s span, p []byte) error {
	seen := map[*op]bool{}
	for i := range s.n {
		o := h.ops[value8(p[i*sectorSize:])]
		if o == nil || !o.atomic || o.loose || seen[o] {
			continue
		}
		seen[o] = true
		for j := range s.n {
			sector, got := s.first+j, value8(p[j*sectorSize:])
			if sector < o.span.first || sector >= o.span.first+o.span.n || got == o.id {
				continue
			}
			h.parted++
			if h.earlier(sector, got, o) {
				return fmt.Errorf("a part of atomic write %d (site %d, %d-%d): sector %d has it, and sector %d still %d",
					o.id, o.site, o.begin, o.end, s.first+i, sector, got)
			}
		}
	}
	return nil
}

// earlier tells whether a value of a sector was surely there before a write began.
func (h *history) earlier(sector int, got uint64, o *op) bool {
	if got != 0 {
		u := h.ops[got]
		return u != nil && u.end != 0 && u.end < o.begin
	}
	for _, z := range h.ops { // one that zeroed it, later or perhaps
		if z.zero && sector >= z.span.first && sector < z.span.first+z.span.n && (z.end == 0 || z.end >= o.begin) {
			return false
		}
	}
	return true
}
