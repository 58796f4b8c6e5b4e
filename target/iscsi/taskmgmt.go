package iscsi

import (
	"context"
	"slices"

	"github.com/twinlun/twinlun/target/sam"
)

// taskManagement is a task management request that waits, in a worker, for the
// commands that it ends.
type taskManagement struct {
	s        *session
	q        taskRequest
	slot     slot
	response byte
	fence    *fence
	cleared  []clearing // of others: commands that ended without an answer
}

// clearing is a logical unit of a nexus that lost commands: LUNs differ among nexuses.
type clearing struct {
	nexus sam.Nexus
	lun   [8]byte
}

// handleTaskRequest marks the commands that a request ends, at once and in the
// order of requests, and leaves the waiting to a worker.
func (s *session) handleTaskRequest(sl slot) error {
	if err := s.checkSegment(); err != nil {
		return err
	}
	m := &taskManagement{s: s, q: parseTaskRequest(&s.in.header), slot: sl, fence: newFence()}
	m.response = m.begin()
	s.log.Info("iscsi: task management", "function", m.q.function, "response", m.response)
	s.workers.submit(m)
	return nil
}

// begin aborts what the request is about and returns the response to send.
func (m *taskManagement) begin() byte {
	unit := m.s.unit(m.q.lun)
	onLUN := func(c *command) bool { return c.s.unit(c.scsi.LUN) == unit }
	switch sam.TaskFunction(m.q.function) {
	case sam.AbortTask:
		return m.abortTask()
	case sam.AbortTaskSet, sam.ClearTaskSet, sam.LogicalUnitReset:
		if !m.s.nexus.HasLUN(m.q.lun) {
			return tmfNoLUN
		}
		if sam.TaskFunction(m.q.function) == sam.AbortTaskSet {
			m.s.tasks.abort(onLUN, nil, m.fence)
		} else {
			m.abortEverywhere(onLUN)
		}
	case sam.TargetWarmReset, sam.TargetColdReset:
		m.abortEverywhere(m.s.onTarget())
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
	one := func(c *command) bool { return c.scsi.Tag == m.q.refTag && sameLUN(c.scsi.LUN, m.q.lun) }
	if m.s.tasks.abort(one, nil, m.fence) > 0 {
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

// abortEverywhere ends commands of all sessions, whatever their target: it may show the
// same logical units. Those of other initiators are answered if the logical unit's
// control mode page says so.
func (m *taskManagement) abortEverywhere(match func(*command) bool) {
	for _, s := range m.s.srv.sessions.normal() {
		if s == m.s {
			s.tasks.abort(match, nil, m.fence)
			continue
		}
		tell := func(c *command) bool {
			tas := s.tas(c.scsi.LUN)
			if one := (clearing{s.nexus, c.scsi.LUN}); !tas && !slices.Contains(m.cleared, one) {
				m.cleared = append(m.cleared, one)
			}
			return tas
		}
		s.tasks.abort(match, tell, m.fence)
	}
}

// run waits until the commands have ended, resets what is to be reset, and
// answers. When the session ends first, all is done but the waiting and the answer:
// others have lost their commands, and must hear of it.
func (m *taskManagement) run() {
	m.fence.wait(m.s.ctx)
	f := sam.TaskFunction(m.q.function)
	if f == sam.ClearTaskSet {
		for _, c := range m.cleared {
			c.nexus.Cleared(c.lun)
		}
	}
	reset := f == sam.ClearTaskSet || f == sam.LogicalUnitReset || f == sam.TargetWarmReset || f == sam.TargetColdReset
	if reset && m.response == tmfComplete && !m.s.nexus.Reset(m.s.ctx, f, m.q.lun) {
		m.response = tmfNoLUN
	}
	cold := f == sam.TargetColdReset && m.response == tmfComplete
	if cold {
		m.endOthers()
	}
	if m.s.ctx.Err() != nil {
		return
	}
	n := &note{slot: m.slot, status: true, last: cold}
	r := taskResponse{m.q.tag, m.response}
	r.put(&n.header)
	m.s.queue.push(n, true)
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
	f := newFence()
	s.tasks.abort(func(*command) bool { return true }, nil, f)
	f.wait(context.Background())
}

// tas tells whether commands on a logical unit that other nexuses end are answered.
func (s *session) tas(lun [8]byte) bool {
	u, ok := s.nexus.(sam.TaskUser)
	return ok && u.TAS(lun)
}

// nexusTasks are a session's commands as the device server sees them.
type nexusTasks struct{ s *session }

// Abort implements sam.Tasks.
func (t nexusTasks) Abort(lun [8]byte, by *sam.Command, tas bool) (silent int) {
	f := newFence()
	ended := t.s.tasks.abort(
		func(c *command) bool { return sameLUN(c.scsi.LUN, lun) && &c.scsi != by },
		func(*command) bool { return tas }, f)
	f.wait(by.Ctx)
	if tas {
		return 0
	}
	return ended
}

// unit names a logical unit, whatever its LUN is for this initiator.
func (s *session) unit(lun [8]byte) any {
	if n, ok := s.nexus.(sam.Mapped); ok {
		return n.Unit(lun)
	}
	return plainUnit{s.target.Device, plainLUN(lun)}
}

// plainUnit is a logical unit of a device that shows all initiators the same.
type plainUnit struct {
	device sam.Target
	lun    [8]byte
}

// onTarget tells of commands whether a reset of the session's target ends them: those
// of all sessions with it, and those that reach its logical units by way of another.
func (s *session) onTarget() func(*command) bool {
	units := map[any]bool{}
	if n, ok := s.nexus.(sam.Mapped); ok {
		for _, u := range n.Units() {
			units[u] = true
		}
	}
	return func(c *command) bool { return sameTarget(c.s.target, s.target) || units[c.s.unit(c.scsi.LUN)] }
}

// sameLUN tells whether two LUNs are one, whose number may be written in two
// ways: in peripheral device and in flat space addressing (SAM-5 4.7.6, 4.7.7).
func sameLUN(a, b [8]byte) bool { return plainLUN(a) == plainLUN(b) }

func plainLUN(lun [8]byte) [8]byte {
	if lun[0] == 0x40 {
		lun[0] = 0
	}
	return lun
}
