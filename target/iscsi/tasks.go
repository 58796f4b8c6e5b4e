package iscsi

import (
	"sync"

	"github.com/twinlun/twinlun/target/sam"
)

// tasks are the commands of a session that were not answered yet, by initiator
// task tag. Every command in it is either parked, or owned by a goroutine that
// will ask for it again (park, finish) and learns there whether it was aborted.
type tasks struct {
	mu      sync.Mutex
	byTag   map[uint32]*command
	special int // how many in it are, see attribute
	spare   []*command
}

// get returns a command to fill.
func (t *tasks) get(s *session) *command {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.spare); n > 0 {
		c := t.spare[n-1]
		t.spare = t.spare[:n-1]
		return c
	}
	return newCommand(s)
}

// put takes a command back that is not in the table. There are hardly more
// than the command window and the immediate requests allow.
func (t *tasks) put(c *command) {
	c.reset()
	t.mu.Lock()
	t.spare = append(t.spare, c)
	t.mu.Unlock()
}

// add enters a command that the caller owns. False: its tag is in use.
func (t *tasks) add(c *command) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, twice := t.byTag[c.scsi.Tag]; twice {
		return false
	}
	t.byTag[c.scsi.Tag] = c
	if t.special > 0 || c.attribute.special() {
		t.queueLocked(c)
	}
	return true
}

// removeLocked takes a command out of the table.
func (t *tasks) removeLocked(c *command) {
	delete(t.byTag, c.scsi.Tag)
	if c.attribute.special() {
		t.special--
	}
}

// park leaves a command to the table until its next Data-Out, and sends the R2Ts
// that ask for it. Sending happens under the lock, so that no R2T follows the
// answer to an abort. False: it was aborted, and is the caller's to discard.
func (t *tasks) park(c *command, q *queue, r2ts []*note) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.aborted {
		return false
	}
	c.parked = true
	for _, r := range r2ts {
		q.push(r, true)
	}
	return true
}

// unpark gives the caller the parked command with the tag, or nil.
func (t *tasks) unpark(tag uint32) *command {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.byTag[tag]
	if c == nil || !c.parked {
		return nil
	}
	c.parked = false
	return c
}

// finish takes a command out of the table and gives it to the writer. Not ok: it
// was aborted, is not to be answered, and is the caller's to discard. After the
// last one the caller calls writer.sendNow: nobody was woken.
func (t *tasks) finish(c *command, q *queue) (ok, last bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.aborted && !c.tell {
		return false, false
	}
	last = len(t.byTag) == 1
	t.finishLocked(c, q, !last)
	return true, last
}

func (t *tasks) finishLocked(c *command, q *queue, wake bool) {
	t.removeLocked(c)
	if c.aborted {
		c.end(sam.TaskAborted, nil)
	}
	for _, f := range c.fences {
		f.done()
	}
	c.fences = c.fences[:0]
	q.push(c, wake)
}

// abort ends the commands that match, and returns their number: done is called
// on the fence when the last trace of each of them is gone. They get no answer,
// except for those that tell says are to be told TASK ABORTED (nil: none). Their
// tags stay taken until their owners have let go of them.
func (t *tasks) abort(match, tell func(*command) bool, f *fence) (n int) {
	var gone []*command
	t.mu.Lock()
	for _, c := range t.byTag {
		if !match(c) {
			continue
		}
		n++
		f.add()
		c.fences = append(c.fences, f)
		c.abortLocked(tell != nil && tell(c))
		switch {
		case !c.parked:
		case c.tell:
			c.parked = false
			t.finishLocked(c, c.s.queue, true)
		default:
			c.parked = false
			t.removeLocked(c)
			gone = append(gone, c)
		}
	}
	t.mu.Unlock()
	for _, c := range gone {
		c.s.free(c)
	}
	return n
}

// abortLocked marks a command. Of several who abort it, one that wants no answer
// prevails: it may have been promised to its own initiator.
func (c *command) abortLocked(tell bool) {
	if !c.aborted {
		c.aborted, c.tell = true, tell
		c.ctx.end()
	}
	c.tell = c.tell && tell
}

// markAborted aborts a command that the caller owns.
func (t *tasks) markAborted(c *command) {
	t.mu.Lock()
	c.abortLocked(false)
	t.mu.Unlock()
}

// drop takes an aborted command out of the table.
func (t *tasks) drop(c *command) {
	t.mu.Lock()
	t.removeLocked(c)
	t.mu.Unlock()
}
