package scsi

import (
	"bytes"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/twinlun/twinlun/target/sam"
)

// BYTCHK of VERIFY (SBC-3 5.29): what the medium is compared with.
const (
	checkMedium   = 0 // nothing: it must be readable
	checkData     = 1 // the Data-Out
	checkOneBlock = 3 // one block of Data-Out, again and again
)

func byteCheck(cdb []byte) byte { return cdb[1] >> 1 & 3 }

// verifyOperation makes a VERIFY (SBC-3 5.29 to 5.31).
func verifyOperation(code api.SCSICommandType, f form) operation {
	op := operation{code: code, action: noAction, access: accessReads, usage: f.usage(bitsVerify)}
	op.prepare = func(v *view, c *sam.Command) sense {
		e, s := f.extent(v.unit, c.CDB, MaxTransfer)
		if !s.failed() && byteCheck(c.CDB) == 2 {
			return invalidBits(1, 0x06)
		}
		c.WantOut = verifyData(v.unit, c.CDB, e)
		return s
	}
	op.execute = func(v *view, c *sam.Command) sense {
		e, s := f.extent(v.unit, c.CDB, MaxTransfer)
		if s.failed() {
			return s
		}
		c.Needed = verifyData(v.unit, c.CDB, e)
		if len(c.Out) < int(c.Needed) {
			return invalidField(f.countAt) // not all of it could be compared
		}
		return v.unit.verify(c, c.Out[:c.Needed], e)
	}
	return op
}

// writeVerifyOperation makes a WRITE AND VERIFY (SBC-3 5.36 to 5.38). What is read
// again, and with BYTCHK 1 compared, is on the medium by then.
func writeVerifyOperation(code api.SCSICommandType, f form) operation {
	op := storeOperation(code, f, bitsVerify, func(v *view, c *sam.Command, data []byte, e extent) sense {
		if s := v.unit.write(c, data, e.off, true); s.failed() {
			return s
		}
		if byteCheck(c.CDB) == checkMedium {
			data = nil
		}
		return v.unit.verify(c, data, e)
	})
	take := op.prepare
	op.prepare = func(v *view, c *sam.Command) sense {
		if s := take(v, c); s.failed() || byteCheck(c.CDB) <= checkData {
			return s
		}
		return invalidBits(1, c.CDB[1]&0x06)
	}
	return op
}

// verifyData is how many bytes of Data-Out a VERIFY takes.
func verifyData(u *unit, cdb []byte, e extent) uint32 {
	switch byteCheck(cdb) {
	case checkData:
		return uint32(e.size)
	case checkOneBlock:
		return uint32(min(e.size, 1<<u.shift))
	}
	return 0
}

// verify reads an extent, piece by piece, and compares it with data, which
// repeats if it is shorter. No data: nothing to compare with.
func (u *unit) verify(c *sam.Command, data []byte, e extent) sense {
	scratch := u.target.borrow()
	defer u.target.giveBack(scratch)
	for done := int64(0); done < e.size; {
		p := scratch[:min(scratchSize, e.size-done)]
		if s := u.read(c, p, e.off+done); s.failed() {
			return s
		}
		if len(data) > 0 && !repeats(p, data, done) {
			return sense{key: gotgt.MISCOMPARE, code: gotgt.ASC_MISCOMPARE_DURING_VERIFY_OPERATION}
		}
		done += int64(len(p))
	}
	return sense{}
}

// repeats tells whether p is data, repeated, from the given offset on.
func repeats(p, data []byte, from int64) bool {
	for len(p) > 0 {
		want := data[from%int64(len(data)):]
		n := min(len(p), len(want))
		if !bytes.Equal(p[:n], want[:n]) {
			return false
		}
		p, from = p[n:], from+int64(n)
	}
	return true
}
