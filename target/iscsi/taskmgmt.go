package iscsi

import (
	"sync"

	"github.com/twinlun/twinlun/target/sam"
)

// taskManagement is a task management request that waits, in a worker, for the
// commands that it ends.
type taskManagement struct {
	s        *session
	q        taskRequest
	slot     slot
	response byte
	fence    sync.WaitGroup
}

// handleTaskRequest marks the commands that a request ends, at once and in the
// order of requests, and leaves the waiting to a worker.
func (s *session) handleTaskRequest(sl slot) error {
	if err := s.checkSegment(); err != nil {
		return err
	}
	m := &taskManagement{s: s, q: parseTaskRequest(&s.in.header), slot: sl}
	m.response = m.begin()
	s.log.Info("iscsi: task management", "function", m.q.function, "response", m.response)
	s.workers.submit(m)
	return nil
}

// begin aborts what the request is about and returns the response to send.
func (m *taskManagement) begin() byte {
	onLUN := func(c *command) bool { return c.scsi.LUN == m.q.lun }
	switch sam.TaskFunction(m.q.function) {
	case sam.AbortTask:
		return m.abortTask()
	case sam.AbortTaskSet, sam.ClearTaskSet, sam.LogicalUnitReset:
		if !m.s.nexus.HasLUN(m.q.lun) {
			return tmfNoLUN
		}
		if sam.TaskFunction(m.q.function) == sam.AbortTaskSet {
			m.s.tasks.abort(onLUN, &m.fence)
		} else {
			m.abortEverywhere(onLUN)
		}
	case sam.TargetWarmReset, sam.TargetColdReset:
		m.abortEverywhere(func(*command) bool { return true })
	case taskReassign:
		return tmfNoReassign
	default: // CLEAR ACA among them: no command sets up an ACA
		return tmfNotSupported
	}
	return tmfComplete
}

// abortTask ends one command. One that was not received yet counts as received
// (RFC 7143 section 11.6.1); on one connection only the very next can be meant.
func (m *taskManagement) abortTask() byte {
	one := func(c *command) bool { return c.scsi.Tag == m.q.refTag && c.scsi.LUN == m.q.lun }
	if m.s.tasks.abort(one, &m.fence) > 0 {
		return tmfComplete
	}
	exp := m.s.seq.exp.Load()
	if m.q.refCmdSN == exp && before(exp, m.s.in.header.u32(24)) && !before(m.s.seq.max.Load(), exp) {
		m.s.seq.exp.Add(1)
		m.s.seq.release(slotWindow)
		return tmfComplete
	}
	return tmfNoTask
}

// abortEverywhere ends commands of all sessions with the target.
func (m *taskManagement) abortEverywhere(match func(*command) bool) {
	for _, s := range m.s.srv.sessions.of(m.s.target) {
		s.tasks.abort(match, &m.fence)
	}
}

// run waits until the commands have ended, resets what is to be reset, and
// answers.
func (m *taskManagement) run() {
	m.fence.Wait()
	f := sam.TaskFunction(m.q.function)
	reset := f == sam.LogicalUnitReset || f == sam.TargetWarmReset || f == sam.TargetColdReset
	if reset && m.response == tmfComplete && !m.s.nexus.Reset(f, m.q.lun) {
		m.response = tmfNoLUN
	}
	cold := f == sam.TargetColdReset && m.response == tmfComplete
	if cold {
		m.endOthers()
	}
	n := &note{slot: m.slot, status: true, last: cold}
	r := taskResponse{m.q.tag, m.response}
	r.put(&n.header)
	m.s.queue.push(n)
}

// endOthers ends all other sessions with the target; that of the request ends
// after the response (RFC 7143 section 11.5.1).
func (m *taskManagement) endOthers() {
	for _, s := range m.s.srv.sessions.of(m.s.target) {
		if s != m.s {
			s.kill("target cold reset by " + m.s.port.Name)
		}
	}
}

// abortAll ends all commands of the session and waits for them.
func (s *session) abortAll() {
	var fence sync.WaitGroup
	s.tasks.abort(func(*command) bool { return true }, &fence)
	fence.Wait()
}
