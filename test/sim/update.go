package sim

import (
	"fmt"
	"slices"
)

// beginUpdate notes that an update begins, and returns it.
func (h *history) beginUpdate(site int, s span) *op {
	o := h.beginWrite(site, s, false)
	o.update = true
	return o
}

// endUpdate checks what an update saw, and notes what it wrote, if it did.
func (h *history) endUpdate(o *op, saw []byte, wrote, fua bool, has func(off int64) bool) error {
	if err := h.endRead(o.site, o.span, saw, o.begin, has); err != nil {
		return err
	}
	if err := h.wholeUpdates(o, saw); err != nil {
		return err
	}
	if !wrote {
		h.undo(o)
		return nil
	}
	if err := h.endWrite(o, o.span, fua); err != nil {
		return err
	}
	for i := range o.span.n {
		if err := h.replace(o, o.span.first+i, value8(saw[i*sectorSize:])); err != nil {
			return fmt.Errorf("sector %d: %w", o.span.first+i, err)
		}
	}
	return nil
}

// undo takes a write out that surely did not happen: nobody may read it.
func (h *history) undo(o *op) {
	delete(h.ops, o.id)
	for i := range o.span.n {
		r := &h.registers[o.span.first+i]
		r.values = slices.DeleteFunc(r.values, func(v *value) bool { return v.op == o })
	}
}

// replace joins what an update saw in a sector with what it wrote there, when there
// is no doubt which values these are.
func (h *history) replace(o *op, sector int, saw uint64) error {
	r := &h.registers[sector]
	old, now := r.candidates(saw, h), r.of(o)
	if len(old) != 1 || now == nil || o.begin < r.epoch {
		return nil
	}
	if other := old[0].next; other != nil {
		return fmt.Errorf("a lost update: %s and %s both replaced %s", other, now, old[0])
	}
	old[0].next = now
	return r.contradiction(now)
}

// of is the value that a write has put into the register, if it is there.
func (r *register) of(o *op) *value {
	for _, v := range r.values {
		if v.op == o {
			return v
		}
	}
	return nil
}

// wholeUpdates checks that an update saw other updates whole or not at all: not one of
// their sectors, and in another one what was there before.
func (h *history) wholeUpdates(o *op, saw []byte) error {
	seen := map[*op]bool{}
	for i := range o.span.n {
		u := h.ops[value8(saw[i*sectorSize:])]
		if u == nil || !u.update || u.dead || seen[u] {
			continue
		}
		seen[u] = true
		for j := range o.span.n {
			if err := h.wholeAt(u, o.span.first+j, value8(saw[j*sectorSize:])); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h *history) wholeAt(u *op, sector int, saw uint64) error {
	r := &h.registers[sector]
	its, there := r.of(u), r.candidates(saw, h)
	if its == nil || len(there) != 1 || there[0] == its || !there[0].before(its) {
		return nil
	}
	return fmt.Errorf("sector %d: half of update %d: still %s", sector, u.id, there[0])
}
