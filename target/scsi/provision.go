package scsi

import (
	"encoding/binary"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/twinlun/twinlun/target/sam"
)

// Limits told in VPD page B0h: they bound how long one command keeps the medium
// busy. WRITE SAME's is lower because its pattern may have to be written.
const (
	maxUnmap       = 512 << 20 // bytes, all ranges of a command together
	maxUnmapRanges = 256
	maxWriteSame   = MaxTransfer // bytes, as of a WRITE

	unmapHeader = 8
	unmapRange  = 16

	// scratchSize is how much WRITE SAME writes, and VERIFY reads, at a time.
	scratchSize = 256 << 10
)

// unmapOperation makes UNMAP (SBC-3 5.28). Parameter list, big endian:
//
//	offset size
//	     0    2  length of what follows
//	     2    2  length of the ranges, n·16
//	     8   16  a range: LBA u64, number of blocks u32, reserved u32
//	     …
//
// All ranges are checked before the first is unmapped.
func unmapOperation() operation {
	size := field(7, 2)
	return operation{
		code: api.UNMAP, action: noAction,
		usage: []byte{0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0},
		prepare: func(_ *view, c *sam.Command) sense {
			c.WantOut = uint32(size(c.CDB))
			return sense{}
		},
		execute: func(v *view, c *sam.Command) sense {
			c.Needed = uint32(size(c.CDB))
			if c.Needed == 0 {
				return sense{}
			}
			return v.unit.unmap(c, c.Out[:min(len(c.Out), int(c.Needed))])
		},
	}
}

func (u *unit) unmap(c *sam.Command, list []byte) sense {
	ranges, s := u.unmapRanges(c, list)
	for i := 0; i < len(ranges) && !s.failed(); i += unmapRange {
		s = u.unmapOne(c, ranges[i:])
	}
	return s
}

// unmapRanges checks a parameter list and returns its ranges.
func (u *unit) unmapRanges(c *sam.Command, list []byte) ([]byte, sense) {
	if len(list) < unmapHeader || len(list) < int(c.Needed) {
		return nil, illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
	}
	size := int(binary.BigEndian.Uint16(list[2:]))
	if size > len(list)-unmapHeader {
		return nil, illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
	}
	if int(binary.BigEndian.Uint16(list)) < size+unmapHeader-2 {
		return nil, invalidParameter(0)
	}
	if size/unmapRange > maxUnmapRanges {
		return nil, invalidParameter(2)
	}
	ranges := list[unmapHeader : unmapHeader+size/unmapRange*unmapRange]
	return ranges, u.checkRanges(ranges)
}

func (u *unit) checkRanges(ranges []byte) sense {
	total := uint64(0)
	for i := 0; i < len(ranges); i += unmapRange {
		lba, count := rangeAt(ranges[i:])
		if total += count; total > maxUnmap>>u.shift {
			return invalidParameter(unmapHeader + i + 8)
		}
		if !u.contains(lba, count) {
			return illegal(gotgt.ASC_LBA_OUT_OF_RANGE)
		}
	}
	return sense{}
}

func rangeAt(p []byte) (lba, count uint64) {
	return binary.BigEndian.Uint64(p), uint64(binary.BigEndian.Uint32(p[8:]))
}

func (u *unit) unmapOne(c *sam.Command, p []byte) sense {
	lba, count := rangeAt(p)
	return u.zero(c, extent{u.bytes(lba), u.bytes(count)})
}

func (u *unit) zero(c *sam.Command, e extent) sense {
	if e.size == 0 {
		return sense{}
	}
	return u.judge(c, u.disk.Zero(c.Ctx, e.off, e.size, u.writeThrough.Load()), gotgt.ASC_WRITE_ERROR)
}

// writeSameOperation makes a WRITE SAME (SBC-3 5.43, 5.44). A block of zeros, or
// none (NDOB), is stored as a hole, with or without the UNMAP bit: it reads the
// same. Any other block is written.
func writeSameOperation(code api.SCSICommandType, f form, byte1 byte) operation {
	op := operation{code: code, action: noAction, usage: f.usage(byte1)}
	op.prepare = func(v *view, c *sam.Command) sense {
		_, s := f.writeSameExtent(v.unit, c.CDB)
		c.WantOut = writeSameData(v.unit, c.CDB)
		if !s.failed() && c.ExpectOut != c.WantOut {
			return invalidField(f.countAt) // another block size in mind: not our pattern
		}
		return s
	}
	op.execute = func(v *view, c *sam.Command) sense {
		e, s := f.writeSameExtent(v.unit, c.CDB)
		if s.failed() {
			return s
		}
		c.Needed = writeSameData(v.unit, c.CDB)
		if len(c.Out) < int(c.Needed) {
			return invalidField(f.countAt)
		}
		return v.unit.writeSame(c, c.Out[:c.Needed], e)
	}
	return op
}

// writeSameExtent refuses 0 blocks, which would mean all up to the last one: B0h
// says so (WSNZ).
func (f form) writeSameExtent(u *unit, cdb []byte) (extent, sense) {
	if f.count(cdb) == 0 {
		return extent{}, invalidField(f.countAt)
	}
	return f.extent(u, cdb, maxWriteSame)
}

// writeSameData is how many bytes of Data-Out a WRITE SAME takes.
func writeSameData(u *unit, cdb []byte) uint32 {
	if cdb[1]&bitNDOB != 0 {
		return 0
	}
	return 1 << u.shift
}

func (u *unit) writeSame(c *sam.Command, block []byte, e extent) sense {
	if allZero(block) {
		return u.zero(c, e)
	}
	scratch := u.target.borrow()
	defer u.target.giveBack(scratch)
	pattern := scratch[:min(int64(len(scratch)), e.size)]
	for n := copy(pattern, block); n < len(pattern); n *= 2 {
		copy(pattern[n:], pattern[:n])
	}
	for done := int64(0); done < e.size; done += int64(len(pattern)) {
		p := pattern[:min(int64(len(pattern)), e.size-done)]
		if s := u.write(c, p, e.off+done, false); s.failed() {
			return s
		}
	}
	return sense{}
}

func allZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

func (t *Device) borrow() *[scratchSize]byte {
	if p, ok := t.scratch.Get().(*[scratchSize]byte); ok {
		return p
	}
	return new([scratchSize]byte)
}

func (t *Device) giveBack(p *[scratchSize]byte) { t.scratch.Put(p) }
