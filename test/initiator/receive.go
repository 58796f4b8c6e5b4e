package initiator

import "encoding/binary"

// receive owns the reading side of the connection, until the session ends.
func (s *Session) receive() {
	var h header
	for {
		if err := s.in.header(&h); err != nil {
			s.lose(unexpected(err))
			return
		}
		s.heard.Add(1)
		if err := s.dispatch(&h); err != nil {
			s.lose(err)
			return
		}
	}
}

func (s *Session) dispatch(h *header) error {
	if err := s.numbers(h); err != nil {
		return err
	}
	switch h.op() {
	case opDataIn:
		return s.dataIn(h)
	case opSCSIResponse:
		return s.scsiResponse(h)
	case opR2T:
		return s.r2t(h)
	case opNopIn:
		if h.u32(atITT) == noTag {
			return s.pinged(h)
		}
		return s.answered(h)
	case opTaskResponse, opLogoutResponse, opTextResponse:
		return s.answered(h)
	case opReject:
		return s.rejected(h)
	case opAsync:
		return s.asyncMessage(h)
	}
	return protocolError("PDU %#02x in the full feature phase", h.op())
}

// numbers checks and takes over the sequence numbers of a PDU
// (RFC 7143 sections 4.2.2.1 and 4.2.2.2).
func (s *Session) numbers(h *header) error {
	exp, most := h.u32(atExpCmd), h.u32(atMaxCmd)
	if int32(exp-s.cmdSN.Load()) > 0 {
		return protocolError("ExpCmdSN %d, the next command is %d", exp, s.cmdSN.Load())
	}
	if int32(most-exp) >= -1 { // otherwise both are to be ignored
		if int32(exp-s.expCmdSN) > 0 {
			s.expCmdSN = exp
		}
		s.openWindow(most)
	}
	carries, counts := true, true
	switch op := h.op(); {
	case op == opDataIn && h[1]&1 == 0:
		carries = false
	case op == opR2T, op == opNopIn && h.u32(atITT) == noTag:
		counts = false // it tells the next one, and does not use it up
	}
	if !carries {
		return nil
	}
	if got, want := h.u32(atStatSN), s.expStatSN.Load(); got != want {
		return protocolError("PDU %#02x with StatSN %d, expected %d", h.op(), got, want)
	}
	if counts {
		s.expStatSN.Add(1)
	}
	return nil
}

// lookUp finds the task of a PDU, live or given up, and returns it locked.
func (s *Session) lookUp(h *header) (*task, error) {
	tag := h.u32(atITT)
	if slot := tag & 0xffff; slot < uint32(len(s.tasks)) {
		t := &s.tasks[slot]
		t.mu.Lock()
		if t.tag == tag && t.inFlight() {
			return t, nil
		}
		t.mu.Unlock()
	}
	return nil, protocolError("PDU %#02x for task %#x, which is not in flight", h.op(), tag)
}

// dataIn puts data into its task's buffer (RFC 7143 section 11.7).
func (s *Session) dataIn(h *header) error {
	t, err := s.lookUp(h)
	if err != nil {
		return err
	}
	at, n := int(h.u32(atOffset)), s.in.size
	burst := s.params.MaxBurst
	if s.opts.Lenient {
		burst = t.expectIn
	}
	err = t.checkDataIn(h, at, n, burst)
	t.mu.Unlock()
	if err != nil {
		return err
	}
	for s.in.left > 0 {
		// The lock is not held while waiting, so that the caller can always have
		// its buffer back.
		chunk, err := s.in.chunk()
		if err != nil {
			return err
		}
		t.mu.Lock()
		if t.in != nil {
			copy(t.in[at:], chunk)
		}
		t.mu.Unlock()
		at += len(chunk)
		if err := s.in.take(chunk); err != nil {
			return err
		}
	}
	if h[1]&1 == 0 {
		return nil
	}
	t.mu.Lock()
	return s.endLocked(t, h, nil, nil)
}

// checkDataIn checks the numbers of a Data-In PDU and takes them over.
func (t *task) checkDataIn(h *header, at, n, maxBurst int) error {
	t.burst += n
	switch {
	case at != t.received:
		return protocolError("Data-In at offset %d, expected %d (DataPDUInOrder, DataSequenceInOrder)", at, t.received)
	case at+n > t.expectIn:
		return protocolError("Data-In up to offset %d of %d bytes expected", at+n, t.expectIn)
	case h.u32(atDataSN) != t.dataSN:
		return protocolError("Data-In with DataSN %d, expected %d", h.u32(atDataSN), t.dataSN)
	case t.burst > maxBurst:
		return protocolError("sequence of %d bytes of Data-In, MaxBurstLength is %d", t.burst, maxBurst)
	case h[1]&1 != 0 && h[1]&final == 0:
		return protocolError("Data-In with status but without the final bit (section 11.7.1)")
	}
	t.received += n
	t.dataSN++
	t.inSequence = h[1]&final == 0
	if !t.inSequence {
		t.burst = 0
	}
	return nil
}

// scsiResponse ends a task (RFC 7143 section 11.4).
func (s *Session) scsiResponse(h *header) error {
	data, err := s.in.data()
	if err != nil {
		return err
	}
	var sense []byte
	if len(data) >= 2 {
		n := int(binary.BigEndian.Uint16(data))
		if n > len(data)-2 {
			return protocolError("SCSI response with %d bytes of sense data, %d there", n, len(data)-2)
		}
		sense = data[2 : 2+n]
	}
	t, err := s.lookUp(h)
	if err != nil {
		return err
	}
	if h[2] != 0 {
		return s.endLocked(t, h, nil, &ResponseError{h[2]})
	}
	if err := t.checkResponse(h, s.opts.Lenient); err != nil {
		t.mu.Unlock()
		return err
	}
	return s.endLocked(t, h, sense, nil)
}

