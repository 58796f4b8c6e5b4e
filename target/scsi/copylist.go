package scsi

import (
	"bytes"
	"encoding/binary"

	gotgt "github.com/gostor/gotgt/pkg/scsi"
)

// Limits of EXTENDED COPY, told by RECEIVE COPY RESULTS and VPD page 8Fh. All
// segments together are 256 MiB at most: a host waits for it.
const (
	maxCopyUnits    = 16
	maxCopySegments = 16
	maxCopySegment  = 16 << 20 // bytes
	maxCopyList     = maxCopyUnits*copyUnitSize + maxCopySegments*copySegmentSize

	copyUnitSize    = 32
	copySegmentSize = 28
	copyHeader1     = 16
	copyHeader4     = 48

	copyUnitCode    = 0xe4 // identification descriptor CSCD descriptor (SPC-4 6.4.5.2)
	copySegmentCode = 0x02 // block device to block device (SPC-4 6.4.6.4)
)

// copyList is the parameter list of an EXTENDED COPY, checked. Of LID1 (SPC-4
// 6.4.3.2) and LID4 (6.4.3.3), big endian:
//
//	LID1 LID4 size
//	        0    1  format, 01h
//	   0   20  1/4  list identifier
//	   1    1    1  bits 4-3: its usage
//	        2    2  length of the rest of the header, 0020h
//	       15    1  G_SENSE, IMMED, which is as good as 0 here: status comes when all is
//	                done (SPC-4 5.17.4.3)
//	       16    1  type of the header, FFh
//	   2   42    2  length of the CSCD descriptors
//	   8   44  4/2  length of the segment descriptors
//	  12   46  4/2  length of inline data
//	  16   48    …  CSCD descriptors, then segment descriptors
type copyList struct {
	id       uint32
	long     bool // of LID4
	usage    byte
	units    []*view
	segments []copySegment
}

// Bits of byte 15 of a LID4 list.
const (
	bitIMMED  = 0x01
	bitGSense = 0x02
)

// Usage of the list identifier.
const (
	usageHold    = 0 // keep what came of the copy
	usageDiscard = 2 // the same, as there is no data to be held
	usageNone    = 3
)

// idAt is where the identifier stands.
func (l *copyList) idAt() int {
	if l.long {
		return 20
	}
	return 0
}

// copySegment is a piece to copy.
type copySegment struct {
	from, to       *view
	fromOff, toOff int64
	size           int64
}

// readCopyList reads a parameter list that came in full.
func (v *view) readCopyList(p []byte, long bool) (l copyList, s sense) {
	header := copyHeader1
	if long {
		header = copyHeader4
	}
	if len(p) < header {
		return l, illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
	}
	units, segments, inline, s := l.readHeader(p, long)
	if s.failed() {
		return l, s
	}
	switch rest := uint64(len(p) - header); {
	case units+segments > maxCopyList, units+segments > rest:
		return l, illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
	case inline > 0:
		return l, illegal(codeInlineExceeded)
	case units > maxCopyUnits*copyUnitSize:
		return l, illegal(codeManyTargets)
	}
	list := p[header:]
	if s := l.readUnits(v, list[:units], header); s.failed() {
		return l, s
	}
	return l, l.readSegments(list[units:units+segments], header+int(units))
}

// readHeader reads all but the descriptors, and returns their lengths.
func (l *copyList) readHeader(p []byte, long bool) (units, segments, inline uint64, s sense) {
	be := binary.BigEndian
	l.long, l.usage = long, p[1]>>3&3
	switch {
	case l.usage == 1:
		return 0, 0, 0, invalidParameterBits(1, 0x18)
	case !long:
		l.id = uint32(p[0])
		units, segments, inline = uint64(be.Uint16(p[2:])), uint64(be.Uint32(p[8:])), uint64(be.Uint32(p[12:]))
	case p[0] != 0x01:
		return 0, 0, 0, invalidParameter(0)
	case be.Uint16(p[2:]) != 0x20:
		return 0, 0, 0, invalidParameter(2)
	case p[15] == bitGSense|bitIMMED, p[15] == bitIMMED && l.usage == usageNone:
		return 0, 0, 0, illegal(gotgt.ASC_INVALID_FIELD_IN_CDB) // as SPC-4 6.4.2 has it
	case p[15]&^bitIMMED != 0: // GOOD comes without sense data
		return 0, 0, 0, invalidParameterBits(15, p[15]&^bitIMMED)
	case p[16] != 0xff:
		return 0, 0, 0, invalidParameter(16)
	default:
		l.id = be.Uint32(p[20:])
		units, segments, inline = uint64(be.Uint16(p[42:])), uint64(be.Uint16(p[44:])), uint64(be.Uint16(p[46:]))
	}
	if l.usage == usageNone && l.id != 0 {
		return 0, 0, 0, invalidParameter(l.idAt())
	}
	return units, segments, inline, sense{}
}

