package mapfile

import (
	"fmt"

	"github.com/twinlun/twinlun/dirtymap"
)

// damaged says what to do about a file that cannot be relied upon.
func damaged(err error) error {
	return fmt.Errorf("%w: %w: the peer's copy is authoritative now: move this file away, and the replica starts as a new one and is synchronised from its peer", ErrDamaged, err)
}

// Create makes a map file in an empty or worthless file: every extent has the
// state initial. The header comes last, so that a Create that was cut short
// leaves no valid map file.
func Create(f File, id Identity, initial dirtymap.State, meta Meta) error {
	if err := id.Check(); err != nil {
		return fmt.Errorf("create map file: %w", err)
	}
	if !validState(initial) {
		panic(fmt.Sprintf("mapfile: new extents in state %v", initial))
	}
	if err := f.Truncate(0); err != nil {
		return fmt.Errorf("create map file: %w", err)
	}
	l := &Log{state: state{f: f, id: id, begun: meta}, version: meta.version(), generation: 1, start: id.logAt()}
	l.writeInitial(initial)
	if !l.sync() || !l.writeSlots() {
		return fmt.Errorf("create map file: %w", l.failed)
	}
	return nil
}

// writeInitial writes all pages. Their states and checksums are the same but for
// the last one.
func (l *Log) writeInitial(s dirtymap.State) {
	const batch = 256
	buf := make([]byte, batch*pageSize)
	fillStates(buf[8:pageSize], s)
	l.id.sealPage(0, buf)
	for at := pageSize; at < len(buf); at += pageSize {
		copy(buf[at:], buf[:pageSize])
	}
	pages := l.id.pages()
	for page := uint64(0); page < pages; page += batch {
		n := min(batch, pages-page)
		for i := range n {
			numberPage(page+i, buf[i*pageSize:])
		}
		if page+n == pages {
			last := buf[(n-1)*pageSize:][:pageSize]
			clear(last[8+l.id.statesIn(pages-1):])
			l.id.sealPage(pages-1, last)
		}
		l.write(buf[:n*pageSize], pagesAt+int64(page)*pageSize)
	}
}

// Open reads a map file, puts right what a crash left half done, and reports it.
// id may be nil: any LUN.
func Open(f File, id *Identity) (*Log, Report, error) {
	c, err := load(f, id)
	if err == nil {
		err = c.eachPage(func(_ uint64, _ []byte, wrong error) error { return wrongPage(wrong) })
	}
	if err != nil {
		return nil, Report{}, fmt.Errorf("open map file: %w", err)
	}
	rep := c.report()
	l := &Log{
		state:   c.state,
		version: c.header.version, number: c.header.number, generation: c.header.generation,
		start: c.header.logAt, carried: c.header.logAt, end: c.end, sequence: c.sequence, durable: c.sequence,
		limits: usual(),
	}
	if err := l.repair(rep); err != nil {
		return nil, rep, fmt.Errorf("open map file: %w", err)
	}
	return l, rep, nil
}

func wrongPage(err error) error {
	if err != nil {
		err = damaged(err)
	}
	return err
}

// repair makes durable what was read, then makes both header slots alike, then
// cuts the end off: in this order, as the other slot may need the log.
func (l *Log) repair(rep Report) error {
	l.building = nil
	l.sync()
	if rep.Repaired {
		l.writeSlots()
	}
	if rep.Torn > 0 || rep.Old > 0 {
		l.cut()
	}
	return l.failed
}

// cut ends the file where the log ends.
func (l *Log) cut() {
	if l.failed != nil {
		return
	}
	if err := l.f.Truncate(l.end); err != nil {
		l.fail(fmt.Errorf("truncate to %d bytes: %w", l.end, err))
		return
	}
	l.sync()
}

// contents is what is in a file.
type contents struct {
	state
	size     int64
	slots    slots
	header   header
	end      int64 // of the log
	old      bool  // what stands behind it is of another generation
	sequence uint64
}

func (c *contents) report() Report {
	rep := Report{Records: c.records, Repaired: !c.slots.same(), Prepared: c.prepared}
	if c.old {
		rep.Old = c.size - c.end
	} else {
		rep.Torn = c.size - c.end
	}
	return rep
}

// load reads headers and log, and changes nothing. With an error it gives what
// it has found so far.
func load(f File, id *Identity) (*contents, error) {
	c := &contents{state: state{f: f}}
	var err error
	if c.size, err = f.Size(); err != nil {
		return c, fmt.Errorf("size of the map file: %w", err)
	}
	if c.size == 0 {
		return c, ErrEmpty
	}
	if c.size < 2*slotSize {
		return c, damaged(fmt.Errorf("%d bytes are too few", c.size))
	}
	if c.slots, err = readSlots(f); err != nil {
		return c, err
	}
	i := c.slots.newest()
	if i < 0 {
		return c, damaged(fmt.Errorf("no valid header: slot 0 %w, slot 1 %w", c.slots.wrong[0], c.slots.wrong[1]))
	}
	c.header = c.slots.header[i]
	if err := c.header.check(id); err != nil {
		return c, err
	}
	return c, c.replayLog()
}

// replayLog reads the log that the header names.
func (c *contents) replayLog() error {
	c.id, c.meta, c.begun = c.header.id, c.header.meta, c.header.meta
	c.end = c.header.logAt
	if c.end < c.id.logAt() || c.end > c.size || c.end%sectorSize != 0 {
		return damaged(fmt.Errorf("%d bytes, log at offset %d, pages up to %d", c.size, c.end, c.id.logAt()))
	}
	r := &blocks{window: window{f: c.f, size: c.size}, id: &c.id, generation: c.header.generation, at: c.end}
	for {
		payload, err := r.next()
		if err == nil && payload != nil {
			err = c.replay(payload)
		}
		if err != nil {
			return damaged(err)
		}
		if payload == nil {
			c.old = r.old
			return nil
		}
		c.end, c.sequence = r.at, r.sequence
	}
}
