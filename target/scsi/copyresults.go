package scsi

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/twinlun/twinlun/target/sam"
)

// maxCopies bounds the copies under way, and the results kept, of an I_T nexus and
// logical unit.
const maxCopies = 16

// copies are the third-party copies that came by way of an I_T nexus and logical
// unit: those under way, and what came of the last ones.
type copies struct {
	mu   sync.Mutex
	list []*copyResult // oldest first
	era  uint64        // of the nexus; the loss of one takes the results with it
}

// copyResult is a copy.
type copyResult struct {
	id    copyID
	named bool // it has an identifier
	bytes atomic.Uint64

	// Under copies.mu.
	over     bool
	segments int
	sense    sense
}

// era tells one I_T nexus of a port from the next.
func (p *port) era() uint64 {
	p.target.mu.Lock()
	defer p.target.mu.Unlock()
	return p.opened
}

// find returns what is known of an identifier, of this nexus's.
func (c *copies) find(id copyID, era uint64) *copyResult {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.findLocked(id, era)
}

func (c *copies) findLocked(id copyID, era uint64) *copyResult {
	c.forgetLocked(era)
	for _, r := range c.list {
		if r.named && r.id == id {
			return r
		}
	}
	return nil
}

// forgetLocked drops the results of an earlier nexus.
func (c *copies) forgetLocked(era uint64) {
	if c.era != era {
		c.list, c.era = nil, era
	}
}

// begin notes a copy. An identifier is free again when its copy is over.
func (c *copies) begin(l *copyList, era uint64) (*copyResult, sense) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &copyResult{id: l.id, named: l.usage != usageNone}
	if old := c.findLocked(l.id, era); r.named && old != nil {
		if !old.over {
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
	for i := range c.list {
		if c.list[i] == r {
			c.list = append(c.list[:i:i], c.list[i+1:]...)
			return
		}
	}
}

// end notes that a copy is over.
func (c *copies) end(r *copyResult, segments int, s sense) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.over, r.segments, r.sense = true, segments, s
	if !r.named {
		c.dropLocked(r)
	}
}

// COPY MANAGER STATUS (SPC-4 6.23).
const (
	copyUnderWay = 0
	copyDone     = 1
	copyFailed   = 2
)

// status of a copy now.
func (c *copies) status(r *copyResult) (status byte, segments int, s sense) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !r.over:
		return copyUnderWay, r.segments, r.sense
	case r.sense.failed():
		return copyFailed, r.segments, r.sense
	}
	return copyDone, r.segments, r.sense
}

// receiveOperations are the service actions of RECEIVE COPY RESULTS.
func receiveOperations() (ops []operation) {
	for _, a := range []struct {
		action int
		access access
		id     int // bytes of the list identifier, from byte 2 on
		build  func(v *view, r *copyResult) []byte
	}{
		{copyStatus1, accessChanges, 1, (*view).copyStatus1},
		{copyData1, accessChanges, 1, func(*view, *copyResult) []byte { return make([]byte, 4) }}, // none is held
		{copyOperating, accessFree, 0, func(*view, *copyResult) []byte { return copyParameters() }},
		{copyFailure1, accessChanges, 1, (*view).copyFailure},
		{copyStatus4, accessChanges, 4, (*view).copyStatus4},
	} {
		op := operation{code: codeCopyIn, action: a.action, access: a.access,
			usage: []byte{0, byte(a.action), 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0}}
		setAll(op.usage[2 : 2+a.id])
		ops = append(ops, answers(op, field(10, 4), func(v *view, c *sam.Command) ([]byte, sense) {
			if a.id == 0 {
				return a.build(v, nil), sense{}
			}
			id := copyID{long: a.id == 4, id: uint32(field(2, a.id)(c.CDB))}
			r := v.copies.find(id, v.port.era())
			if r == nil {
				return nil, invalidField(2)
			}
			return a.build(v, r), sense{}
		}))
	}
	return ops
}

// copyStatus1 is RECEIVE COPY STATUS (LID1) parameter data (SPC-4 6.23):
//
//	offset size
//	     0    4  length of the rest
//	     4    1  status
//	     5    2  segments processed
//	     7    1  unit of the transfer count
//	     8    4  transfer count
func (v *view) copyStatus1(r *copyResult) []byte {
	status, segments, _ := v.copies.status(r)
	unit, count := transferCount(r.bytes.Load())
	p := []byte{0, 0, 0, 8, status, byte(segments >> 8), byte(segments), unit}
	return binary.BigEndian.AppendUint32(p, count)
}

// transferCount puts a number of bytes into 32 bits: in bytes, KiB, MiB, …
func transferCount(n uint64) (unit byte, count uint32) {
	unit = byte(max(0, bits.Len64(n)-32+9) / 10)
	return unit, uint32(n >> (10 * unit))
}

// copyFailure is RECEIVE COPY FAILURE DETAILS (LID1) parameter data (SPC-4 6.20):
// nothing, or from byte 56 on the status, and from 58 on length and sense data.
func (v *view) copyFailure(r *copyResult) []byte {
	status, _, s := v.copies.status(r)
	if status != copyFailed {
		return make([]byte, 4)
	}
	p := make([]byte, 56, 60+senseSize)
	p = append(p, byte(s.statusCode()), 0, 0, senseSize)
	p = s.appendFixed(p)
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	return p
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

// copyStatus4 is RECEIVE COPY STATUS (LID4) parameter data (SPC-4 6.24):
//
//	offset size
//	     0    4  length of the rest
//	     4    1  service action that it is about
//	     5    1  status
//	     6    2  operation counter
//	     8    4  when to ask again, in ms; FFFFFFFEh: not known
//	    12    1  status of the command, when it is over
//	    13    2  length of the field for sense data, length of sense data
//	    15    1  unit of the transfer count
//	    16    8  transfer count
//	    24    2  segments processed
//	    32    …  sense data
func (v *view) copyStatus4(r *copyResult) []byte {
	status, segments, s := v.copies.status(r)
	p := make([]byte, 32, 32+senseSize)
	p[4], p[5] = copyOut4, status
	if status == copyUnderWay {
		binary.BigEndian.PutUint32(p[8:], 0xfffffffe)
	} else {
		p[12] = byte(s.statusCode())
	}
	binary.BigEndian.PutUint64(p[16:], r.bytes.Load())
	binary.BigEndian.PutUint16(p[24:], uint16(segments))
	if s.failed() {
		p[13], p[14] = senseSize, senseSize
		p = s.appendFixed(p)
	}
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	return p
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
	return appendCopyDescriptor(p, 0x8001, limits)
}

// appendCopyDescriptor pads a descriptor to a multiple of four bytes.
func appendCopyDescriptor(p []byte, kind uint16, body []byte) []byte {
	body = append(body, make([]byte, -len(body)&3)...)
	p = binary.BigEndian.AppendUint16(p, kind)
	p = binary.BigEndian.AppendUint16(p, uint16(len(body)))
	return append(p, body...)
}