// readUnits finds the logical units that CSCD descriptors name. A descriptor:
//
//	offset size
//	     0    1  E4h
//	     1    1  bits 4-0: peripheral device type
//	     4    1  code set          }
//	     5    1  association, type } a designation descriptor
//	     7    1  length            }
//	     8   20  designator        }
//	    29    3  logical block length
func (l *copyList) readUnits(from *view, p []byte, at int) sense {
	for ; len(p) > 0; p, at = p[copyUnitSize:], at+copyUnitSize {
		switch {
		case p[0] != copyUnitCode:
			return illegal(codeTargetType)
		case len(p) < copyUnitSize:
			return illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
		case p[7] > 20:
			return invalidParameter(at + 7)
		}
		v := from.port.named(p[4]&0x0f, p[5]&0x3f, p[8:8+p[7]])
		switch {
		case v == nil:
		case p[1]&0x1f != 0:
			return aborted(codeWrongTarget)
		case uint32(p[29])<<16|uint32(p[30])<<8|uint32(p[31]) != 1<<v.unit.shift:
			return invalidParameter(at + 29)
		}
		l.units = append(l.units, v)
	}
	return sense{}
}

// named finds the logical unit with a designator (association and type in kind).
func (p *port) named(codeSet, kind byte, designator []byte) *view {
	for _, v := range *p.views.Load() {
		u := v.unit
		isNAA := kind == gotgt.DESG_NAA && bytes.Equal(designator, u.naa)
		isEUI := kind == gotgt.DESG_EUI64 && u.eui != nil && bytes.Equal(designator, u.eui)
		if codeSet == gotgt.INQ_CODE_BIN && (isNAA || isEUI) {
			return v
		}
	}
	return nil
}

// readSegments checks segment descriptors, all before the first is copied:
//
//	offset size
//	     0    1  02h
//	     1    1  bit 1, DC: the number of blocks counts the destination's
//	     2    2  length of the rest, 0018h
//	     4    2  source: number of the CSCD descriptor
//	     6    2  destination
//	    10    2  number of blocks
//	    12    8  source LBA
//	    20    8  destination LBA
func (l *copyList) readSegments(p []byte, at int) sense {
	for ; len(p) > 0; p, at = p[copySegmentSize:], at+copySegmentSize {
		switch {
		case p[0] != copySegmentCode:
			return illegal(codeSegmentType)
		case len(l.segments) == maxCopySegments:
			return illegal(codeManySegments)
		case len(p) < copySegmentSize:
			return illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
		case binary.BigEndian.Uint16(p[2:]) != copySegmentSize-4:
			return invalidParameter(at + 2)
		}
		seg, s := l.readSegment(p, at)
		if s.failed() {
			return s.inSegment(len(l.segments))
		}
		l.segments = append(l.segments, seg)
	}
	return sense{}
}

func (l *copyList) readSegment(p []byte, at int) (seg copySegment, s sense) {
	be := binary.BigEndian
	seg.from, seg.to = l.unit(be.Uint16(p[4:])), l.unit(be.Uint16(p[6:]))
	if seg.from == nil || seg.to == nil {
		return seg, aborted(codeUnreachable)
	}
	from, to := seg.from.unit, seg.to.unit
	counted := from
	if p[1]&0x02 != 0 {
		counted = to
	}
	seg.size = counted.bytes(uint64(be.Uint16(p[10:])))
	fromLBA, toLBA := be.Uint64(p[12:]), be.Uint64(p[20:])
	switch {
	case seg.size > maxCopySegment:
		return seg, invalidParameter(at + 10)
	case seg.size&(from.bytes(1)-1) != 0 || seg.size&(to.bytes(1)-1) != 0:
		return seg, aborted(codeInexactSegment)
	case !from.contains(fromLBA, uint64(seg.size)>>from.shift), !to.contains(toLBA, uint64(seg.size)>>to.shift):
		return seg, aborted(0)
	}
	seg.fromOff, seg.toOff = from.bytes(fromLBA), to.bytes(toLBA)
	return seg, sense{}
}

// unit is the logical unit of a CSCD descriptor; nil: it was not found, or there is
// no such descriptor.
func (l *copyList) unit(n uint16) *view {
	if int(n) >= len(l.units) {
		return nil
	}
	return l.units[n]
}
