package volume

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/coherence"
	"github.com/twinlun/twinlun/replication/wire"
)

// doRefused waits for the extents that were refused, and does a's part in each as
// they come. When no more will come, it returns a's parts in the others.
func (v *Volume) doRefused(ctx context.Context, a access, refused []dirtymap.Range) (left []access, err error) {
	q := v.r.NewRequest()
	defer q.Cancel()
	missing := map[uint64]struct{}{}
	for _, run := range refused {
		for ext := run.First; ext < run.End(); ext++ {
			missing[ext] = struct{}{}
		}
		q.Want(run, a.kind != read)
	}
	for len(missing) > 0 {
		admits, err := q.Next(ctx)
		if err != nil {
			return v.partsIn(a, missing), err
		}
		for _, adm := range admits {
			delete(missing, adm.Extent)
		}
		if err := v.doAdmitted(a, admits); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// partsIn are a's parts in some extents, neighbours together.
func (v *Volume) partsIn(a access, extents map[uint64]struct{}) (parts []access) {
	var runs []dirtymap.Range
	for _, ext := range slices.Sorted(maps.Keys(extents)) {
		runs = add(runs, ext)
	}
	for _, run := range runs {
		parts = append(parts, a.cut(v.geo.Offset(run.First), v.geo.Offset(run.End())))
	}
	return parts
}

// doAdmitted does a's part in extents that were admitted, neighbours together. It
// leaves all of them, and returns the first error.
func (v *Volume) doAdmitted(a access, admits []coherence.Admit) (first error) {
	slices.SortFunc(admits, func(x, y coherence.Admit) int { return cmp.Compare(x.Extent, y.Extent) })
	for len(admits) > 0 {
		n := together(admits)
		err := admits[0].Err
		if err == nil && first == nil {
			err = v.performAdmitted(a, admits[:n])
		}
		if first == nil {
			first = err
		}
		for _, adm := range admits[:n] {
			v.r.Leave(adm)
		}
		admits = admits[n:]
	}
	return first
}

// together is how many admits at the front can be done by one call.
func together(admits []coherence.Admit) int {
	plain := func(a coherence.Admit) bool { return a.Err == nil && a.Kept == nil }
	n := 1
	for n < len(admits) && plain(admits[n]) && plain(admits[n-1]) && admits[n].Extent == admits[n-1].Extent+1 {
		n++
	}
	return n
}

func (v *Volume) performAdmitted(a access, admits []coherence.Admit) error {
	err := v.perform(a, dirtymap.Range{First: admits[0].Extent, Count: uint64(len(admits))})
	if kept := admits[0].Kept; kept != nil && err == nil {
		v.overlay(a, kept)
	}
	return err
}

// overlay puts the owner's newer blocks over what was read locally.
func (v *Volume) overlay(a access, kept *wire.Blocks) {
	data := kept.Data
	for first, n := range kept.Present.Runs {
		for b := first; b < first+n; b++ {
			var block []byte // nil: zeros
			if !kept.Zero.Has(b) {
				block, data = data[:dirtymap.BlockSize], data[dirtymap.BlockSize:]
			}
			v.overlayBlock(a, v.geo.Offset(kept.Extent)+int64(b)*dirtymap.BlockSize, block)
		}
	}
}

// overlayBlock puts the block at off over a's buffer, where they meet.
func (v *Volume) overlayBlock(a access, off int64, block []byte) {
	if off >= a.end() || off+dirtymap.BlockSize <= a.off {
		return
	}
	part := a.cut(off, off+dirtymap.BlockSize)
	if block == nil {
		clear(part.p)
	} else {
		copy(part.p, block[part.off-off:])
	}
}
