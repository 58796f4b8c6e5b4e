package scsi

import (
	"time"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/twinlun/twinlun/target/sam"
)

// Bits of byte 1 of the CDBs that address blocks (SBC-3 5).
const (
	bitFUA     = 0x08
	bitUnmap   = 0x08 // WRITE SAME
	bitNDOB    = 0x01 // WRITE SAME (16)
	bitsDPOFUA = 0x18
	bitsVerify = 0x16 // DPO, BYTCHK
	bitsSync   = 0x06 // SYNC_NV (obsolete), IMMED; status comes when all is synced anyway
)

// form tells where a CDB has its logical block address and number of blocks.
type form struct {
	lba, count length
	countAt    int // for field pointers
	size       int // of the CDB
}

func form6() form {
	return form{countAt: 4, size: 6,
		lba: func(cdb []byte) uint64 { return uint64(cdb[1]&0x1f)<<16 | uint64(cdb[2])<<8 | uint64(cdb[3]) },
		count: func(cdb []byte) uint64 {
			if cdb[4] == 0 {
				return 256
			}
			return uint64(cdb[4])
		}}
}
func form10() form { return form{lba: field(2, 4), count: field(7, 2), countAt: 7, size: 10} }
func form12() form { return form{lba: field(2, 4), count: field(6, 4), countAt: 6, size: 12} }
func form16() form { return form{lba: field(2, 8), count: field(10, 4), countAt: 10, size: 16} }

// usage is the CDB usage map of a form, given the bits of byte 1.
func (f form) usage(byte1 byte) []byte {
	u := make([]byte, f.size)
	u[1] = byte1
	switch f.size {
	case 6:
		return []byte{0, byte1, 0xff, 0xff, 0xff, 0}
	case 10:
		setAll(u[2:6])
		setAll(u[7:9])
	case 12:
		setAll(u[2:10])
	case 16:
		setAll(u[2:14])
	}
	return u
}

func setAll(p []byte) {
	for i := range p {
		p[i] = 0xff
	}
}

// extent is a checked range of a Disk, in bytes.
type extent struct{ off, size int64 }

// extent reads and checks the range that a CDB addresses: no more than most
// bytes, inside the medium.
func (f form) extent(u *unit, cdb []byte, most uint64) (extent, sense) {
	lba, count := f.lba(cdb), f.count(cdb)
	if count > most>>u.shift {
		return extent{}, invalidField(f.countAt)
	}
	if !u.contains(lba, count) {
		return extent{}, illegal(gotgt.ASC_LBA_OUT_OF_RANGE)
	}
	return extent{u.bytes(lba), u.bytes(count)}, sense{}
}

// contains tells whether the medium has these blocks. An empty range may begin
// where the medium ends.
func (u *unit) contains(lba, count uint64) bool {
	blocks := u.blocks()
	return lba <= blocks && count <= blocks-lba
}

// mediumOperations are those that reach the Disk.
func mediumOperations() []operation {
	return append(append(defectOperations(), copyOperations()...),
		readOperation(api.READ_6, form6(), 0x1f),
		readOperation(api.READ_10, form10(), bitsDPOFUA),
		readOperation(api.READ_12, form12(), bitsDPOFUA),
		readOperation(api.READ_16, form16(), bitsDPOFUA),
		writeOperation(api.WRITE_6, form6(), 0x1f),
		writeOperation(api.WRITE_10, form10(), bitsDPOFUA),
		writeOperation(api.WRITE_12, form12(), bitsDPOFUA),
		writeOperation(api.WRITE_16, form16(), bitsDPOFUA),
		writeVerifyOperation(api.WRITE_VERIFY, form10()),
		writeVerifyOperation(api.WRITE_VERIFY_12, form12()),
		writeVerifyOperation(api.WRITE_VERIFY_16, form16()),
		atomicOperation(),
		compareOperation(),
		orOperation(),
		verifyOperation(api.VERIFY_10, form10()),
		verifyOperation(api.VERIFY_12, form12()),
		verifyOperation(api.VERIFY_16, form16()),
		syncOperation(api.SYNCHRONIZE_CACHE, form10()),
		syncOperation(api.SYNCHRONIZE_CACHE_16, form16()),
		writeSameOperation(api.WRITE_SAME, form10(), bitUnmap),
		writeSameOperation(api.WRITE_SAME_16, form16(), bitUnmap|bitNDOB),
		unmapOperation(),
		statusOperation(),
		prefetchOperation(api.PRE_FETCH_10, form10()),
		prefetchOperation(api.PRE_FETCH_16, form16()),
	)
}

