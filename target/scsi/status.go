package scsi

import (
	"encoding/binary"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/twinlun/twinlun/target/sam"
)

// Mapper is a Disk that knows where it has holes. Another one counts as mapped.
type Mapper interface {
	// Mapped tells whether there may be data at off; and for how many bytes from
	// there, at most n, that holds. Where it says no, the Disk reads as zeros.
	// It may say so of less than there is.
	Mapped(off, n int64) (mapped bool, run int64, err error)
}

// GET LBA STATUS parameter data (SBC-3 5.6.2).
const (
	statusHeader     = 8
	statusDescriptor = 16
	statusMapped     = 0 // or in an unknown state
	statusHole       = 1 // deallocated

	statusBlocks = 1<<32 - 1 // of an extent, at most

	// statusAsked bounds how often a Disk is asked for one answer.
	statusAsked = 4096
)

// statusOperation makes GET LBA STATUS (SBC-3 5.6).
func statusOperation() operation {
	lba := field(2, 8)
	op := operation{code: api.SERVICE_ACTION_IN, action: int(api.SAI_GET_LBA_STATUS), access: accessReads,
		usage: form16().usage(byte(api.SAI_GET_LBA_STATUS))}
	return answers(op, field(10, 4), func(v *view, c *sam.Command) ([]byte, sense) {
		u := v.unit
		if lba(c.CDB) >= u.blocks() {
			return nil, illegal(gotgt.ASC_LBA_OUT_OF_RANGE)
		}
		return u.lbaStatus(c, u.bytes(lba(c.CDB)), min(int(field(10, 4)(c.CDB)), maxAnswer))
	})
}

// lbaStatus describes the medium from off on: at least one extent, and as many as go
// into size bytes.
func (u *unit) lbaStatus(c *sam.Command, off int64, size int) ([]byte, sense) {
	p := make([]byte, statusHeader)
	end := u.bytes(u.blocks())
	was, since := false, off
	for asked := 0; off < end && asked < statusAsked; asked++ {
		mapped, run, err := u.mapped(off, end-off)
		if err != nil {
			return nil, u.judge(c, err, gotgt.ASC_READ_ERROR)
		}
		most := since + u.bytes(statusBlocks)
		if off > since && (mapped != was || off == most) {
			p = u.appendStatus(p, since, off, was)
			since = off
			if len(p)+statusDescriptor > size {
				break
			}
			most = since + u.bytes(statusBlocks)
		}
		was, off = mapped, min(off+run, most)
	}
	if off > since && (len(p) == statusHeader || len(p)+statusDescriptor <= size) {
		p = u.appendStatus(p, since, off, was)
	}
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	return p, sense{}
}

// mapped asks the Disk. Blocks that have a part of a hole are mapped.
func (u *unit) mapped(off, n int64) (mapped bool, run int64, err error) {
	d, ok := u.disk.(Mapper)
	if !ok {
		return true, n, nil
	}
	mapped, run, err = d.Mapped(off, n)
	block := u.bytes(1)
	if err != nil || run >= n {
		return mapped, n, err
	}
	if mapped {
		return true, min(n, (run+block-1)/block*block), nil
	}
	if run < block {
		return true, block, nil
	}
	return false, run / block * block, nil
}

// appendStatus appends an extent.
func (u *unit) appendStatus(p []byte, from, to int64, mapped bool) []byte {
	status := byte(statusHole)
	if mapped {
		status = statusMapped
	}
	p = binary.BigEndian.AppendUint64(p, uint64(from)>>u.shift)
	p = binary.BigEndian.AppendUint32(p, uint32(uint64(to-from)>>u.shift))
	return append(p, status, 0, 0, 0)
}
