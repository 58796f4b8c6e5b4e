package initiator

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
)

// Request is one SCSI command.
type Request struct {
	LUN [8]byte // as on the wire, see EncodeLUN
	CDB []byte  // 1 to 260 bytes
	// Out or In is the command's data buffer; their length is the expected data
	// transfer length. Not both.
	Out, In []byte
	// Started, if not nil, is told the task's tag before the command is sent.
	Started func(tag uint32)
}

// Result is how a command ended.
type Result struct {
	Status              byte
	Received            int    // bytes of In that were received
	Residual            uint32 // bytes that …
	Underflow, Overflow bool   // … were not transferred, or did not fit
	Sense               []byte
}

// State of a task. Its slot is in s.free when it is idle.
const (
	idle  = iota
	live  // its caller waits
	done  // its last event is on the way to its caller
	given // up: nobody waits, the target has yet to end it
)

// task is a slot for a command in flight.
type task struct {
	slot   uint32
	events chan event // R2Ts, then how it ended
	// Owned by the caller.
	cdb [16]byte
	ahs []byte

	mu    sync.Mutex // receive and the caller share what follows
	state int
	tag   uint32
	lun   [8]byte
	cmdSN uint32
	sent  bool   // the target may know of it
	in    []byte // nil once given up

	expectIn, expectOut int
	received            int // bytes of Data-In, in order
	solicited           int // bytes of Data-Out sent or asked for, in order
	dataSN, r2tSN       uint32
	burst               int // bytes of the present Data-In sequence
	inSequence          bool
	result              Result
}

// event is what a task's caller has to know.
type event struct {
	r2t         bool
	ttt         uint32
	offset, len int
	err         error // with the last event
}

// acquire takes a slot for a new command.
func (s *Session) acquire(ctx context.Context) (*task, error) {
	select {
	case t := <-s.free:
		return t, nil
	case <-s.gone:
		return nil, s.err
	default:
	}
	select {
	case t := <-s.free:
		return t, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-s.gone:
		return nil, s.err
	}
}

// prepare makes a slot ready for a command.
func (t *task) prepare(lun [8]byte, in []byte, out int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tag = (t.tag>>16+1)<<16 | t.slot
	t.lun, t.in, t.expectIn, t.expectOut = lun, in, len(in), out
	t.received, t.solicited, t.dataSN, t.r2tSN, t.burst = 0, 0, 0, 0, 0
	t.inSequence, t.sent = false, false
	t.result = Result{}
	t.state = live
}

// release gives a slot back. Nothing about its task is on the way any more.
func (s *Session) release(t *task) {
	t.mu.Lock()
	t.state, t.in = idle, nil
	t.mu.Unlock()
	s.free <- t
}

// Do runs one command. A status other than GOOD is an error (*CheckCondition,
// *StatusError), and the Result holds it too. When ctx ends first, Do returns at
// once, touches the buffers no more, and has the command aborted; whether it was
// carried out is then not known.
func (s *Session) Do(ctx context.Context, r *Request) (Result, error) {
	if len(r.CDB) == 0 || len(r.CDB) > 260 || len(r.Out) > 0 && len(r.In) > 0 {
		return Result{}, fmt.Errorf("initiator: CDB of %d bytes, %d bytes out, %d in", len(r.CDB), len(r.Out), len(r.In))
	}
	t, err := s.acquire(ctx)
	if err != nil {
		return Result{}, err
	}
	t.setCDB(r.CDB)
	t.prepare(r.LUN, r.In, len(r.Out))
	if r.Started != nil {
		r.Started(t.tag)
	}
	return s.execute(ctx, t, r.Out)
}

// Command runs one command on the session's logical unit, as Do does.
func (s *Session) Command(ctx context.Context, cdb, out, in []byte) (Result, error) {
	return s.Do(ctx, &Request{LUN: s.lun, CDB: cdb, Out: out, In: in})
}

// setCDB puts what does not fit into the header in an additional header segment
// (RFC 7143 section 11.2.2.3).
func (t *task) setCDB(cdb []byte) {
	clear(t.cdb[copy(t.cdb[:], cdb):])
	t.ahs = t.ahs[:0]
	if len(cdb) <= 16 {
		return
	}
	t.ahs = binary.BigEndian.AppendUint16(t.ahs, uint16(len(cdb)-15))
	t.ahs = append(t.ahs, 1, 0)
	t.ahs = append(t.ahs, cdb[16:]...)
	t.ahs = append(t.ahs, make([]byte, padding(len(t.ahs)))...)
}