// readOperation makes a READ (SBC-3 5.10 to 5.13). With FUA, what was read is
// durable before status.
func readOperation(code api.SCSICommandType, f form, byte1 byte) operation {
	op := operation{code: code, action: noAction, access: accessReads, usage: f.usage(byte1)}
	op.prepare = func(v *view, c *sam.Command) sense {
		e, s := f.extent(v.unit, c.CDB, MaxTransfer)
		c.WantIn = uint32(e.size)
		return s
	}
	op.execute = func(v *view, c *sam.Command) sense {
		e, s := f.extent(v.unit, c.CDB, MaxTransfer)
		if s.failed() {
			return s
		}
		p := c.In[:min(e.size, int64(len(c.In)))]
		c.Needed, c.InLen = uint32(e.size), uint32(len(p))
		if s := v.unit.read(c, p, e.off); s.failed() || f.size == 6 || c.CDB[1]&bitFUA == 0 {
			return s
		}
		return v.unit.sync(c)
	}
	op.try = f.tryRead
	return op
}

// storeOperation makes an operation that takes the data of an extent. When the initiator
// sends less than the CDB says, store gets the whole blocks among it, and the residual
// tells the rest (RFC 7143 section 11.4.5.1).
func storeOperation(code api.SCSICommandType, f form, byte1 byte, store func(v *view, c *sam.Command, data []byte, e extent) sense) operation {
	op := operation{code: code, action: noAction, usage: f.usage(byte1)}
	op.prepare = func(v *view, c *sam.Command) sense {
		e, s := f.extent(v.unit, c.CDB, MaxTransfer)
		c.WantOut = uint32(e.size)
		return s
	}
	op.execute = func(v *view, c *sam.Command) sense {
		e, s := f.extent(v.unit, c.CDB, MaxTransfer)
		if s.failed() {
			return s
		}
		e = e.came(v.unit, c)
		return store(v, c, c.Out[:e.size], e)
	}
	return op
}

// writeOperation makes a WRITE (SBC-3 5.32 to 5.35).
func writeOperation(code api.SCSICommandType, f form, byte1 byte) operation {
	op := storeOperation(code, f, byte1, func(v *view, c *sam.Command, data []byte, e extent) sense {
		return v.unit.write(c, data, e.off, f.size != 6 && c.CDB[1]&bitFUA != 0)
	})
	op.try = f.tryWrite
	return op
}

// came is the part of a write's extent whose blocks came whole. The residual tells of
// the rest.
func (e extent) came(u *unit, c *sam.Command) extent {
	c.Needed = uint32(e.size)
	e.size = min(e.size, int64(len(c.Out))) >> u.shift << u.shift
	return e
}

// syncOperation makes a SYNCHRONIZE CACHE (SBC-3 5.26, 5.27). The whole cache is
// synced, whatever the range: one flush serves all.
func syncOperation(code api.SCSICommandType, f form) operation {
	op := operation{code: code, action: noAction, access: accessChanges, usage: f.usage(bitsSync)}
	op.prepare = func(v *view, c *sam.Command) sense {
		if !v.unit.contains(f.lba(c.CDB), f.count(c.CDB)) {
			return illegal(gotgt.ASC_LBA_OUT_OF_RANGE)
		}
		return sense{}
	}
	op.execute = func(v *view, c *sam.Command) sense { return v.unit.sync(c) }
	return op
}

func (u *unit) read(c *sam.Command, p []byte, off int64) sense {
	if len(p) == 0 {
		return sense{}
	}
	err := u.disk.ReadAt(c.Ctx, p, off)
	return u.judge(c, err, gotgt.ASC_READ_ERROR)
}

func (u *unit) write(c *sam.Command, p []byte, off int64, fua bool) sense {
	if len(p) == 0 {
		return sense{}
	}
	err := u.disk.WriteAt(c.Ctx, p, off, fua || u.writeThrough.Load())
	return u.judge(c, err, gotgt.ASC_WRITE_ERROR)
}

func (u *unit) sync(c *sam.Command) sense {
	return u.judge(c, u.disk.Sync(c.Ctx), gotgt.ASC_WRITE_ERROR)
}

// judge turns an error of the Disk into sense data, and logs it unless the command was
// aborted, when nobody waits for its outcome, or will be done elsewhere or later.
func (u *unit) judge(c *sam.Command, err error, code gotgt.SCSISubError) sense {
	if err == nil {
		return sense{}
	}
	s := mediumSense(err, code)
	if c.Ctx.Err() == nil && s.key != gotgt.NOT_READY {
		u.complain(c, err)
	}
	return s
}

// complainEvery is how often a unit's failures are logged: hosts repeat what has failed,
// by the thousand.
const complainEvery = time.Second

// complain logs a failure, with how many there were since the last one that was logged.
func (u *unit) complain(c *sam.Command, err error) {
	n := u.failures.Add(1)
	last, now := u.complained.Load(), time.Now().UnixNano()
	if now-last < int64(complainEvery) || !u.complained.CompareAndSwap(last, now) {
		return
	}
	u.failures.Add(-n)
	u.target.log.Warn("scsi: the disk failed a command", "lun", u.number, "opcode", c.CDB[0], "tag", c.Tag, "err", err, "failures", n)
}
