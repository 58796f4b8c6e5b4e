package scsi

import (
	"bytes"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/twinlun/twinlun/target/sam"
)

// maxUpdate bounds what a Disk changes with nothing in between, in bytes; volume
// says why. It makes the MAXIMUM COMPARE AND WRITE LENGTH and the MAXIMUM ATOMIC
// TRANSFER LENGTH in VPD page B0h.
const maxUpdate = 128 << 10

// maxCompare is that length in blocks: the CDB has a byte for it.
func (u *unit) maxCompare() uint64 { return min(255, uint64(maxUpdate)>>u.shift) }

// compareForm is the form of COMPARE AND WRITE: 16 bytes, one of them the number of
// blocks.
func compareForm() form { return form{lba: field(2, 8), count: field(13, 1), countAt: 13, size: 16} }

// compareOperation makes COMPARE AND WRITE (SBC-3 5.2). The Data-Out is what must
// be there, and then as much that takes its place.
func compareOperation() operation {
	f := compareForm()
	op := operation{code: api.COMPARE_AND_WRITE, action: noAction, usage: f.usage(bitsDPOFUA)}
	setAll(op.usage[10:14])
	clear(op.usage[10:13])
	op.prepare = func(v *view, c *sam.Command) sense {
		e, s := f.compareExtent(v.unit, c.CDB)
		c.WantOut = 2 * uint32(e.size)
		if !s.failed() && c.ExpectOut != c.WantOut {
			return invalidField(f.countAt) // another number or size of blocks in mind
		}
		return s
	}
	op.execute = func(v *view, c *sam.Command) sense {
		e, s := f.compareExtent(v.unit, c.CDB)
		if s.failed() {
			return s
		}
		c.Needed = 2 * uint32(e.size)
		if len(c.Out) < int(c.Needed) {
			return invalidField(f.countAt)
		}
		return v.unit.compareAndWrite(c, c.Out[:e.size], c.Out[e.size:c.Needed], e)
	}
	return op
}

func (f form) compareExtent(u *unit, cdb []byte) (extent, sense) {
	return f.extent(u, cdb, u.maxCompare()<<u.shift)
}

func (u *unit) compareAndWrite(c *sam.Command, want, put []byte, e extent) sense {
	differs := -1
	s := u.update(c, e, func(p []byte) bool {
		if differs = firstDifference(p, want); differs < 0 {
			copy(p, put)
		}
		return differs < 0
	})
	if differs >= 0 && !s.failed() {
		return miscompareAt(differs)
	}
	return s
}

// firstDifference is where two buffers of the same length differ first, or -1.
func firstDifference(p, q []byte) int {
	if bytes.Equal(p, q) {
		return -1
	}
	for i := range p {
		if p[i] != q[i] {
			return i
		}
	}
	return -1
}

// miscompareAt is MISCOMPARE DURING VERIFY OPERATION with the offset in the Data-Out
// of the first byte that differed, as SBC-3 5.2 wants.
func miscompareAt(at int) sense {
	return sense{key: gotgt.MISCOMPARE, code: gotgt.ASC_MISCOMPARE_DURING_VERIFY_OPERATION,
		informed: true, information: uint32(at)}
}

// orOperation makes ORWRITE (16), SBC-3 5.8, with ORPROTECT 0. A long one is done in
// pieces: who comes in between two of them ORs as well, and the order of ORs does not
// matter, or writes, and then the order of commands is nobody's promise.
func orOperation() operation {
	return storeOperation(api.ORWRITE_16, form16(), bitsDPOFUA, func(v *view, c *sam.Command, data []byte, e extent) sense {
		return v.unit.or(c, data, e)
	})
}

func (u *unit) or(c *sam.Command, data []byte, e extent) (s sense) {
	for len(data) > 0 && !s.failed() {
		n := min(len(data), maxUpdate)
		piece := data[:n]
		s = u.update(c, extent{e.off, int64(n)}, func(p []byte) bool {
			for i, b := range piece {
				p[i] |= b
			}
			return true
		})
		data, e.off = data[n:], e.off+int64(n)
	}
	return s
}

// update has the Disk change an extent; durably with FUA.
func (u *unit) update(c *sam.Command, e extent, change func(p []byte) bool) sense {
	if e.size == 0 {
		return sense{}
	}
	err := u.disk.Update(c.Ctx, e.off, e.size, c.CDB[1]&bitFUA != 0 || u.writeThrough.Load(), change)
	return u.judge(c, err, gotgt.ASC_WRITE_ERROR)
}
