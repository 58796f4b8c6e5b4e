package iscsi

// transfer follows the Data-Out of one command: what may come, what came, what
// is to be asked for. Both DataPDUInOrder and DataSequenceInOrder are always
// Yes, so data comes in ascending order of offsets, without gaps. Pure.
type transfer struct {
	want     uint32 // bytes of data that the command takes
	expected uint32 // bytes that the initiator has; what is over want is thrown away
	next     uint32 // buffer offset of the next byte to come
	asked    uint32 // end of what was asked for
	dataSN   uint32 // of the next Data-Out of the sequence that is coming
	r2tSN    uint32 // of the next R2T

	unsolicited bool   // the sequence of unsolicited data is coming
	burstEnd    uint32 // its end at most
	open        [maxR2T]sequence
	opened      uint32 // how many of open
}

// sequence is what one R2T asked for.
type sequence struct {
	transferTag uint32
	end         uint32 // buffer offset
}

// begin starts with the command itself: immediate bytes of data came with it,
// and, unless it is final, unsolicited Data-Out follow. What is wrong with that
// comes back as sense data; the sequences that are under way stay open then.
func (t *transfer) begin(want, expected, immediate uint32, final bool, p *params) sense {
	*t = transfer{
		want: want, expected: expected, next: immediate, asked: immediate,
		unsolicited: !final, burstEnd: min(expected, p.firstBurst),
	}
	switch {
	case immediate > 0 && !p.immediateData, !final && p.initialR2T:
		return senseUnexpectedData
	case immediate > t.burstEnd:
		return senseWrongAmount
	}
	return nil
}

// waiting tells whether Data-Out are still to come, for which an answer must wait.
func (t *transfer) waiting() bool { return t.unsolicited || t.opened > 0 }

// lacks tells whether data is missing that must be asked for.
func (t *transfer) lacks() bool { return !t.unsolicited && t.asked < t.want }

// ask opens the next sequence, if there is something to ask for and room for
// another R2T.
func (t *transfer) ask(transferTag uint32, p *params) (r readyToTransfer, ok bool) {
	if !t.lacks() || t.opened >= min(p.maxR2T, maxR2T) {
		return r, false
	}
	end := t.asked + min(t.want-t.asked, p.maxBurst)
	r = readyToTransfer{transferTag: transferTag, r2tSN: t.r2tSN, offset: t.asked, length: end - t.asked}
	t.open[t.opened] = sequence{transferTag, end}
	t.opened++
	t.r2tSN++
	t.asked = end
	return r, true
}

// arrive takes a Data-Out. What is wrong with it comes back as sense data; a
// final one closes its sequence in any case.
func (t *transfer) arrive(d dataOut) sense {
	wrong := t.checkArrival(d)
	t.next += d.length
	t.dataSN++
	if d.final {
		t.closeSequence()
	}
	return wrong
}

func (t *transfer) checkArrival(d dataOut) sense {
	tag, end := uint32(noTag), t.burstEnd
	if !t.unsolicited {
		if t.opened == 0 {
			return senseUnexpectedData
		}
		tag, end = t.open[0].transferTag, t.open[0].end
	}
	switch {
	case d.transferTag != tag:
		return senseUnexpectedData
	case d.dataSN != t.dataSN, d.offset != t.next, d.length > end-t.next:
		return senseWrongAmount
	case d.final && !t.unsolicited && d.offset+d.length != end:
		return senseWrongAmount
	}
	return nil
}

func (t *transfer) closeSequence() {
	t.dataSN = 0
	if t.unsolicited {
		t.unsolicited = false
		t.asked = t.next
		return
	}
	if t.opened > 0 {
		copy(t.open[:], t.open[1:t.opened])
		t.opened--
	}
}

// sense is fixed format sense data (SPC-4 section 4.5.3).
type sense []byte

func newSense(key, asc, ascq byte) sense {
	return sense{0: 0x70, 2: key, 7: 10, 12: asc, 13: ascq, 17: 0}
}

// What the transport itself answers (RFC 7143 section 11.4.7.2).
var (
	senseUnexpectedData = newSense(0x0b, 0x0c, 0x0c)
	senseWrongAmount    = newSense(0x0b, 0x0c, 0x0d)
	senseDataDigest     = newSense(0x0b, 0x47, 0x05)
	senseBadUnit        = newSense(0x05, 0x0e, 0x03) // invalid field in command information unit
	senseNoACA          = newSense(0x05, 0x49, 0x00) // invalid message: there is no ACA
	senseTooLarge       = newSense(0x05, 0x24, 0x00) // invalid field in CDB
)
