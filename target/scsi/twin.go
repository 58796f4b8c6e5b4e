package scsi

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/twinlun/twinlun/target/sam"
)

// Twin reaches the Device at the other site that shows the same logical unit: hosts
// see one unit, whose state must be one, too.
type Twin interface {
	// Tell has Heard of that Device called, and returns its answer. With an error it
	// may have been called or not. It returns when ctx ends.
	Tell(ctx context.Context, topic uint16, body []byte) (answer []byte, err error)
}

// What twins tell each other. Numbers are never used again for something else.
const (
	// topicUnit: what task management did to the unit, and its settings. Body:
	//
	//	0  1  functions that were carried out just now, see below
	//	1  1  functions that were carried out when nobody could be told
	//	2  …  settings, see encode
	//
	// The answer comes when the same was done there:
	//
	//	0  1  1: what the write cache held could not be made durable; else 0
	//	1  …  settings
	topicUnit uint16 = 1
	// topicMedium: may the medium be moved? The body is empty. Answer:
	//
	//	0  1  1: a host there prevents it; else 0
	topicMedium uint16 = 2
	// topicSanitize: what package sanitize tells.
	topicSanitize uint16 = 3
	// topicAborts: have the commands ended of those that were preempted? It is asked when
	// that is in force there, by PREEMPT AND ABORT. The body is empty. Answer:
	//
	//	0  1  1: they have; 0: not yet
	topicAborts uint16 = 4
)

// Task management functions, as they are told.
const (
	toldClear byte = 1 << iota
	toldReset
	toldWarm
	toldCold

	toldResets = toldReset | toldWarm | toldCold
)

// Bounds of time. Initiators wait 30 s for a reset. A message waits for the one before,
// so a host waits for twice twinLimit at most.
const (
	// hearLimit is how long commands may take to end: what they wait for, they stop
	// waiting for; only what a disk has begun goes on.
	hearLimit = 4 * time.Second
	// twinLimit is how long the other site may take to answer.
	twinLimit = hearLimit + time.Second
)

var errTwinSlow = errors.New("the other site took too long to answer")

// Heard is called with what the twin of a logical unit tells, and returns the answer.
// False: it is not understood. It may block for a few seconds, and ends with ctx.
func (t *Device) Heard(ctx context.Context, number uint16, topic uint16, body []byte) (answer []byte, understood bool) {
	u := t.unit(number)
	switch {
	case u == nil:
	case topic == topicUnit && len(body) >= 2:
		return u.heard(ctx, body[0], body[1], body[2:]), true
	case topic == topicMedium:
		return []byte{flag(u.prevented())}, true
	case topic == topicAborts:
		return u.heardAborts(ctx), true
	case topic == topicSanitize && u.sanitizer != nil:
		return u.sanitizer.Heard(ctx, body)
	}
	return nil, false
}

// Joined says that a unit's twin can be told again, and may have missed something.
func (t *Device) Joined(_ context.Context, number uint16) {
	u := t.unit(number)
	if u == nil {
		return
	}
	if u.twin.matters(u) {
		u.tellTwin(0)
	}
	if u.sanitizer != nil {
		u.sanitizer.Joined()
	}
}

func (t *Device) unit(number uint16) *unit {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.luns[number]
}

func flag(on bool) byte {
	if on {
		return 1
	}
	return 0
}

// twin is a unit's way to the other site. One message is on its way at a time; what
// comes meanwhile goes into the next one, however much it is.
type twin struct {
	way Twin // nil: there is no other site

	mu     sync.Mutex
	next   *message // nil: there is nothing to tell
	busy   bool     // a task tells
	missed byte     // resets that could not be told
}

// message is what is told at once.
type message struct {
	functions byte
	done      chan struct{} // closed when the twin has answered, or cannot be told
	volatile  bool          // it could not make durable what its cache held
}

// wait returns when the twin has answered, or cannot be told. False: ctx ended.
func (m *message) wait(ctx context.Context) bool {
	select {
	case <-m.done:
		return true
	case <-ctx.Done():
		return false
	}
}

// matters tells whether there is anything that a twin does not assume anyhow.
func (w *twin) matters(u *unit) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.missed != 0 || u.versions() != [settingCount]uint64{}
}

// tellTwin tells the twin of functions, and the settings. It does not wait.
func (u *unit) tellTwin(functions byte) *message {
	w := &u.twin
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next == nil {
		w.next = &message{done: make(chan struct{})}
	}
	m := w.next
	m.functions |= functions
	switch {
	case w.way == nil:
		close(m.done)
		w.next = nil
	case !w.busy:
		w.busy = true
		go u.talk()
	}
	return m
}

