package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/coherence"
	"github.com/twinlun/twinlun/target/volume"
)

// startHosts starts the hosts that use the site. They are tasks of the site's
// process: what they had under way when it is killed stays unanswered.
func (s *site) startHosts() {
	if s.agent != nil {
		s.group.Go("peeking host", s.peek)
	}
	for i := range s.w.shape.clients {
		s.hosts++
		s.group.Go(fmt.Sprint("host ", i), func() {
			for !s.w.resting && s.host.Err() == nil {
				s.group.Sleep(background, upTo(s.w.rand, s.w.shape.think))
				s.command()
			}
			s.hosts--
		})
	}
}

// peek is the task of a host that reads what the site has at hand, and waits for nothing: it
// goes on when all others wait for the other site.
func (s *site) peek() {
	for ; !s.w.resting && s.host.Err() == nil; s.group.Sleep(background, upTo(s.w.rand, peekTime)) {
		sp, begin := s.somewhere(), s.hist().tick()
		p := make([]byte, sp.bytes())
		if done, err := s.vol.ReadNow(p, sp.off()); done && err == nil {
			s.saw("peek", sp, p, begin)
		}
	}
}

// peekTime is between two looks, at most.
const peekTime = 100 * time.Millisecond

// command is one random command of a host.
func (s *site) command() {
	w, ctx, cancel := s.w, s.host, context.CancelFunc(nil)
	if chance(w.rand, w.shape.aborts) {
		ctx, cancel = context.WithCancel(ctx)
		d := upTo(w.rand, 30*time.Millisecond)
		s.group.Go("abort", func() {
			s.group.Sleep(background, d)
			cancel()
		})
	}
	switch n := w.rand.IntN(100); {
	case n < w.shape.syncs:
		s.sync(ctx)
	case n < w.shape.syncs+w.shape.zeroes:
		s.zero(ctx, s.somewhere())
	case n < w.shape.syncs+w.shape.zeroes+w.shape.raises:
		s.raise(ctx)
	case n < 60:
		s.write(ctx, s.somewhere())
	case n < 60+w.shape.updates:
		s.update(ctx, s.somewhere(), chance(w.rand, 50))
	case n < 60+w.shape.updates+w.shape.atomics:
		s.atomic(ctx, s.somewhere())
	default:
		s.read(ctx, s.somewhere())
	}
}

// somewhere is a random run of sectors; mostly a block, mostly a hot one.
func (s *site) somewhere() span {
	w := s.w
	per := dirtymap.BlockSize / sectorSize
	blocks := int(s.vol.Size() / dirtymap.BlockSize)
	first, n := w.rand.IntN(blocks), 1
	if chance(w.rand, 70) {
		first = w.rand.IntN(min(w.shape.hot, blocks)) * 7 % blocks
	}
	switch {
	case chance(w.rand, 15):
		n = 1 + w.rand.IntN(min(blocks-first, 24))
	case chance(w.rand, 2):
		first, n = 0, blocks
	}
	sp := span{first * per, n * per}
	if w.shape.subBlock && chance(w.rand, 60) {
		skip := w.rand.IntN(sp.n)
		sp = span{sp.first + skip, 1 + w.rand.IntN(sp.n-skip)}
	}
	return sp
}

// refusedFor is how long, at most, a host leaves a site alone that does not serve.
const refusedFor = time.Second

// excused tells whether a command may end with this error: it was aborted, or the
// site is being stopped.
func (s *site) excused(ctx context.Context, what string, err error) bool {
	s.w.tracef("%s: %s: %v", s.name, what, err)
	if ctx.Err() != nil || s.stopped && err != nil {
		return true
	}
	if s.w.cluster != nil && s.refusal(err) {
		s.group.Sleep(background, upTo(s.w.rand, refusedFor)) // the host goes elsewhere
		return true
	}
	if err != nil && !errors.Is(err, errDead) {
		s.w.fail("site %s: %s: %v", s.name, what, err)
	}
	return true
}

// refusal tells whether a site of a cluster may refuse commands with this error.
func (s *site) refusal(err error) bool {
	return errors.Is(err, coherence.ErrUnavailable) || errors.Is(err, volume.ErrLapsed) || errors.Is(err, coherence.ErrHeld) && s.w.cluster.holds ||
		errors.Is(err, coherence.ErrNoData) && !s.met
}

func (s *site) write(ctx context.Context, sp span) {
	o := s.hist().beginWrite(s.no, sp, false)
	p := make([]byte, sp.bytes())
	fill(p, o.id)
	fua := chance(s.w.rand, s.w.shape.syncs)
	what := fmt.Sprintf("write %d of sectors %d+%d, fua %v", o.id, sp.first, sp.n, fua)
	s.w.tracef("%s: %s begins", s.name, what)
	if err := s.writeAt(ctx, p, sp.off(), fua); err != nil {
		s.excused(ctx, what, err)
		return
	}
	s.done(what, s.hist().endWrite(o, sp, fua))
}

