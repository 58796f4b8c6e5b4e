package scsi

import (
	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/twinlun/twinlun/target/sam"
)

// Operation codes, and service actions, of third-party copies (SPC-4 5.18.3).
const (
	codeCopyOut = api.SCSICommandType(0x83)
	copyOut1    = 0x00 // EXTENDED COPY (LID1)
	copyOut4    = 0x01 // EXTENDED COPY (LID4)

	codeCopyIn    = api.SCSICommandType(0x84)
	copyStatus1   = 0x00 // RECEIVE COPY STATUS (LID1)
	copyData1     = 0x01 // RECEIVE COPY DATA (LID1)
	copyOperating = 0x03 // RECEIVE COPY OPERATING PARAMETERS
	copyFailure1  = 0x04 // RECEIVE COPY FAILURE DETAILS (LID1)
	copyStatus4   = 0x05 // RECEIVE COPY STATUS (LID4)
)

// Additional sense codes of third-party copies.
const (
	codeInProgress     gotgt.SCSISubError = 0x0016
	codeUnreachable    gotgt.SCSISubError = 0x0804
	codeThirdParty     gotgt.SCSISubError = 0x0d01
	codeWrongTarget    gotgt.SCSISubError = 0x0d03
	codeManyTargets    gotgt.SCSISubError = 0x2606
	codeTargetType     gotgt.SCSISubError = 0x2607
	codeManySegments   gotgt.SCSISubError = 0x2608
	codeSegmentType    gotgt.SCSISubError = 0x2609
	codeInexactSegment gotgt.SCSISubError = 0x260a
	codeInlineExceeded gotgt.SCSISubError = 0x260b
	codeCleared        gotgt.SCSISubError = 0x2f02
)

// aborted is COPY ABORTED: the list was right, and could not be carried out.
func aborted(code gotgt.SCSISubError) sense { return sense{key: gotgt.COPY_ABORTED, code: code} }

// inSegment says in COMMAND-SPECIFIC INFORMATION with which segment a copy ended
// (SPC-4 6.4.4). An error in the list has its field pointer.
func (s sense) inSegment(n int) sense {
	if s.key == gotgt.COPY_ABORTED {
		s.specificInformation = uint32(n)
	}
	return s
}

// copyOperations are the third-party copy commands: the whole unit of one target
// copies to itself, or to another one of the target, without the data coming by way
// of the host.
func copyOperations() []operation {
	return append(receiveOperations(), copyOutOperation(copyOut1), copyOutOperation(copyOut4))
}

// copyOutOperation makes an EXTENDED COPY (SPC-4 6.4, 6.5).
func copyOutOperation(action int) operation {
	size := field(10, 4)
	return operation{
		code: codeCopyOut, action: action, access: accessChanges,
		usage: []byte{0, byte(action), 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0},
		prepare: func(_ *view, c *sam.Command) sense {
			if size(c.CDB) > MaxTransfer {
				return illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
			}
			c.WantOut = uint32(min(size(c.CDB), copyHeader4+maxCopyList))
			return sense{}
		},
		execute: func(v *view, c *sam.Command) sense {
			c.Needed = c.WantOut
			if size(c.CDB) == 0 {
				return sense{} // no list is no error
			}
			if size(c.CDB) != uint64(len(c.Out)) {
				return illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
			}
			l, s := v.readCopyList(c.Out, action == copyOut4)
			if s.failed() {
				return s
			}
			return v.copy(c, &l)
		},
	}
}

// copy carries a list out, and remembers what came of it.
func (v *view) copy(c *sam.Command, l *copyList) sense {
	r, s := v.copies.begin(l)
	if s.failed() {
		return s
	}
	for i, seg := range l.segments {
		r.segments.Add(1)
		if s = seg.copy(c, r); s.failed() {
			s = s.inSegment(i)
			break
		}
	}
	v.copies.end(r, s, s.failed() && c.Ctx.Err() != nil)
	return s
}

// copy copies a segment in pieces.
func (seg copySegment) copy(c *sam.Command, r *copyResult) sense {
	scratch := seg.from.unit.target.borrow()
	defer seg.from.unit.target.giveBack(scratch)
	for done := int64(0); done < seg.size; {
		if c.Ctx.Err() != nil {
			return aborted(codeCleared)
		}
		p := scratch[:min(scratchSize, seg.size-done)]
		if s := seg.copyPiece(c, p, done); s.failed() {
			return s
		}
		done += int64(len(p))
		r.bytes.Add(uint64(len(p)))
	}
	return sense{}
}

// copyPiece copies what p has room for. Holes stay holes. Who ends the commands on one of
// the units waits for it.
func (seg copySegment) copyPiece(c *sam.Command, p []byte, done int64) sense {
	from, to := seg.from.unit, seg.to.unit
	for _, u := range []*unit{from, to} {
		u.visits.enter()
		defer u.visits.leave()
	}
	if s := seg.admit(c); s.failed() {
		return s
	}
	if s := from.read(c, p, seg.fromOff+done); s.failed() {
		return thirdParty(s)
	}
	e := extent{seg.toOff + done, int64(len(p))}
	if allZero(p) {
		return thirdParty(to.zero(c, e))
	}
	return thirdParty(to.write(c, p, e.off, false))
}

// admit looks whether this I_T nexus might read the one unit and write the other by
// itself: reservations, write protection, access states and SANITIZE hold for copies,
// too. It is asked for every piece anew.
func (seg copySegment) admit(c *sam.Command) sense {
	op, _ := seg.from.port.target.ops.find(c.CDB)
	for _, end := range []struct {
		v *view
		a access
	}{{seg.from, accessReads}, {seg.to, accessStores}} {
		p := end.v.port
		if !p.sees(end.v) {
			return aborted(codeUnreachable) // removed meanwhile
		}
		g := end.v.unit.guard.Load()
		if g == nil {
			continue
		}
		if s := g.states[p.group].notActive(op); s.failed() {
			return thirdParty(s)
		}
		if s := g.sanitizing(op); s.failed() {
			return thirdParty(s)
		}
		if s := g.admit(p, end.a); s.failed() {
			return thirdParty(s)
		}
	}
	return sense{}
}

// thirdParty is what a copy ends with when a unit in it fails a command. What will
// pass, or is a full medium, is told as it is: hosts know what to do then.
func thirdParty(s sense) sense {
	if !s.failed() || s.key == gotgt.NOT_READY || s.code == codeSpaceAllocFailed {
		return s
	}
	return aborted(codeThirdParty)
}