// execute sends a prepared command and sees it through.
func (s *Session) execute(ctx context.Context, t *task, out []byte) (Result, error) {
	if err := s.sendCommand(ctx, t, out); err != nil {
		s.release(t) // the target knows nothing of it, or the session is gone
		return Result{}, err
	}
	for {
		select {
		case e := <-t.events:
			if !e.r2t {
				return s.finish(t, e)
			}
			s.sendSolicited(t, out, e)
		case <-ctx.Done():
			return s.giveUp(t, context.Cause(ctx))
		case <-s.gone:
			return s.giveUp(t, s.err)
		}
	}
}

// finish takes the result out of a task that has ended.
func (s *Session) finish(t *task, e event) (Result, error) {
	r, err := t.result, e.err
	s.release(t)
	if err != nil {
		return r, err
	}
	switch r.Status {
	case StatusGood:
		return r, nil
	case StatusCheckCondition:
		return r, senseError(r.Sense)
	}
	return r, &StatusError{r.Status}
}

// giveUp leaves a task to itself, unless it has ended just now.
func (s *Session) giveUp(t *task, why error) (Result, error) {
	t.mu.Lock()
	if t.state == done {
		t.mu.Unlock()
		e := <-t.events
		for e.r2t {
			e = <-t.events
		}
		return s.finish(t, e)
	}
	t.state, t.in = given, nil
	for len(t.events) > 0 {
		<-t.events // R2Ts that nobody will answer
	}
	received := t.received
	tag := t.tag
	t.mu.Unlock()
	select {
	case s.errands <- errand{abandon: t, tag: tag}:
	case <-s.gone:
	}
	return Result{Received: received}, why
}

// sendCommand sends the command with its immediate and unsolicited data.
func (s *Session) sendCommand(ctx context.Context, t *task, out []byte) error {
	unsolicited := 0
	if !s.params.InitialR2T {
		unsolicited = min(len(out), s.params.FirstBurst)
	}
	now := 0
	if s.params.ImmediateData {
		now = min(len(out), s.params.FirstBurst, s.params.MaxSend)
	}
	unsolicited = max(unsolicited, now)
	if err := s.lockWindow(ctx); err != nil {
		return err
	}
	defer s.unlockSending()
	if err := s.Err(); err != nil {
		return err
	}
	h := &s.sending.scratch
	*h = header{0: opSCSICommand, 1: 1} // a simple task
	switch {
	case len(out) > 0:
		h[1] |= 0x20
		h.set32(20, uint32(len(out)))
	case t.expectIn > 0:
		h[1] |= 0x40
		h.set32(20, uint32(t.expectIn))
	}
	if unsolicited == now {
		h[1] |= final
	}
	copy(h[32:], t.cdb[:])
	s.number(t, unsolicited, h)
	err := s.sending.out.pdu(h, t.ahs, out[:now])
	if err == nil && unsolicited > now {
		err = s.sendDataLocked(t, out[:unsolicited], now, noTag)
	}
	if err != nil {
		s.lose(err)
	}
	return nil // from here on the task ends by an event, or with the session
}

// number gives the command its place in the order of commands.
func (s *Session) number(t *task, unsolicited int, h *header) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cmdSN, t.sent, t.solicited = s.cmdSN.Load(), true, unsolicited
	copy(h[atLUN:], t.lun[:])
	h.set32(atITT, t.tag)
	h.set32(atCmdSN, t.cmdSN)
	h.set32(atExpStat, s.expStatSN.Load())
	s.cmdSN.Add(1)
}

// sendSolicited sends the data that an R2T asks for. Each PDU takes its turn with
// those of other commands.
func (s *Session) sendSolicited(t *task, out []byte, e event) {
	for at, sn := e.offset, uint32(0); at < e.offset+e.len; sn++ {
		end := min(at+s.params.MaxSend, e.offset+e.len)
		s.lockSending()
		err := s.sendDataOut(t, out[at:end], at, sn, e.ttt, end == e.offset+e.len)
		s.unlockSending()
		if err != nil {
			s.lose(err)
			return
		}
		at = end
	}
}

// sendDataLocked sends out[at:] in Data-Out PDUs.
func (s *Session) sendDataLocked(t *task, out []byte, at int, ttt uint32) error {
	for sn := uint32(0); at < len(out); sn++ {
		end := min(at+s.params.MaxSend, len(out))
		if err := s.sendDataOut(t, out[at:end], at, sn, ttt, end == len(out)); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// sendDataOut sends one Data-Out PDU, with sending held.
func (s *Session) sendDataOut(t *task, data []byte, at int, sn, ttt uint32, last bool) error {
	h := &s.sending.scratch
	*h = header{0: opDataOut}
	if last {
		h[1] = final
	}
	copy(h[atLUN:], t.lun[:])
	h.set32(atITT, t.tag)
	h.set32(atTTT, ttt)
	h.set32(atExpStat, s.expStatSN.Load())
	h.set32(atDataSN, sn)
	h.set32(atOffset, uint32(at))
	return s.sending.out.pdu(h, nil, data)
}
