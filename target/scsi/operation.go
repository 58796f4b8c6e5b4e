package scsi

import (
	"encoding/binary"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/twinlun/twinlun/target/sam"
)

// operation is one command, or one service action of a command.
type operation struct {
	code   api.SCSICommandType
	action int // service action in byte 1, or noAction

	// usage is the CDB usage data of SPC-4 6.35.3: as long as the CDB; the operation
	// code, then in every byte the bits that are looked at or may be set without
	// meaning. A service action stands for itself. All other bits must be 0.
	usage []byte

	// quiet operations run while a unit attention is pending, and do not report it
	// (SAM-5 5.14.3).
	quiet bool

	// access is what it may run under while somebody else has reserved the logical
	// unit. An operation that says nothing is kept out by all that there is.
	access access
	// bare operations need no medium.
	bare bool
	// during is whether it runs while the unit is being sanitized.
	during presence
	// path is in which states of the target port group it runs.
	path path

	// prepare checks the CDB and sets WantIn and WantOut; execute does the work.
	// Neither keeps state between the two: a command may be prepared and dropped.
	prepare, execute func(*view, *sam.Command) sense

	// try, if there is one, is execute without waiting. False: nothing is done.
	try func(*view, *sam.Command) bool
}

const noAction = -1

// worksWithout tells whether the operation is answered for a logical unit that
// does not exist (SPC-4 6.6.1, 6.33, 6.39).
func (op *operation) worksWithout(lun [8]byte) bool {
	switch op.code {
	case api.INQUIRY, api.REQUEST_SENSE:
		return true
	case api.REPORT_LUNS:
		return lun == [8]byte{}
	}
	return false
}

// check compares a CDB with the usage map.
func (op *operation) check(cdb []byte) sense {
	if len(cdb) < len(op.usage) {
		return invalidField(len(cdb))
	}
	for i := 1; i < len(op.usage); i++ {
		allowed := op.usage[i]
		if i == 1 && op.action != noAction {
			allowed |= 0x1f
		}
		if fault := cdb[i] &^ allowed; fault != 0 {
			return invalidBits(i, fault)
		}
	}
	return sense{}
}

// operations is the command set: for every operation code its operation, or one
// for each service action.
type operations [256][]*operation

// find returns a CDB's operation, or what is wrong with the CDB. A service
// action that is missing is an invalid field, not an invalid operation code, as
// long as the operation code has others (SPC-4 4.2.5.2).
func (o *operations) find(cdb []byte) (*operation, sense) {
	if len(cdb) < 2 || len(o[cdb[0]]) == 0 {
		return nil, illegal(gotgt.ASC_INVALID_OP_CODE)
	}
	for _, op := range o[cdb[0]] {
		if op.action == noAction || op.action == int(cdb[1]&0x1f) {
			return op, sense{}
		}
	}
	return nil, invalidBits(1, 0x1f)
}

func newOperations() *operations {
	o := new(operations)
	for _, part := range [][]operation{unitOperations(), mediumOperations(), o.reportOperations(),
		oldOperations(), reserveOperations(), groupOperations(), selectOperations(),
		logOperations(), diagnosticOperations(), removalOperations(), sanitizeOperations()} {
		for _, op := range part {
			op.usage[0] = byte(op.code)
			o[op.code] = append(o[op.code], &op)
		}
	}
	return o
}

// length reads an allocation, transfer or parameter list length from a CDB.
type length func(cdb []byte) uint64

// field returns a reader of a big endian field of 1, 2, 4 or 8 bytes.
func field(at, size int) length {
	switch size {
	case 1:
		return func(cdb []byte) uint64 { return uint64(cdb[at]) }
	case 2:
		return func(cdb []byte) uint64 { return uint64(binary.BigEndian.Uint16(cdb[at:])) }
	case 4:
		return func(cdb []byte) uint64 { return uint64(binary.BigEndian.Uint32(cdb[at:])) }
	case 8:
		return func(cdb []byte) uint64 { return binary.BigEndian.Uint64(cdb[at:]) }
	}
	panic("scsi: a CDB field has 1, 2, 4 or 8 bytes")
}

// maxAnswer bounds parameter data other than the list of LUNs. READ FULL STATUS may
// have as much as this; its allocation length does not go further.
const maxAnswer = 1<<16 - 1

// answers makes an operation that returns parameter data, cut to its allocation
// length.
func answers(op operation, allocation length, build func(*view, *sam.Command) ([]byte, sense)) operation {
	limit := uint64(maxAnswer)
	if op.code == api.REPORT_LUNS {
		limit = 8 + 8*(maxLUN+1)
	}
	op.prepare = func(_ *view, c *sam.Command) sense {
		c.WantIn = uint32(min(allocation(c.CDB), limit))
		return sense{}
	}
	op.execute = func(v *view, c *sam.Command) sense {
		data, s := build(v, c)
		data = data[:min(uint64(len(data)), allocation(c.CDB), limit)]
		c.Needed = uint32(len(data))
		c.InLen = uint32(copy(c.In, data))
		return s
	}
	return op
}

// fixed is the length of parameter data without an allocation length.
func fixed(n uint64) length { return func([]byte) uint64 { return n } }

// nothing is a step without work.
func nothing(*view, *sam.Command) sense { return sense{} }

// unitOperations are those about the logical unit as a whole. They answer at
// once and do not touch the Disk, except for its size.
func unitOperations() []operation {
	return []operation{
		{code: api.TEST_UNIT_READY, action: noAction, access: accessFree, usage: make([]byte, 6),
			prepare: nothing, execute: testUnitReady},
		answers(operation{code: api.REQUEST_SENSE, action: noAction, quiet: true, during: duringAll, access: accessAlways, path: pathAny, bare: true,
			usage: []byte{0, 0x01, 0, 0, 0xff, 0}}, field(4, 1), requestSense),
		answers(operation{code: api.INQUIRY, action: noAction, quiet: true, during: duringAll, access: accessAlways, path: pathAny, bare: true,
			usage: []byte{0, 0x01, 0xff, 0xff, 0xff, 0}}, field(3, 2), inquiry),
		answers(operation{code: api.MODE_SENSE, action: noAction, access: accessReads, path: pathStandby, bare: true,
			usage: []byte{0, 0x08, 0xff, 0xff, 0xff, 0}}, field(4, 1), modeSense6),
		answers(operation{code: api.MODE_SENSE_10, action: noAction, access: accessReads, path: pathStandby, bare: true,
			usage: []byte{0, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0}}, field(7, 2), modeSense10),
		// READ CAPACITY is not in SPC-4's list for standby; hosts ask before they know.
		answers(operation{code: api.READ_CAPACITY, action: noAction, access: accessAlways, path: pathStandby,
			usage: make([]byte, 10)}, fixed(8), readCapacity10),
		answers(operation{code: api.SERVICE_ACTION_IN, action: int(api.SAI_READ_CAPACITY_16), access: accessAlways, path: pathStandby,
			usage: []byte{0, byte(api.SAI_READ_CAPACITY_16), 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0}},
			field(10, 4), readCapacity16),
	}
}
