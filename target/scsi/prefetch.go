package scsi

import (
	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/twinlun/twinlun/target/sam"
)

// maxPrefetch is how much a PRE-FETCH reads, in bytes. More is no error.
const maxPrefetch = MaxTransfer

// prefetchOperation makes a PRE-FETCH (SBC-3 5.7). What it reads is in memory then,
// and the newest data of the peer's is here: CONDITION MET. If that was not all,
// or the initiator does not wait for it (IMMED), the status is GOOD, which promises
// nothing; then nothing more is read. 0 blocks are all up to the last one. A group
// number is a hint within a hint, and may be anything.
func prefetchOperation(code api.SCSICommandType, f form) operation {
	const bitImmed = 0x02
	op := operation{code: code, action: noAction, access: accessReads, usage: f.usage(bitImmed)}
	op.usage[map[int]int{10: 6, 16: 14}[f.size]] = 0x1f
	op.prepare = func(v *view, c *sam.Command) sense {
		if !v.unit.contains(f.lba(c.CDB), f.count(c.CDB)) {
			return illegal(gotgt.ASC_LBA_OUT_OF_RANGE)
		}
		return sense{}
	}
	op.execute = func(v *view, c *sam.Command) sense {
		u := v.unit
		first, count := f.lba(c.CDB), f.count(c.CDB)
		if !u.contains(first, count) { // it has shrunk, or never was
			return illegal(gotgt.ASC_LBA_OUT_OF_RANGE)
		}
		if count == 0 {
			count = u.blocks() - first
		}
		if c.CDB[1]&bitImmed != 0 || count > maxPrefetch>>u.shift {
			return sense{}
		}
		if s := u.verify(c, nil, extent{u.bytes(first), u.bytes(count)}); s.failed() {
			return s
		}
		return conditionMet
	}
	return op
}
