package mapfile

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/twinlun/twinlun/dirtymap"
)

// Dump describes a map file for a person, and changes nothing. Of a damaged file
// it tells what can still be read, and returns the damage.
func Dump(w io.Writer, f File) error {
	out := bufio.NewWriter(w)
	err := dump(out, f)
	if err != nil {
		fmt.Fprintf(out, "\nERROR: %v\n", err)
	}
	return errors.Join(err, out.Flush())
}

func dump(w io.Writer, f File) error {
	c, err := load(f, nil)
	dumpSlots(w, c)
	if c.header.version == 0 || c.header.version > version || c.id.pages() == 0 {
		return err
	}
	dumpHeader(w, c)
	dumpPrepared(w, c.prepared)
	if wrong := dumpStates(w, c); err == nil {
		err = wrong
	}
	return err
}

func dumpSlots(w io.Writer, c *contents) {
	for i, wrong := range c.slots.wrong {
		switch h := c.slots.header[i]; {
		case wrong != nil:
			fmt.Fprintf(w, "header slot %d: DAMAGED: %v\n", i, wrong)
		case h.version != 0:
			fmt.Fprintf(w, "header slot %d: version %d, number %d, generation %d\n", i, h.version, h.number, h.generation)
		}
	}
}

func dumpHeader(w io.Writer, c *contents) {
	rep := c.report()
	fmt.Fprintf(w, "LUN %x: %d bytes, %d extents of %d bytes, blocks of %d bytes for hosts\n", c.id.LUN, c.id.Size, c.id.Extents(), c.id.ExtentSize, c.id.blockSize())
	fmt.Fprintf(w, "file: %d bytes, %d pages, log at offset %d up to %d, %d blocks, %d records\n",
		c.size, c.id.pages(), c.header.logAt, c.end, c.sequence, c.records)
	if rep.Torn > 0 {
		fmt.Fprintf(w, "torn tail: %d bytes\n", rep.Torn)
	}
	if rep.Old > 0 {
		fmt.Fprintf(w, "left of an interrupted checkpoint: %d bytes\n", rep.Old)
	}
	dumpMeta(w, "", c.meta)
}

func dumpMeta(w io.Writer, indent string, m Meta) {
	if m.version() > 1 {
		fork := ""
		if m.Term.Fork {
			fork = ", which is a fork"
		}
		fmt.Fprintf(w, "%sterm %d (%x), alone in %d%s\n", indent, m.Term.Number, m.Term.ID, m.Term.Alone, fork)
	}
	fmt.Fprintf(w, "%shistory %x, join %d, boot id %x, clean %t, blank %t\n", indent, m.History, m.Join, m.BootID, m.Clean, m.Blank)
}

func dumpPrepared(w io.Writer, p *Prepare) {
	if p == nil {
		return
	}
	fmt.Fprintf(w, "prepared join %d, not committed: %d changes\n", p.Join, len(p.Changes))
	dumpMeta(w, "  ", p.Meta)
	for _, s := range p.Changes {
		fmt.Fprintf(w, "  extents %d-%d: %v\n", s.Range.First, s.Range.End()-1, s.State)
	}
}

// dumpStates writes the totals, then the runs of equal states: two passes, so
// that nothing has to be kept.
func dumpStates(w io.Writer, c *contents) error {
	var totals [256]uint64
	var unknown uint64
	var damage []error
	err := c.eachPage(func(_ uint64, states []byte, wrong error) error {
		if wrong != nil {
			unknown += uint64(len(states))
			if len(damage) < 10 {
				damage = append(damage, damaged(wrong))
			}
			return nil
		}
		for _, s := range states {
			totals[s]++
		}
		return nil
	})
	for s, n := range totals {
		if n > 0 {
			fmt.Fprintf(w, "total %-6v %d extents\n", dirtymap.State(s), n)
		}
	}
	if unknown > 0 {
		fmt.Fprintf(w, "total DAMAGED %d extents\n", unknown)
	}
	if err == nil {
		err = dumpRuns(w, c)
	}
	return errors.Join(append(damage, err)...)
}

func dumpRuns(w io.Writer, c *contents) error {
	const unknown = -1
	from, now := uint64(0), unknown-1
	flush := func(to uint64, next int) {
		if now == next {
			return
		}
		switch {
		case now == unknown:
			fmt.Fprintf(w, "extents %d-%d: DAMAGED\n", from, to-1)
		case now > unknown:
			fmt.Fprintf(w, "extents %d-%d: %v\n", from, to-1, dirtymap.State(now))
		}
		from, now = to, next
	}
	err := c.eachPage(func(first uint64, states []byte, wrong error) error {
		if wrong != nil {
			flush(first, unknown)
			return nil
		}
		for i, s := range states {
			if int(s) != now {
				flush(first+uint64(i), int(s))
			}
		}
		return nil
	})
	flush(c.id.Extents(), unknown-1)
	return err
}
