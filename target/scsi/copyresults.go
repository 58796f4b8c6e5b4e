package scsi

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/twinlun/twinlun/target/sam"
)

// maxCopies bounds the copies under way, and the results kept, of an I_T nexus and
// logical unit.
const maxCopies = 16

// copies are the third-party copies that came by way of an I_T nexus and logical
// unit: those under way, and what came of the last ones. A reset of the unit or the loss
// of the nexus takes that with it (SPC-4 6.23 to 6.25).
type copies struct {
	mu   sync.Mutex
	list []*copyResult // oldest first
}

// copyResult is a copy.
type copyResult struct {
	id       uint32
	long     bool // of LID4
	named    bool // it has an identifier
	bytes    atomic.Uint64
	segments atomic.Uint32 // that were begun

	// Under copies.mu.
	over    bool
	stopped bool // it was aborted
	sense   sense
	lost    bool // nobody is to be told of it when it is over

	statusTold, failureTold bool // by the commands that tell it once
}

// discard forgets what came of copies.
func (c *copies) discard() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = slices.DeleteFunc(c.list, func(r *copyResult) bool { return r.over })
	for _, r := range c.list {
		r.lost = true
	}
}

func (c *copies) findLocked(id uint32) *copyResult {
	for _, r := range c.list {
		if r.named && r.id == id {
			return r
		}
	}
	return nil
}

// begin notes a copy. An identifier is free again when its copy is over.
func (c *copies) begin(l *copyList) (*copyResult, sense) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &copyResult{id: l.id, long: l.long, named: l.usage != usageNone}
	if old := c.findLocked(l.id); r.named && old != nil {
		switch {
		case !old.over && old.long != l.long: // SPC-4 6.4.3.2
			return nil, invalidParameter(l.idAt())
		case !old.over:
			return nil, illegal(codeInProgress)
		}
		c.dropLocked(old)
	}
	if len(c.list) == maxCopies {
		old := c.overLocked()
		if old == nil {
			return nil, sense{status: sam.TaskSetFull}
		}
		c.dropLocked(old)
	}
	c.list = append(c.list, r)
	return r, sense{}
}

func (c *copies) overLocked() *copyResult {
	for _, r := range c.list {
		if r.over {
			return r
		}
	}
	return nil
}

func (c *copies) dropLocked(r *copyResult) {
	c.list = slices.DeleteFunc(c.list, func(o *copyResult) bool { return o == r })
}

// end notes that a copy is over. stopped: it was aborted.
func (c *copies) end(r *copyResult, s sense, stopped bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.over, r.stopped, r.sense = true, stopped, s
	if !r.named || r.lost {
		c.dropLocked(r)
	}
}

// receive finds a copy and has what is known of it told; tell says no if that has been
// discarded.
func (c *copies) receive(cdb []byte, size int, tell func(*copyResult, []byte) ([]byte, bool)) ([]byte, sense) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// An identifier of one byte is the same as of four (SPC-4 5.17.4.2).
	if r := c.findLocked(uint32(field(2, size)(cdb))); r != nil {
		if data, ok := tell(r, cdb); ok {
			return data, sense{}
		}
	}
	return nil, invalidField(2)
}

// receiveOperations are the service actions of RECEIVE COPY RESULTS.
func receiveOperations() (ops []operation) {
	for _, a := range []struct {
		action int
		access access
		id     int // bytes of the list identifier, from byte 2 on
		tell   func(r *copyResult, cdb []byte) ([]byte, bool)
	}{
		{copyStatus1, accessChanges, 1, (*copyResult).status1Locked},
		{copyData1, accessChanges, 1, func(*copyResult, []byte) ([]byte, bool) { return make([]byte, 4), true }}, // none is held
		{copyOperating, accessFree, 0, nil},
		{copyFailure1, accessChanges, 1, (*copyResult).failureLocked},
		{copyStatus4, accessChanges, 4, (*copyResult).status4Locked},
	} {
		op := operation{code: codeCopyIn, action: a.action, access: a.access,
			usage: []byte{0, byte(a.action), 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0}}
		setAll(op.usage[2 : 2+a.id])
		ops = append(ops, answers(op, field(10, 4), func(v *view, c *sam.Command) ([]byte, sense) {
			if a.tell == nil {
				return copyParameters(), sense{}
			}
			return v.copies.receive(c.CDB, a.id, a.tell)
		}))
	}
	return ops
}

// status1Locked is RECEIVE COPY STATUS (LID1) parameter data (SPC-4 6.25), which is told
// once when the copy is over:
//
//	offset size
//	     0    4  length of the rest
//	     4    1  status: 0, under way; 1, done; 2, failed
//	     5    2  segments processed
//	     7    1  unit of the transfer count
//	     8    4  transfer count
func (r *copyResult) status1Locked([]byte) ([]byte, bool) {
	if r.statusTold {
		return nil, false
	}
	r.statusTold = r.over
	status := byte(0)
	switch {
	case r.over && (r.stopped || r.sense.failed()):
		status = 2
	case r.over:
		status = 1
	}
	segments := r.segments.Load()
	unit, count := transferCount(r.bytes.Load())
	p := []byte{0, 0, 0, 8, status, byte(segments >> 8), byte(segments), unit}
	return binary.BigEndian.AppendUint32(p, count), true
}

// transferCount puts a number of bytes into 32 bits: in bytes, KiB, MiB, …
func transferCount(n uint64) (unit byte, count uint32) {
	unit = byte(max(0, bits.Len64(n)-32+9) / 10)
	return unit, uint32(n >> (10 * unit))
}

