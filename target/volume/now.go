package volume

import "github.com/twinlun/twinlun/dirtymap"

// ReadNow is ReadAt if that has to wait for nothing: not for the other site, not
// for a write of the same blocks, and not for the medium, as far as that can tell.
// Otherwise done is false, what p holds means nothing, and ReadAt has to do it,
// with its errors. It allocates nothing.
func (v *Volume) ReadNow(p []byte, off int64) (done bool, err error) {
	a := access{kind: read, p: p, off: off, n: int64(len(p))}
	if a.n == 0 || a.off < 0 || a.n > v.Size()-a.off || !v.m.Begin() {
		return false, nil
	}
	all := v.geo.Covering(a.off, a.n)
	run := v.enter(a, dirtymap.Range{First: all.First, Count: all.Count})
	if run.Count == all.Count {
		done, err = v.r.ReadNow(p, off)
	}
	v.exit(run)
	if v.m.End() {
		v.r.Quiet()
	}
	return done, err
}
