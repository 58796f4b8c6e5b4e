package mapfile

import (
	"fmt"

	"github.com/twinlun/twinlun/dirtymap"
)

// state is what pages and log together say: the pages in the file, the overlay
// of what has changed since, and the Meta. Its memory is in proportion to the
// changes, not to the LUN.
type state struct {
	f        File
	id       Identity
	overlay  overlay
	meta     Meta
	begun    Meta // meta when the log began
	prepared *Prepare
	building *Prepare // Changes are still coming in; replay only
	records  int
}

// replay applies the records of one block.
func (st *state) replay(payload []byte) error {
	d := &decoder{b: payload}
	for len(d.b) > 0 {
		kind := d.u8()
		if err := st.replayOne(kind, d); err != nil {
			return fmt.Errorf("record %d of the log (kind %d): %w", st.records+1, kind, err)
		}
		st.records++
	}
	return nil
}

func (st *state) replayOne(kind byte, d *decoder) error {
	building := st.building
	st.building = nil // one that a crash left incomplete
	switch kind {
	case kindSet:
		if s := d.run(st.id.Extents()); d.err == nil {
			st.set(s)
		}
	case kindMeta:
		if m := d.meta(); d.err == nil {
			st.meta = m
		}
	case kindPrepare:
		st.building = &Prepare{Join: d.u64(), Meta: d.meta()}
	case kindChanges, kindPrepared:
		return st.replayChanges(kind, building, d)
	case kindCommit:
		if join := d.u64(); d.err == nil {
			return st.commit(join)
		}
	case kindAbort:
		st.prepared = nil
	case kindImage, kindFill:
		st.replayPages(kind, d)
	default:
		return fmt.Errorf("unknown kind")
	}
	return d.err
}

func (st *state) replayChanges(kind byte, p *Prepare, d *decoder) error {
	n := d.uv()
	switch {
	case d.err != nil:
		return d.err
	case p == nil:
		return fmt.Errorf("outside a prepared join")
	case kind == kindPrepared && n != uint64(len(p.Changes)):
		return fmt.Errorf("prepared join has %d changes of %d", len(p.Changes), n)
	case kind == kindPrepared:
		st.prepared = p
		return nil
	}
	for ; n > 0 && d.err == nil; n-- {
		p.Changes = append(p.Changes, d.run(st.id.Extents()))
	}
	st.building = p
	return d.err
}

func (st *state) replayPages(kind byte, d *decoder) {
	if kind == kindFill {
		if run := d.run(st.id.pages()); d.err == nil {
			st.set(Set{Range: st.id.extentsOf(run.Range), State: run.State})
		}
		return
	}
	page := d.uv()
	states := d.take(pageStates)
	if d.err == nil && page >= st.id.pages() {
		d.err = fmt.Errorf("page %d of %d", page, st.id.pages())
	}
	if d.err == nil {
		d.err = st.id.checkStates(page, states)
	}
	if d.err == nil {
		st.overlay.replace(page, states)
	}
}

// extentsOf are the extents of a run of pages.
func (id *Identity) extentsOf(pages dirtymap.Range) dirtymap.Range {
	first := pages.First * pageStates
	return dirtymap.Range{First: first, Count: min(pages.Count*pageStates, id.Extents()-first)}
}

// apply lets a record that is in the log take effect.
func (st *state) apply(r Record) error {
	switch r := r.(type) {
	case Set:
		st.set(r)
	case Meta:
		st.meta = r
	case Prepare:
		st.prepared = &r
	case Commit:
		return st.commit(r.Join)
	case Abort:
		st.prepared = nil
	}
	return nil
}

func (st *state) commit(join uint64) error {
	if st.prepared == nil || st.prepared.Join != join {
		return fmt.Errorf("commit join %d: %w", join, ErrNoPrepare)
	}
	for _, s := range st.prepared.Changes {
		st.set(s)
	}
	st.meta, st.prepared = st.prepared.Meta, nil
	return nil
}

// set lays a Set over the pages that it touches.
func (st *state) set(s Set) {
	for ext := s.Range.First; ext < s.Range.End(); {
		page, off := ext/pageStates, int(ext%pageStates)
		all := st.id.statesIn(page)
		n := int(min(uint64(all-off), s.Range.End()-ext))
		st.overlay.patch(page, patch{off: uint16(off), n: uint16(n), state: s.State & dirtymap.Durable}, n == all)
		ext += uint64(n)
	}
}

// page puts a page's states, as they are now, into a buffer of pageSize bytes,
// from the ninth byte on; a page that the overlay holds whole is not read.
func (st *state) page(page uint64, buf []byte) error {
	o := st.overlay.pages[page]
	if !o.whole() {
		if err := readFull(st.f, buf[:pageSize], pagesAt+int64(page)*pageSize); err != nil {
			return err
		}
		if err := st.id.checkPage(page, buf); err != nil {
			return damaged(err)
		}
	}
	o.over(buf[8:pageSize])
	return nil
}

// eachPage yields every page's states in order. What is wrong with a page that
// cannot be read goes with it, in place of states; fn decides whether to go on.
func (st *state) eachPage(fn func(first uint64, states []byte, wrong error) error) error {
	const batch = 256
	buf := make([]byte, min(batch, st.id.pages())*pageSize)
	for page := uint64(0); page < st.id.pages(); page++ {
		i := page % batch
		if i == 0 {
			some := buf[:min(batch, st.id.pages()-page)*pageSize]
			if err := readFull(st.f, some, pagesAt+int64(page)*pageSize); err != nil {
				return err
			}
		}
		b := buf[i*pageSize:][:pageSize]
		o := st.overlay.pages[page]
		var wrong error
		if !o.whole() {
			wrong = st.id.checkPage(page, b)
		}
		o.over(b[8:])
		if err := fn(page*pageStates, b[8:][:st.id.statesIn(page)], wrong); err != nil {
			return err
		}
	}
	return nil
}
