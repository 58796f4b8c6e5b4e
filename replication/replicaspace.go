package replication

import "github.com/twinlun/twinlun/target/backing"

// Mapped tells whether the local replica has space at off, and for how many bytes
// from there, at most n, that is so; see backing.Provisioned. Whether that says
// anything about the LUN is the caller's business.
func (r *Replica) Mapped(off, n int64) (mapped bool, run int64, err error) {
	if s, ok := r.cfg.Store.(backing.Provisioned); ok {
		return s.Mapped(off, n)
	}
	return true, n, nil
}

// Space is how many bytes of its medium the local replica uses, and how many more it
// could get. Not ok: it cannot be told.
func (r *Replica) Space() (used, available int64, ok bool) {
	if s, ok := r.cfg.Store.(backing.Provisioned); ok {
		return s.Space()
	}
	return 0, 0, false
}
