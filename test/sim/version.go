package sim

import (
	"fmt"
	"maps"
	"slices"
)

// branch makes another version of the history, which is the same up to now.
func (h *history) branch() *history {
	b := &history{record: h.record, registers: make([]register, len(h.registers)), blocks: slices.Clone(h.blocks), at: h.tick()}
	for i := range h.registers {
		b.registers[i] = h.registers[i].clone()
	}
	return b
}

func (r *register) clone() register {
	copies := make([]value, len(r.values))
	c := register{values: make([]*value, len(r.values)), epoch: r.epoch}
	for i, v := range r.values {
		copies[i] = *v
		c.values[i] = &copies[i]
	}
	for i, v := range r.values {
		if v.next != nil {
			c.values[i].next = nil
			if j := slices.Index(r.values, v.next); j >= 0 {
				c.values[i].next = c.values[j]
			}
		}
	}
	return c
}

// unanswered adds what a site was told to write since this version began, and has not
// acknowledged: it may have done that, or a part of it.
func (h *history) unanswered(site int) {
	for _, id := range slices.Sorted(maps.Keys(h.ops)) {
		o := h.ops[id]
		if o.site != site || o.begin < h.at || o.end != 0 {
			continue
		}
		for i := o.span.first; i < o.span.first+o.span.n; i++ {
			if r := &h.registers[i]; r.of(o) == nil {
				r.values = append(r.values, &value{op: o, first: forever, last: o.begin})
			}
		}
	}
}

// choice is the site whose version of an extent stays.
type choice struct {
	span
	site int
}

// merge makes one version of two, when the sites have joined: of every extent one site's,
// with all that was written there, and with nothing that was acknowledged at the other
// one alone.
func merge(versions [2]*history, choices []choice) *history {
	h := &history{record: versions[0].record, registers: slices.Clone(versions[0].registers), blocks: slices.Clone(versions[0].blocks)}
	h.loosen(choices)
	for _, c := range choices {
		from := versions[c.site]
		for i := c.first; i < c.first+c.n; i++ {
			h.registers[i] = from.registers[i]
			h.registers[i].takePending(versions[1-c.site].registers[i])
			h.blocks[i/8] = from.blocks[i/8]
		}
	}
	return h
}

// takePending takes over the writes of the other version that wait: they may be carried out
// now. None of them will be answered.
func (r *register) takePending(other register) {
	for _, v := range other.values {
		if v.pending() && !v.op.dead && r.of(v.op) == nil {
			r.values = append(r.values, &value{op: v.op, first: forever, last: v.op.begin})
		}
	}
}

// loosen: what an atomic write has put into two extents does not stay together if they
// stay as different sites have them.
func (h *history) loosen(choices []choice) {
	site := func(sector int) int {
		for _, c := range choices {
			if sector >= c.first && sector < c.first+c.n {
				return c.site
			}
		}
		return -1
	}
	for _, o := range h.ops {
		for _, c := range choices {
			o.loose = o.loose || o.atomic && o.span.overlaps(c.span) && site(o.span.first) != c.site
		}
	}
}

func (s span) overlaps(o span) bool { return s.first < o.first+o.n && o.first < s.first+s.n }

// lastHere is when the last write since a moment was acknowledged at a site; 0: none was.
func (r *register) lastHere(site int, since int64) (end int64) {
	for _, v := range r.values {
		if v.op != nil && v.op.site == site && v.first != forever && v.op.begin > since {
			end = max(end, v.op.end)
		}
	}
	return end
}

// kept is what a site has put into salvage files since its version is one of its own.
type kept map[int]int64 // by sector: when that was last

// lacks looks for a write in a span that was acknowledged at a site since a moment, and was
// not kept after that.
func (h *history) lacks(site int, s span, since int64, k kept) error {
	for i := s.first; i < s.first+s.n; i++ {
		if end := h.registers[i].lastHere(site, since); end > k[i] {
			return fmt.Errorf("sector %d: what site %d has acknowledged alone (until %d) is given up, and was salvaged last at %d: %s", i, site, end, k[i], &h.registers[i])
		}
	}
	return nil
}
