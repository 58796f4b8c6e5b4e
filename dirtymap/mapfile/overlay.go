package mapfile

import "github.com/twinlun/twinlun/dirtymap"

// overlay is what has changed in the pages since the last checkpoint: per page a
// list of patches, or a picture of the page once that takes less.
type overlay struct {
	pages  map[uint64]*overlaid
	memory int // bytes, roughly
}

// patch gives n extents of a page, from off on, a state.
type patch struct {
	off, n uint16
	state  dirtymap.State
}

// overlaid is one page's part. A nil *overlaid changes nothing.
type overlaid struct {
	picture []byte // a state for each place of the page, or asInFile; may be nil
	patches []patch
	full    bool // the page in the file does not matter any more
}

const (
	patchMemory    = 6
	overlaidMemory = 128 // with its place in the map
	// maxPatches is when a picture takes less memory.
	maxPatches = pageStates / patchMemory
	// asInFile is no State.
	asInFile = 0xff
)

func (v *overlay) get(page uint64) *overlaid {
	o := v.pages[page]
	if o == nil {
		if v.pages == nil {
			v.pages = make(map[uint64]*overlaid)
		}
		o = &overlaid{}
		v.pages[page] = o
		v.memory += overlaidMemory
	}
	return o
}

// patch adds a patch; full: it covers the whole page.
func (v *overlay) patch(page uint64, p patch, full bool) {
	o := v.get(page)
	v.memory -= o.memory()
	switch last := len(o.patches) - 1; {
	case full:
		*o = overlaid{full: true, patches: append(o.patches[:0], p)}
	case o.picture != nil:
		fillStates(o.picture[p.off:][:p.n], p.state)
	case last >= 0 && o.patches[last].off == p.off && o.patches[last].n == p.n:
		o.patches[last] = p // one extent that changes again and again
	default:
		o.patches = append(o.patches, p)
	}
	if len(o.patches) > maxPatches {
		o.paint()
	}
	v.memory += o.memory()
}

// paint makes a picture of the patches.
func (o *overlaid) paint() {
	picture := make([]byte, pageStates)
	if !o.full {
		fillStates(picture, asInFile)
	}
	for _, p := range o.patches {
		fillStates(picture[p.off:][:p.n], p.state)
	}
	o.picture, o.patches = picture, nil
}

// replace sets all states of a page.
func (v *overlay) replace(page uint64, states []byte) {
	o := v.get(page)
	v.memory -= o.memory()
	*o = overlaid{full: true, picture: append([]byte(nil), states...)}
	v.memory += o.memory()
}

func (o *overlaid) memory() int { return len(o.picture) + len(o.patches)*patchMemory }

// whole tells whether the page in the file does not matter any more.
func (o *overlaid) whole() bool { return o != nil && o.full }

// over lays the changes over a page's states.
func (o *overlaid) over(states []byte) {
	if o == nil {
		return
	}
	if o.full {
		clear(states)
	}
	for i, s := range o.picture {
		if s != asInFile {
			states[i] = s
		}
	}
	for _, p := range o.patches {
		fillStates(states[p.off:][:p.n], p.state)
	}
}

// at is one extent's state; false: as in the file.
func (o *overlaid) at(off int) (dirtymap.State, bool) {
	if o == nil {
		return 0, false
	}
	for i := len(o.patches) - 1; i >= 0; i-- {
		if p := o.patches[i]; off >= int(p.off) && off < int(p.off)+int(p.n) {
			return p.state, true
		}
	}
	if o.picture != nil && o.picture[off] != asInFile {
		return dirtymap.State(o.picture[off]), true
	}
	return 0, false
}