// writeAt writes as the target does: what need not wait in its own task.
func (s *site) writeAt(ctx context.Context, p []byte, off int64, fua bool) error {
	if !fua && chance(s.w.rand, s.w.shape.now) {
		if done, err := s.vol.WriteNow(p, off); done || err != nil {
			return err
		}
	}
	return s.vol.WriteAt(ctx, p, off, fua)
}

// readAt reads likewise.
func (s *site) readAt(ctx context.Context, p []byte, off int64) error {
	if chance(s.w.rand, s.w.shape.now) {
		if done, err := s.vol.ReadNow(p, off); done || err != nil {
			return err
		}
	}
	return s.vol.ReadAt(ctx, p, off)
}

func (s *site) atomic(ctx context.Context, sp span) {
	sp.n = min(sp.n, volume.MaxUpdate/sectorSize)
	o := s.hist().beginWrite(s.no, sp, false)
	o.atomic = true
	p := make([]byte, sp.bytes())
	fill(p, o.id)
	fua := chance(s.w.rand, s.w.shape.syncs)
	what := fmt.Sprintf("atomic write %d of sectors %d+%d, fua %v", o.id, sp.first, sp.n, fua)
	s.w.tracef("%s: %s begins", s.name, what)
	if err := s.vol.WriteAtomic(ctx, p, sp.off(), fua); err != nil {
		s.excused(ctx, what, err)
		return
	}
	s.w.totals.Atomics++
	s.done(what, s.hist().endWrite(o, sp, fua))
}

func (s *site) zero(ctx context.Context, sp span) {
	o := s.hist().beginWrite(s.no, sp, true)
	fua := chance(s.w.rand, s.w.shape.syncs)
	what := fmt.Sprintf("zero %d of sectors %d+%d, fua %v", o.id, sp.first, sp.n, fua)
	s.w.tracef("%s: %s begins", s.name, what)
	if err := s.vol.Zero(ctx, sp.off(), sp.bytes(), fua); err != nil {
		s.excused(ctx, what, err)
		return
	}
	s.done(what, s.hist().endWrite(o, sp, fua))
}

// update replaces what is there, whatever it is; or, comparing, only if it still is
// what was read just before.
func (s *site) update(ctx context.Context, sp span, comparing bool) {
	sp.n = min(sp.n, volume.MaxUpdate/sectorSize)
	var want, saw []byte
	if comparing {
		if want = s.read(ctx, sp); want == nil {
			return
		}
	}
	o := s.hist().beginUpdate(s.no, sp)
	wrote, fua := false, chance(s.w.rand, s.w.shape.syncs)
	what := fmt.Sprintf("update %d of sectors %d+%d, comparing %v, fua %v", o.id, sp.first, sp.n, comparing, fua)
	s.w.tracef("%s: %s begins", s.name, what)
	err := s.vol.Update(ctx, sp.off(), sp.bytes(), fua, func(p []byte) bool {
		saw = bytes.Clone(p)
		wrote = !comparing || bytes.Equal(p, want)
		if wrote {
			fill(p, o.id)
		}
		return wrote
	})
	if err != nil {
		s.excused(ctx, what, err)
		return
	}
	if s.w.o.Trace != nil {
		what += fmt.Sprintf(", saw %s, wrote %v", contents(saw), wrote)
	}
	s.w.sched.Mix(value8(saw))
	s.done(what, s.hist().endUpdate(o, saw, wrote, fua, s.has))
}

func (s *site) sync(ctx context.Context) {
	begin := s.hist().tick()
	s.w.tracef("%s: sync begins", s.name)
	if err := s.vol.Sync(ctx); err != nil {
		s.excused(ctx, "sync", err)
		return
	}
	s.hist().endSync(s.no, begin)
	s.done("sync", nil)
}

// read returns what it read, or nil.
func (s *site) read(ctx context.Context, sp span) []byte {
	begin := s.hist().tick()
	p := make([]byte, sp.bytes())
	if err := s.readAt(ctx, p, sp.off()); err != nil {
		s.excused(ctx, fmt.Sprintf("read of sectors %d+%d (since %d)", sp.first, sp.n, begin), err)
		return nil
	}
	s.saw("read", sp, p, begin)
	return p
}

// saw checks what was read.
func (s *site) saw(what string, sp span, p []byte, begin int64) {
	if s.w.o.Trace != nil {
		what = fmt.Sprintf("%s of sectors %d+%d (since %d) = %s", what, sp.first, sp.n, begin, contents(p))
	}
	s.w.sched.Mix(value8(p))
	s.done(what, s.hist().endRead(s.no, sp, p, begin, s.has))
}

func contents(p []byte) string {
	var list []uint64
	for at := 0; at < len(p); at += sectorSize {
		if n := len(list); n == 0 || list[n-1] != value8(p[at:]) {
			list = append(list, value8(p[at:]))
		}
	}
	return fmt.Sprint(list)
}

func (s *site) done(what string, err error) {
	s.w.tracef("%s: %s done at %d", s.name, what, s.hist().clock)
	if err != nil {
		s.w.fail("site %s: %s: %v", s.name, what, err)
	}
}