// talk tells one message after the other. It ends when there is none left, and each one
// ends by itself.
func (u *unit) talk() {
	for {
		m, missed := u.twin.take()
		if m == nil {
			return
		}
		if err := u.say(m, missed); err != nil {
			u.target.log.Warn("the other site is not told what happened to a LUN", "lun", u.number, "err", err)
			u.twin.miss(m.functions | missed)
		}
		close(m.done)
	}
}

func (w *twin) take() (m *message, missed byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next == nil {
		w.busy = false
		return nil, 0
	}
	m, missed = w.next, w.missed
	w.next, w.missed = nil, 0
	return m, missed
}

// miss keeps resets for the next message: hosts at the other site must hear of them. Of
// commands that CLEAR TASK SET was about nobody can say any more which they were.
func (w *twin) miss(functions byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.missed |= functions & toldResets
}

// say tells a message, and takes settings from the answer that are newer than ours.
func (u *unit) say(m *message, missed byte) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), twinLimit, errTwinSlow)
	defer cancel()
	answer, err := u.twin.way.Tell(ctx, topicUnit, u.encode([]byte{m.functions, missed}))
	if err != nil {
		return err
	}
	if len(answer) == 0 {
		return errors.New("its answer is empty")
	}
	m.volatile = !u.follow(ctx, answer[1:]) || answer[0] != 0
	return nil
}

// heard does here what was done at the other site: there is one logical unit with one
// task set. Of functions of the past the commands of that time cannot be told from later
// ones, and go on.
func (u *unit) heard(ctx context.Context, now, past byte, settings []byte) (answer []byte) {
	ctx, cancel := context.WithTimeoutCause(ctx, hearLimit, errTwinSlow)
	defer cancel()
	if now != 0 {
		u.clear(u.endCommands(&sam.Command{Ctx: ctx}, u.answersAborted.Load()), now)
	}
	if now&toldResets != 0 {
		u.reset()
	} else if past&toldResets != 0 {
		u.release()
	}
	u.establish(resetAttentions(now | past))
	durable := u.follow(ctx, settings)
	return u.encode([]byte{flag(!durable)})
}

// clear tells nexuses whose commands got no answer, unless a reset tells them more.
func (u *unit) clear(silent []*nexus, functions byte) {
	if functions&toldResets != 0 {
		return
	}
	for _, n := range silent {
		n.port.establishOn(u, attentionCleared)
	}
}

func resetAttentions(functions byte) (which uint32) {
	if functions&toldReset != 0 {
		which |= attentionLUNReset
	}
	if functions&toldWarm != 0 {
		which |= attentionHardReset
	}
	if functions&toldCold != 0 {
		which |= attentionPowerOn
	}
	return which
}

// establish establishes unit attentions for all nexuses.
func (u *unit) establish(which uint32) {
	u.target.mu.Lock()
	defer u.target.mu.Unlock()
	for _, p := range u.target.ports {
		p.establishOn(u, which)
	}
}

// endCommands ends all commands on the unit but by, on whose behalf it happens, and
// waits for them, or until the context of by ends. With tas they are answered; else it
// returns the nexuses some of whose commands got no answer.
func (u *unit) endCommands(by *sam.Command, tas bool) (silent []*nexus) {
	return u.endCommandsOf(u.target.nexuses(), by, tas)
}

func (u *unit) endCommandsOf(nexuses []*nexus, by *sam.Command, tas bool) (silent []*nexus) {
	var mu sync.Mutex
	var ending sync.WaitGroup // at once: one that is slow does not let others go on
	for _, n := range nexuses {
		ending.Go(func() {
			if n.abort(u, by, tas) > 0 {
				mu.Lock()
				defer mu.Unlock()
				silent = append(silent, n)
			}
		})
	}
	ending.Wait()
	return silent
}

// nexuses are those that are open.
func (t *Device) nexuses() (open []*nexus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.ports {
		open = append(open, p.open...)
	}
	return open
}

// preventedThere tells whether a host at the other site wants the medium to stay. If
// that cannot be asked, it is as if it does not.
func (u *unit) preventedThere(ctx context.Context) bool {
	if u.twin.way == nil {
		return false
	}
	ctx, cancel := context.WithTimeoutCause(ctx, twinLimit, errTwinSlow)
	defer cancel()
	answer, err := u.twin.way.Tell(ctx, topicMedium, nil)
	if err != nil {
		u.target.log.Warn("the other site is not asked whether a medium may be moved", "lun", u.number, "err", err)
	}
	return slices.Equal(answer, []byte{1})
}
