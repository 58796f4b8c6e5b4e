package scsi

import (
	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/twinlun/twinlun/target/sam"
)

// writeAtomic16 is WRITE ATOMIC (16), which gotgt does not know.
const writeAtomic16 api.SCSICommandType = 0x9c

// Fields of its CDB.
const (
	boundaryAt = 10
	atomicAt   = 12
)

// maxAtomic is the MAXIMUM ATOMIC TRANSFER LENGTH, in logical blocks. The whole transfer
// is atomic also if an ATOMIC BOUNDARY allows to divide it.
func (u *unit) maxAtomic() uint64 { return uint64(maxUpdate) >> u.shift }

// atomicUnit is the ATOMIC ALIGNMENT and the ATOMIC TRANSFER LENGTH GRANULARITY, in
// logical blocks: a physical block, which is what hosts take for the least anyway.
func (u *unit) atomicUnit() uint64 { return 1 << u.lu.Attrs.Lbppbe }

// atomicForm is the form of WRITE ATOMIC (16): the number of blocks has two bytes.
func atomicForm() form {
	return form{lba: field(2, 8), count: field(atomicAt, 2), countAt: atomicAt, size: 16}
}

// atomicOperation makes WRITE ATOMIC (16), SBC-4 5.48. It is refused if less data comes
// than the CDB says: a part of it is not what was to be written.
func atomicOperation() operation {
	f := atomicForm()
	op := operation{code: writeAtomic16, action: noAction, usage: f.usage(bitsDPOFUA)}
	op.prepare = func(v *view, c *sam.Command) sense {
		e, s := f.atomicExtent(v.unit, c.CDB)
		c.WantOut = uint32(e.size)
		if !s.failed() && c.ExpectOut != c.WantOut {
			return invalidField(f.countAt) // another number or size of blocks in mind
		}
		return s
	}
	op.execute = func(v *view, c *sam.Command) sense {
		e, s := f.atomicExtent(v.unit, c.CDB)
		if s.failed() {
			return s
		}
		c.Needed = uint32(e.size)
		if len(c.Out) < int(c.Needed) {
			return invalidField(f.countAt)
		}
		return v.unit.writeAtomic(c, c.Out[:e.size], e.off)
	}
	return op
}

// atomicExtent looks at the range first, then at the lengths: so does libiscsi's test.
func (f form) atomicExtent(u *unit, cdb []byte) (extent, sense) {
	lba, count, boundary := f.lba(cdb), f.count(cdb), field(boundaryAt, 2)(cdb)
	switch {
	case !u.contains(lba, count):
		return extent{}, illegal(gotgt.ASC_LBA_OUT_OF_RANGE)
	case lba%u.atomicUnit() != 0:
		return extent{}, invalidField(2)
	case count%u.atomicUnit() != 0 || count > u.maxAtomic():
		return extent{}, invalidField(f.countAt)
	case boundary%u.atomicUnit() != 0 || boundary > u.maxAtomic():
		return extent{}, invalidField(boundaryAt)
	}
	return extent{u.bytes(lba), u.bytes(count)}, sense{}
}

func (u *unit) writeAtomic(c *sam.Command, p []byte, off int64) sense {
	if len(p) == 0 {
		return sense{}
	}
	err := u.disk.WriteAtomic(c.Ctx, p, off, c.CDB[1]&bitFUA != 0 || u.writeThrough.Load())
	return u.judge(c, err, gotgt.ASC_WRITE_ERROR)
}