// failureLocked is RECEIVE COPY FAILURE DETAILS (LID1) parameter data (SPC-4 6.23), told
// once, if there is room for all of it, or for nothing: no details, or from byte 56 on the
// status, and from 58 on length and sense data.
func (r *copyResult) failureLocked(cdb []byte) ([]byte, bool) {
	switch {
	case !r.over || r.long:
		return nil, false
	case r.failureTold || !r.sense.failed():
		return make([]byte, 4), true
	}
	p := make([]byte, 56, 60+senseSize)
	p = append(p, byte(r.sense.statusCode()), 0, 0, senseSize)
	p = r.sense.appendFixed(p)
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	room := field(10, 4)(cdb)
	r.failureTold = room == 0 || room >= uint64(len(p))
	return p, true
}

// statusCode is the status that the command ended with.
func (s sense) statusCode() sam.Status {
	switch {
	case s.status != 0:
		return s.status
	case s.failed():
		return sam.CheckCondition
	}
	return sam.Good
}

// COPY OPERATION STATUS (SPC-4 table 249), and what to say to when to ask again.
const (
	copyDone     = 0x01
	copyFailed   = 0x02
	copyUnderWay = 0x11 // in the foreground
	copyStopped  = 0x60

	copyAskNoMore   = 0xfffffffe
	copyAskWhenever = 0xffffffff
)

// copySenseSize is what sense data takes, filled up to a multiple of four bytes.
const copySenseSize = (senseSize + 3) / 4 * 4

// status4Locked is RECEIVE COPY STATUS (LID4) parameter data (SPC-4 6.24):
//
//	offset size
//	     0    4  length of the rest
//	     4    1  service action that it is about
//	     5    1  status
//	     6    2  operation counter
//	     8    4  when to ask again, in ms
//	    12    1  status of the command, when it is over
//	    13    2  length of the field for sense data, length of sense data
//	    15    1  unit of the transfer count
//	    16    8  transfer count
//	    24    2  segments processed
//	    32    …  sense data
func (r *copyResult) status4Locked([]byte) ([]byte, bool) {
	be := binary.BigEndian
	p := make([]byte, 32, 32+copySenseSize)
	be.PutUint32(p[8:], copyAskNoMore)
	switch {
	case !r.over:
		p[5] = copyUnderWay
		be.PutUint32(p[8:], copyAskWhenever)
	case r.stopped:
		p[5], p[12] = copyStopped, byte(sam.TaskAborted)
	case r.sense.failed():
		p[5], p[12], p[13], p[14] = copyFailed, byte(r.sense.statusCode()), copySenseSize, senseSize
	default:
		p[5] = copyDone
	}
	if r.long {
		p[4] = copyOut4
	}
	be.PutUint64(p[16:], r.bytes.Load())
	be.PutUint16(p[24:], uint16(r.segments.Load()))
	if p[13] > 0 {
		p = append(r.sense.appendFixed(p), make([]byte, copySenseSize-senseSize)...)
	}
	be.PutUint32(p, uint32(len(p)-4))
	return p, true
}

// copyGranularity is log2 of what segments are a multiple of, in bytes.
const copyGranularity = 9

// copyParameters is RECEIVE COPY OPERATING PARAMETERS parameter data (SPC-4 6.21).
func copyParameters() []byte {
	be := binary.BigEndian
	p := make([]byte, 44)
	p[4] = 0x01 // SNLID: a list may have no identifier
	be.PutUint16(p[8:], maxCopyUnits)
	be.PutUint16(p[10:], maxCopySegments)
	be.PutUint32(p[12:], maxCopyList)
	be.PutUint32(p[16:], maxCopySegment)
	be.PutUint16(p[34:], maxCopies)
	p[36], p[37] = maxCopies, copyGranularity
	p[43] = 2
	p = append(p, copySegmentCode, copyUnitCode)
	be.PutUint32(p, uint32(len(p)-4))
	return p
}

// inquiry3PC says in the standard INQUIRY data that there are third-party copies.
const inquiry3PC = 0x08

// copyPage is the third-party copy VPD page (SPC-4 7.8.17): commands, limits of
// parameter lists, descriptors, and limits of copies.
func copyPage() (p []byte) {
	be := binary.BigEndian
	p = appendCopyDescriptor(p, 0x0001, append([]byte{11},
		byte(codeCopyOut), 2, copyOut1, copyOut4,
		byte(codeCopyIn), 5, copyStatus1, copyData1, copyOperating, copyFailure1, copyStatus4))

	lists := make([]byte, 28)
	be.PutUint16(lists[4:], maxCopyUnits)
	be.PutUint16(lists[6:], maxCopySegments)
	be.PutUint32(lists[8:], maxCopyList)
	p = appendCopyDescriptor(p, 0x0004, lists)

	p = appendCopyDescriptor(p, 0x0008, []byte{2, copySegmentCode, copyUnitCode})

	limits := make([]byte, 32)
	be.PutUint32(limits, maxCopies)
	be.PutUint32(limits[4:], maxCopies)
	be.PutUint32(limits[8:], maxCopySegment)
	limits[12] = copyGranularity
	p = appendCopyDescriptor(p, 0x8001, limits)
	return appendCopyDescriptor(p, 0xc001, make([]byte, 28)) // no data is held
}

// appendCopyDescriptor pads a descriptor to a multiple of four bytes.
func appendCopyDescriptor(p []byte, kind uint16, body []byte) []byte {
	body = append(body, make([]byte, -len(body)&3)...)
	p = binary.BigEndian.AppendUint16(p, kind)
	p = binary.BigEndian.AppendUint16(p, uint16(len(body)))
	return append(p, body...)
}
