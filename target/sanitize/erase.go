package sanitize

import "time"

const (
	// overwriteStep is how much is overwritten at once, in bytes.
	overwriteStep = 256 << 10
	// eraseStep is how much becomes a hole at once: it makes little data.
	eraseStep = 64 << 20
	// stretch and eraseStretch are how much is written, in bytes, before it is waited for
	// until it is durable at both sites. What counts as done is done at both, whatever
	// fails later; and no more than this is on its way over the link.
	stretch      = 256 << 20
	eraseStretch = 4 << 30
	// telling is how often the other site hears of the progress.
	telling = 2 * time.Second
	// looking is how often it is looked whether all has been copied.
	looking = 100 * time.Millisecond
)

// erase is the task of a site that is Running. It ends with the order, or with s.ctx.
func (s *Sanitizer) erase(o Order) {
	defer s.erased()
	err := s.eraseAll(o)
	if err != nil && s.leads(o) {
		s.cfg.Log.Error("the LUN cannot be sanitized; hosts are not served before it has been, or a host gives up with EXIT FAILURE MODE, where that is allowed", "err", err)
	}
	for s.leads(o) {
		if e := s.finish(o, err); e != nil {
			s.cfg.Log.Error("the end of a sanitize operation waits", "err", e, "next try", again)
			s.pause(again)
		}
	}
}

// finish ends the order. When the LUN is erased hosts are served again: first at the
// other site, if it can be told now, so that who hears of the end finds both open.
func (s *Sanitizer) finish(o Order, failure error) error {
	s.mu.Lock()
	next := s.state.over()
	if failure != nil {
		next = s.state.failed(o.AUSE)
	}
	s.shut = failure == nil
	err := s.toLocked(next)
	s.mu.Unlock()
	if err == nil {
		s.exchange(s.ctx) // or the teller, when that is possible
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shut = false
	s.effectLocked()
	return err
}

// erased: the task has ended; another order may have come.
func (s *Sanitizer) erased() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erasing = false
	s.effectLocked()
}

// leads tells whether this site is to go on with the order.
func (s *Sanitizer) leads(o Order) bool {
	now := s.State()
	return now.Phase == Running && now.Order.same(&o) && s.ctx.Err() == nil
}

// eraseAll goes through the LUN. It begins when the other site follows, and is done when
// that has all of it. An error is the disk's.
func (s *Sanitizer) eraseAll(o Order) error {
	for s.leads(o) && !s.confirmed(o) {
		s.pause(again)
	}
	most := int64(stretch)
	if o.Method == Erase {
		most = eraseStretch
	}
	for s.leads(o) {
		size, done := s.cfg.Disk.Size(), s.State().Done
		if done >= size*int64(o.rounds()) {
			return nil
		}
		// A pass ends durably at both sites before the next one begins: or it would be
		// done in memory only.
		end := min(done+most, (done/size+1)*size)
		err := s.stretch(o, done, end, size)
		if err == nil {
			err = s.settle(o)
		}
		if err != nil && s.ctx.Err() == nil {
			return err
		}
		s.save(o, end)
	}
	return nil
}

// confirmed asks whether the other site follows, at each start of this one.
func (s *Sanitizer) confirmed(o Order) bool {
	answer, err := s.exchange(s.ctx)
	return err == nil && answer.Phase == Following && answer.Order.same(&o)
}

// stretch writes from one offset to another, in bytes of all passes together, within
// one pass.
func (s *Sanitizer) stretch(o Order, from, to, size int64) error {
	p := o.buffer(int(from/size), s.cfg.BlockSize)
	began, told := time.Now(), time.Now()
	for at := from; at < to && s.leads(o); {
		if time.Since(told) > telling {
			told = time.Now()
			s.progress()
		}
		before := time.Now()
		n, err := s.write(o, p, at%size, to-at)
		if err != nil {
			return err
		}
		at += n
		s.mu.Lock()
		s.reached = at
		s.mu.Unlock()
		s.pace(o, at-from, began, before)
	}
	return nil
}

// write erases what follows off, up to most, and tells how much that was, in bytes.
func (s *Sanitizer) write(o Order, p []byte, off, most int64) (n int64, err error) {
	if o.Method == Erase {
		n = min(eraseStep, most)
		return n, s.cfg.Disk.Zero(s.ctx, off, n, false)
	}
	n = min(int64(len(p)), most)
	return n, s.cfg.Disk.WriteAt(s.ctx, p[:n], off, false)
}

// pace leaves room for the other LUNs of the disks: overwriting keeps to the rate, and
// erasing, if it takes time because the disk writes zeros, rests as long as it worked.
func (s *Sanitizer) pace(o Order, done int64, began, before time.Time) {
	switch {
	case o.Method == Erase:
		s.pause(min(time.Since(before), time.Second))
	case s.cfg.Rate > 0:
		due := time.Duration(float64(done) / float64(s.cfg.Rate) * float64(time.Second))
		if wait := due - time.Since(began); wait > 0 {
			s.pause(wait)
		}
	}
}

// buffer is what is written in a pass: whole logical blocks, each with the pattern from
// its beginning. The last pass is the pattern, not its inverse (SBC-3 5.30.2.2).
func (o *Order) buffer(pass, blockSize int) []byte {
	if o.Method == Erase {
		return nil
	}
	invert := byte(0)
	if o.Invert && (o.Passes-1-pass)%2 != 0 {
		invert = 0xff
	}
	p := make([]byte, overwriteStep)
	for i := range p {
		p[i] = o.Pattern[i%blockSize%len(o.Pattern)] ^ invert
	}
	return p
}

// settle waits until all that was written is durable at both sites.
func (s *Sanitizer) settle(o Order) error {
	if err := s.cfg.Disk.Sync(s.ctx); err != nil {
		return err
	}
	told := time.Now()
	for s.leads(o) && !s.cfg.Copied() {
		if time.Since(told) > telling {
			told = time.Now()
			s.progress()
		}
		s.pause(looking)
	}
	return nil
}

// save keeps what is done, which is durable at both sites; unless the work was broken off.
func (s *Sanitizer) save(o Order, done int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.state
	if next.Phase != Running || !next.Order.same(&o) || s.ctx.Err() != nil {
		return
	}
	next.Done = done
	if err := s.keep(next); err != nil {
		s.cfg.Log.Warn("the progress of a sanitize operation is not kept: after a restart more of it is done again", "err", err)
	}
	s.state.Done = done
}

// progress lets hosts here, and the other site, know how far it is.
func (s *Sanitizer) progress() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unit.Refuse(s.statusLocked())
	s.retellLocked()
}