// checkResponse checks the count of Data-In PDUs; whether R2Ts count is left
// open, since readings of the RFC differ.
func (t *task) checkResponse(h *header, lenient bool) error {
	exp := h.u32(atDataSN)
	if !lenient && (t.expectIn > 0 && exp != t.dataSN || t.expectIn == 0 && exp != 0 && exp != t.r2tSN) {
		return protocolError("SCSI response with ExpDataSN %d after %d Data-In and %d R2T PDUs", exp, t.dataSN, t.r2tSN)
	}
	if h[3] == StatusGood && t.inSequence {
		return protocolError("status GOOD though the last Data-In lacks the final bit")
	}
	return nil
}

// endLocked ends a task with the status in a header, and unlocks it.
func (s *Session) endLocked(t *task, h *header, sense []byte, err error) error {
	r := Result{Status: h[3], Received: t.received, Sense: sense}
	if h[1]&6 != 0 {
		r.Residual = h.u32(atResidual)
		r.Overflow, r.Underflow = h[1]&4 != 0, h[1]&2 != 0
	}
	wrong := t.checkResidual(h, r, err)
	t.result = r
	s.settleLocked(t, err)
	return wrong
}

// checkResidual checks what a target says about the length of the data
// (RFC 7143 section 11.4.5).
func (t *task) checkResidual(h *header, r Result, err error) error {
	switch expect := t.expectIn + t.expectOut; {
	case r.Overflow && r.Underflow:
		return protocolError("both residual overflow and underflow")
	case err != nil || r.Status != StatusGood:
		return nil
	case r.Underflow && int64(r.Residual) > int64(expect):
		return protocolError("residual of %d bytes of %d expected", r.Residual, expect)
	case t.expectIn > 0 && r.Underflow && t.received != expect-int(r.Residual),
		t.expectIn > 0 && !r.Underflow && t.received != expect:
		return protocolError("%d bytes received of %d expected, residual %d (underflow %v)",
			t.received, expect, r.Residual, r.Underflow)
	}
	return nil
}

// settleLocked lets a task end, and unlocks it.
func (s *Session) settleLocked(t *task, err error) {
	if t.state == given {
		t.mu.Unlock()
		s.release(t)
		return
	}
	t.state, t.in = done, nil
	t.events <- event{err: err} // has room: r2t leaves one place free
	t.mu.Unlock()
}

// r2t hands a request for data to the task's caller (RFC 7143 section 11.8).
func (s *Session) r2t(h *header) error {
	if err := s.in.skip(); err != nil {
		return err
	}
	t, err := s.lookUp(h)
	if err != nil {
		return err
	}
	defer t.mu.Unlock()
	at, n := int(h.u32(atOffset)), int(h.u32(atResidual))
	switch {
	case h.u32(atDataSN) != t.r2tSN:
		return protocolError("R2T with R2TSN %d, expected %d", h.u32(atDataSN), t.r2tSN)
	case h.u32(atTTT) == noTag:
		return protocolError("R2T with the reserved transfer tag")
	case n == 0 || n > s.params.MaxBurst:
		return protocolError("R2T for %d bytes, MaxBurstLength is %d", n, s.params.MaxBurst)
	case at != t.solicited || at+n > t.expectOut:
		return protocolError("R2T for bytes %d to %d of %d, expected from %d", at, at+n, t.expectOut, t.solicited)
	case t.state == live && len(t.events) >= cap(t.events)-1:
		return protocolError("more than %d R2Ts outstanding", s.params.MaxOutstandingR2T)
	}
	t.r2tSN++
	t.solicited += n
	if t.state == live {
		t.events <- event{r2t: true, ttt: h.u32(atTTT), offset: at, len: n}
	}
	return nil
}

// pinged has a NOP-In answered that asks for it (RFC 7143 section 11.19).
func (s *Session) pinged(h *header) error {
	data, err := s.in.data()
	if err != nil || h.u32(atTTT) == noTag {
		return err
	}
	ping := *h
	select {
	case s.errands <- errand{ping: &ping, data: data[:min(len(data), s.params.MaxSend)]}:
		return nil
	default:
		return protocolError("%d pings and aborts wait to be sent: the target pings without reading", cap(s.errands))
	}
}

// rejected ends the task whose PDU the target refused.
func (s *Session) rejected(h *header) error {
	bad, err := s.in.data()
	if err != nil {
		return err
	}
	reject := &RejectError{h[2]}
	if len(bad) < len(header{}) {
		return protocolError("reject, reason %#02x, without the header of what was rejected", h[2])
	}
	theirs := header(bad[:48])
	if s.settleExchange(theirs.u32(atITT), reply{err: reject}) {
		return nil
	}
	t, err := s.lookUp(&theirs)
	if err != nil {
		return reject
	}
	s.settleLocked(t, reject)
	return nil
}

// asyncMessage ends the session when the target says that it wants that
// (RFC 7143 section 11.9.1).
func (s *Session) asyncMessage(h *header) error {
	if err := s.in.skip(); err != nil {
		return err
	}
	if event := h[36]; event >= 1 && event <= 3 {
		return &AsyncError{event}
	}
	return nil
}
