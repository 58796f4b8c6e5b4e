package initiator

import (
	"context"
	"fmt"
)

// exchange is a request other than a SCSI command, on its way.
type exchange struct {
	answer chan reply // nil: nobody waits
	// With an abort of a task that was given up:
	abandoned *task
	tag       uint32
}

// reply is what came back.
type reply struct {
	h    header
	data []byte
	err  error
}

// register gives an exchange its task tag: those of commands have slots below
// 4096 in the lower half.
func (s *Session) register(e *exchange) uint32 {
	s.others.Lock()
	defer s.others.Unlock()
	for {
		s.others.next++
		tag := s.others.next>>14<<16 | 0x8000 | s.others.next&0x3fff
		if _, used := s.others.pending[tag]; !used {
			s.others.pending[tag] = e
			return tag
		}
	}
}

// sendImmediate sends an immediate request: it has no place of its own in the
// order of commands (RFC 7143 section 4.2.2.1). It returns the CmdSN it carried.
func (s *Session) sendImmediate(h *header, data []byte) error {
	s.lockSending()
	defer s.unlockSending()
	h.set32(atCmdSN, s.cmdSN.Load())
	h.set32(atExpStat, s.expStatSN.Load())
	return s.sending.out.pdu(h, nil, data)
}

// exchange sends a request and waits for its answer.
func (s *Session) exchange(ctx context.Context, h *header, data []byte) (reply, error) {
	e := &exchange{answer: make(chan reply, 1)}
	h.set32(atITT, s.register(e))
	if err := s.sendImmediate(h, data); err != nil {
		s.lose(err)
	}
	select {
	case r := <-e.answer:
		return r, r.err
	case <-ctx.Done():
		// It stays registered: the answer may come yet.
		return reply{}, context.Cause(ctx)
	case <-s.gone:
	}
	select {
	case r := <-e.answer: // it came before the end
		return r, r.err
	default:
		return reply{}, s.err
	}
}

// answered hands an answer over.
func (s *Session) answered(h *header) error {
	data, err := s.in.data()
	if err != nil {
		return err
	}
	if !s.settleExchange(h.u32(atITT), reply{h: *h, data: data}) {
		return protocolError("PDU %#02x for task %#x, which is not in flight", h.op(), h.u32(atITT))
	}
	return nil
}

// settleExchange ends an exchange; false: there is none of that tag.
func (s *Session) settleExchange(tag uint32, r reply) bool {
	s.others.Lock()
	e := s.others.pending[tag]
	delete(s.others.pending, tag)
	s.others.Unlock()
	if e == nil {
		return false
	}
	if e.abandoned != nil && r.err == nil && r.h[2] <= taskUnknown {
		s.settleTag(e.abandoned, e.tag)
	}
	if e.answer != nil {
		e.answer <- r
	}
	return true
}

// settleTag ends a task that the target will say nothing about any more.
func (s *Session) settleTag(t *task, tag uint32) {
	t.mu.Lock()
	if t.tag != tag || !t.inFlight() {
		t.mu.Unlock()
		return
	}
	s.settleLocked(t, ErrAborted)
}

// TaskFunction is a task management function (RFC 7143 section 11.5.1).
type TaskFunction byte

// The functions that a target may know.
const (
	FunctionAbortTask       TaskFunction = 1
	FunctionAbortTaskSet    TaskFunction = 2
	FunctionClearTaskSet    TaskFunction = 4
	FunctionLUNReset        TaskFunction = 5
	FunctionTargetWarmReset TaskFunction = 6
	FunctionTargetColdReset TaskFunction = 7
)

// Responses to task management (RFC 7143 section 11.6.1).
const (
	taskComplete = 0
	taskUnknown  = 1
)

// TaskError is a response to a task management function other than "complete":
// 1 no such task, 2 no such LUN, 5 not supported, 255 rejected …
type TaskError struct {
	Function TaskFunction
	Response byte
}

func (e *TaskError) Error() string {
	return fmt.Sprintf("task management function %d: response %d", e.Function, e.Response)
}

// AbortTask aborts the task of a tag that Request.Started was told. Its Do then
// returns ErrAborted, unless it ended before.
func (s *Session) AbortTask(ctx context.Context, tag uint32) error {
	h := s.abort(tag)
	if err := s.manage(ctx, &h); err != nil {
		return err
	}
	if slot := tag & 0xffff; slot < uint32(len(s.tasks)) {
		s.settleTag(&s.tasks[slot], tag)
	}
	return nil
}

// abort makes the request that aborts a task.
func (s *Session) abort(tag uint32) (h header) {
	h[0], h[1] = opTaskRequest|immediate, final|byte(FunctionAbortTask)
	h.set32(20, tag)
	copy(h[atLUN:], s.lun[:])
	h.set32(32, s.cmdSN.Load()) // RefCmdSN of a task that we do not know
	if slot := tag & 0xffff; slot < uint32(len(s.tasks)) {
		t := &s.tasks[slot]
		t.mu.Lock()
		if t.tag == tag {
			copy(h[atLUN:], t.lun[:])
			h.set32(32, t.cmdSN)
		}
		t.mu.Unlock()
	}
	return h
}

// sendAbort aborts a task that was given up; its slot is free again when the
// answer is there, or the task's own response.
func (s *Session) sendAbort(t *task, tag uint32) error {
	h := s.abort(tag)
	h.set32(atITT, s.register(&exchange{abandoned: t, tag: tag}))
	return s.sendImmediate(&h, nil)
}

// LUNReset resets the session's logical unit.
func (s *Session) LUNReset(ctx context.Context) error {
	return s.Manage(ctx, FunctionLUNReset, s.lun)
}

// Manage carries out a task management function other than AbortTask. This
// session's commands that it ends return ErrAborted.
func (s *Session) Manage(ctx context.Context, f TaskFunction, lun [8]byte) error {
	var h header
	h[0], h[1] = opTaskRequest|immediate, final|byte(f)
	copy(h[atLUN:], lun[:])
	h.set32(20, noTag)
	if err := s.manage(ctx, &h); err != nil {
		return err
	}
	before := h.u32(atCmdSN)
	all := f == FunctionTargetWarmReset || f == FunctionTargetColdReset
	for i := range s.tasks {
		t := &s.tasks[i]
		t.mu.Lock()
		if t.inFlight() && t.sentBefore(before) && (all || t.lun == lun) {
			s.settleLocked(t, ErrAborted)
			continue
		}
		t.mu.Unlock()
	}
	return nil
}

// inFlight tells whether the target may have the task; with mu held.
func (t *task) inFlight() bool { return t.sent && (t.state == live || t.state == given) }

func (t *task) sentBefore(cmdSN uint32) bool { return int32(t.cmdSN-cmdSN) < 0 }

func (s *Session) manage(ctx context.Context, h *header) error {
	f := TaskFunction(h[1] & 0x7f)
	r, err := s.exchange(ctx, h, nil)
	if err != nil {
		return fmt.Errorf("task management function %d: %w", f, err)
	}
	if r.h.op() != opTaskResponse {
		return fmt.Errorf("task management function %d: answered by PDU %#02x", f, r.h.op())
	}
	if r.h[2] != taskComplete {
		return &TaskError{f, r.h[2]}
	}
	return nil
}
