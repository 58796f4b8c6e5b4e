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

// Space is the space of the local replica's medium. Not ok: it cannot be told.
func (r *Replica) Space() (s backing.Space, ok bool) {
	if store, ok := r.cfg.Store.(backing.Provisioned); ok {
		return store.Space()
	}
	return s, false
}
