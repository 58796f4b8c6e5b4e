package iscsi

import "errors"

// maxTransfer is the most that one command may move, in bytes. Limits see to it
// that a session's budget is not smaller.
const maxTransfer = 1 << maxClass

// small is up to which size transfers are bounded by the number of commands
// alone, in bytes. They never wait for the budget, and so neither does the
// reader, which must take unsolicited data whatever happens.
func (s *session) small() uint32 { return s.srv.cfg.Limits.FirstBurstLength }

// handleSCSI takes a SCSI command, with its immediate data.
func (s *session) handleSCSI(sl slot) error {
	q, err := parseSCSICommand(&s.in.header, s.in.ahs)
	if err != nil {
		return err
	}
	c := s.tasks.get(s)
	c.fill(&q, &s.in.header, sl)
	if !s.tasks.add(c) {
		s.tasks.put(c)
		s.reject(rejectTaskInFlight, sl)
		return nil
	}
	s.prepare(c, &q)
	if err := s.begin(c, &q); err != nil {
		s.abandon(c)
		return err
	}
	s.proceed(c)
	return nil
}

// prepare lets the device look at a command.
func (s *session) prepare(c *command, q *scsiCommand) {
	switch {
	case q.bidi, q.read && q.write, q.attribute > aca:
		c.fail(senseBadUnit) // no command of a disk is bidirectional
	case q.attribute == aca:
		c.fail(senseNoACA)
	case !s.nexus.Prepare(&c.scsi):
		c.ended = true
	case min(c.scsi.WantOut, c.scsi.ExpectOut) > maxTransfer, min(c.scsi.WantIn, c.scsi.ExpectIn) > maxTransfer:
		s.log.Error("iscsi: the device wants a larger transfer than the transport carries",
			"out", c.scsi.WantOut, "in", c.scsi.WantIn, "limit", maxTransfer)
		c.fail(senseTooLarge)
	}
}

// begin gets a buffer for the data of a write, as far as one is to be had
// without waiting, and reads the immediate data into it.
func (s *session) begin(c *command, q *scsiCommand) error {
	if !q.write {
		return nil
	}
	var want uint32
	if !c.ended {
		want = min(c.scsi.WantOut, c.scsi.ExpectOut)
	}
	immediate := uint32(s.in.left)
	if wrong := c.xfer.begin(want, q.expected, immediate, q.final, &s.params); wrong != nil {
		c.fail(wrong)
	}
	if want > 0 && !c.ended {
		s.makeRoom(c, want, immediate > 0 || !q.final)
	}
	return s.takeSegment(c, 0)
}

// makeRoom gets a buffer for all data of a write; if that is large and there is
// no memory for it now, then, if needed, one for its first burst.
func (s *session) makeRoom(c *command, want uint32, firstBurst bool) {
	switch {
	case want <= s.small():
		c.whole = true
	case c.turn == nil && s.budget.try(int64(want)):
		c.whole, c.charged = true, int64(want)
	case firstBurst:
		want = s.small()
	default:
		return
	}
	c.data = s.srv.buffers.get(int(want))
}

// takeSegment reads the data segment to its place in a command's buffer. What
// finds no place is thrown away: more than the command takes, or data of a
// command that has failed.
func (s *session) takeSegment(c *command, offset uint32) error {
	if c.data != nil && !c.ended && offset < c.xfer.want {
		n := min(uint32(s.in.left), c.xfer.want-offset)
		if err := s.in.read(c.data.bytes[offset : offset+n]); err != nil {
			return err
		}
	}
	err := s.in.finish()
	if errors.Is(err, errDataDigest) {
		s.reject(rejectDataDigest, slotNone)
		c.fail(senseDataDigest)
		return nil
	}
	return err
}

// handleDataOut takes a Data-Out. One that belongs to no command that waits for
// it is a leftover of an aborted one.
func (s *session) handleDataOut() error {
	d := parseDataOut(&s.in.header)
	c := s.tasks.unpark(d.tag)
	if c == nil {
		return s.in.finish()
	}
	offset := c.xfer.next
	if wrong := c.xfer.arrive(d); wrong != nil {
		c.fail(wrong)
	}
	if err := s.takeSegment(c, offset); err != nil {
		s.abandon(c)
		return err
	}
	s.proceed(c)
	return nil
}

