package iscsi

// attribute is the task attribute of a command (RFC 7143 section 11.3.1, SAM-5 8.6).
type attribute byte

const (
	untagged attribute = iota // as SIMPLE
	simple
	ordered
	headOfQueue
	aca

	bitsAttribute = 0x07 // of byte 1 of a SCSI Command
)

// special attributes say when a command is executed. SIMPLE commands are executed at
// once, in any order, as long as there are no others.
func (a attribute) special() bool { return a == ordered || a == headOfQueue }

// queueLocked finds the commands of the session that c has to wait for, if there are
// special ones, c perhaps: an ORDERED command is executed after all that are older, and a
// SIMPLE one after the ORDERED and HEAD OF QUEUE ones that are. A HEAD OF QUEUE command
// waits for nothing.
//
// Who waits holds no memory of the session's budget, as those it waits for may need it.
func (t *tasks) queueLocked(c *command) {
	if c.attribute.special() {
		t.special++
	}
	if c.attribute == headOfQueue {
		return
	}
	unit, f, found := c.s.unit(c.scsi.LUN), newFence(), false
	for _, older := range t.byTag {
		if older == c || c.attribute != ordered && !older.attribute.special() || older.s.unit(older.scsi.LUN) != unit {
			continue
		}
		f.add()
		older.fences = append(older.fences, f)
		found = true
	}
	if found {
		c.turn = f
	}
}

// awaitTurn waits, in a worker, until a command may be executed, or has been aborted.
func (c *command) awaitTurn() {
	if c.turn != nil {
		c.turn.wait(&c.ctx)
		c.turn = nil
	}
}
