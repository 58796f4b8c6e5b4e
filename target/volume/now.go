package volume

// ReadNow is ReadAt if that has to wait for nothing: not for the other site, not
// for a write of the same blocks, and not for the medium, as far as that can tell.
// Otherwise done is false, what p holds means nothing, and ReadAt has to do it,
// with its errors. It allocates nothing.
func (v *Volume) ReadNow(p []byte, off int64) (done bool, err error) {
	return v.doNow(access{kind: read, p: p, off: off, n: int64(len(p))})
}

// WriteNow is WriteAt, not durably, if that has to wait for nothing but the medium:
// not for the other site, and not for another command of the same blocks. Otherwise
// done is false, and WriteAt has to do it, whether any part of p was written or not.
// With an error although it is done, it must not be done again: ErrLapsed. It allocates
// nothing.
func (v *Volume) WriteNow(p []byte, off int64) (done bool, err error) {
	return v.doNow(access{kind: write, p: p, off: off, n: int64(len(p))})
}

// doNow does a read or a write if all its extents are allowed.
func (v *Volume) doNow(a access) (done bool, err error) {
	era := v.era()
	if a.n == 0 || a.off < 0 || a.n > v.Size()-a.off || !v.holds() || !v.m.Begin() {
		return false, nil
	}
	before := v.m.Mixings()
	all := v.geo.Covering(a.off, a.n)
	run := v.enter(a, all)
	switch {
	case run.Count < all.Count:
	case a.kind == read:
		done, err = v.r.ReadNow(a.p, a.off)
		done = done && (a.small() || v.m.Mixings() == before)
	default:
		if done, err = v.r.WriteNow(a.p, a.off); done {
			v.wrote(a, run)
		}
	}
	v.exit(run)
	if v.m.End() {
		v.r.Quiet()
	}
	if err != nil || !done || v.holds() && v.era() == era {
		return done, err
	}
	if a.kind == read {
		return false, nil
	}
	return true, ErrLapsed
}
