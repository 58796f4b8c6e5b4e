package volume

import (
	"fmt"

	"github.com/twinlun/twinlun/dirtymap"
)

// Mapped tells whether there may be data at off, and for how many bytes from there,
// at most n, that holds. Where it says no, the LUN reads as zeros. It never waits:
// what this site does not know for sure counts as data.
func (v *Volume) Mapped(off, n int64) (mapped bool, run int64, err error) {
	if off < 0 || n < 1 || n > v.geo.Size-off {
		return false, 0, fmt.Errorf("ask for %d bytes at offset %d: the LUN has %d", n, off, v.geo.Size)
	}
	n = min(n, window)
	if !v.m.Begin() {
		return true, n, nil
	}
	all := v.geo.Covering(off, n)
	if known := v.enter(access{kind: read}, all); known.Count > 0 {
		mapped, run, err = v.r.Mapped(off, min(n, v.geo.Offset(known.End())-off))
		v.exit(known)
	} else {
		mapped, run = true, min(n, v.geo.Offset(v.unknown(all))-off)
	}
	if v.m.End() {
		v.r.Quiet()
	}
	return mapped, run, err
}

// unknown is where the extents end, at the front of a range, whose local replica says
// nothing.
func (v *Volume) unknown(r dirtymap.Range) (end uint64) {
	for end = r.First + 1; end < r.End() && !v.m.State(end).Allows(false); end++ {
	}
	return end
}

// Provisioning tells how many bytes of this site's medium the LUN takes, and how many
// more it could get, it or others. Not ok: it cannot be told.
func (v *Volume) Provisioning() (used, available int64, ok bool) {
	s, ok := v.r.Space()
	return s.Used, s.Available, ok
}