// proceed does with a command what comes next; the caller owns it, and does not
// afterwards.
func (s *session) proceed(c *command) {
	if c.xfer.lacks() && !c.ended && !c.whole {
		c.job = (*session).waitForRoom
		s.workers.submit(c)
		return
	}
	var r2ts []*note
	if !c.ended {
		r2ts = s.askForData(c)
	}
	switch {
	case c.xfer.waiting():
		if !s.tasks.park(c, s.queue, r2ts) {
			s.end(c)
		}
	case c.ended:
		s.end(c)
	case s.tryNow(c):
		s.end(c)
	default:
		c.job = (*session).execute
		s.next = c
	}
}

// tryNow executes a command here, if that takes no waiting. What it reads is no
// more than a few pages, so that others do not wait for it either.
func (s *session) tryNow(c *command) bool {
	if s.trier == nil || c.turn != nil || c.xfer.want > 0 || min(c.scsi.WantIn, c.scsi.ExpectIn) > s.small() || c.ctx.Err() != nil {
		return false
	}
	return s.provide(c) && s.trier.TryExecute(&c.scsi)
}

// askForData makes the R2Ts that may be sent now.
func (s *session) askForData(c *command) (r2ts []*note) {
	r2ts = c.r2ts[:0]
	for {
		r, ok := c.xfer.ask(s.transferTag(), &s.params)
		if !ok {
			return r2ts
		}
		r.lun, r.tag = c.scsi.LUN, c.scsi.Tag
		n := s.srv.r2t()
		r.put(&n.header)
		r2ts = append(r2ts, n)
	}
}

// waitForRoom waits for memory for the data of a large write, in a worker.
func (s *session) waitForRoom(c *command) {
	c.awaitTurn()
	want := c.xfer.want
	if !s.budget.take(&c.ctx, int64(want)) {
		s.end(c)
		return
	}
	c.whole, c.charged = true, int64(want)
	first := c.data
	c.data = s.srv.buffers.get(int(want))
	if first != nil {
		copy(c.data.bytes, first.bytes[:min(c.xfer.next, want)])
		s.srv.buffers.put(first)
	}
	s.proceed(c) // sends R2Ts
}

// execute runs a command, in a worker.
func (s *session) execute(c *command) {
	c.awaitTurn()
	if s.provide(c) && c.ctx.Err() == nil {
		s.nexus.Execute(&c.scsi)
	}
	s.end(c)
}

// provide sets the buffers that the device works with. False: the command was
// aborted.
func (s *session) provide(c *command) bool {
	if c.xfer.want > 0 {
		c.scsi.Out = c.data.bytes[:c.xfer.want]
		return true
	}
	n := min(c.scsi.WantIn, c.scsi.ExpectIn)
	if n == 0 || c.data != nil {
		return true
	}
	if n > s.small() {
		if !s.budget.take(&c.ctx, int64(n)) {
			return false
		}
		c.charged = int64(n)
	}
	c.data = s.srv.buffers.get(int(n))
	c.scsi.In = c.data.bytes[:n]
	return true
}

// end sends the answer to a command that the caller owns, unless it was aborted
// and is not to be answered.
func (s *session) end(c *command) {
	switch ok, last := s.tasks.finish(c, s.queue); {
	case !ok:
		s.discard(c)
	case last:
		s.writer.sendNow(s.queue, false)
	}
}

// discard ends an aborted command that the caller owns.
func (s *session) discard(c *command) {
	s.tasks.drop(c)
	s.free(c)
}

// abandon ends a command that the caller owns, and whose data cannot be read: it
// must not be answered, least of all with GOOD.
func (s *session) abandon(c *command) {
	s.tasks.markAborted(c)
	s.discard(c)
}

// free ends an aborted command that is in the table no more.
func (s *session) free(c *command) {
	fences := append([]*fence(nil), c.fences...)
	s.seq.release(c.slot)
	s.recycle(c)
	for _, f := range fences {
		f.done()
	}
}

// recycle gives back what a command holds, and the command itself.
func (s *session) recycle(c *command) {
	if c.data != nil {
		s.srv.buffers.put(c.data)
	}
	if c.charged > 0 {
		s.budget.give(c.charged)
	}
	s.tasks.put(c)
}
