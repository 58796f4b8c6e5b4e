package iscsi

import "sync"

// registry has the sessions by TSIH.
type registry struct {
	mu     sync.Mutex
	byTSIH map[uint16]*session
	last   uint16 // TSIH given out
	limit  int
	closed bool // nothing is added any more
}

func newRegistry(limit int) *registry {
	return &registry{byTSIH: make(map[uint16]*session), limit: limit}
}

// add gives the session a TSIH, if tsih is none, and enters it. If the initiator
// has a session with the same ISID and target already, that is returned instead,
// and has to be ended first (RFC 7143 section 6.3.5).
func (r *registry) add(s *session, tsih uint16) (old *session, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, refuse(loginUnavailable, "the target is shutting down")
	}
	for _, other := range r.byTSIH {
		if !s.discovery() && sameTarget(other.target, s.target) && other.port == s.port {
			return other, nil
		}
	}
	if !s.discovery() && len(r.normalLocked()) >= r.limit {
		return nil, refuse(loginResources, "there are %d sessions already, the limit", r.limit)
	}
	if s.tsih = tsih; tsih == 0 || r.byTSIH[tsih] != nil {
		s.tsih = r.nextLocked()
	}
	r.byTSIH[s.tsih] = s
	return nil, nil
}

// normal returns the sessions that are not for discovery.
func (r *registry) normal() []*session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.normalLocked()
}

// normalLocked returns the sessions with a target. Those for discovery are bounded as
// connections that are not logged in (Server.open).
func (r *registry) normalLocked() (list []*session) {
	for _, s := range r.byTSIH {
		if !s.discovery() {
			list = append(list, s)
		}
	}
	return list
}

// nextLocked finds a free TSIH other than 0; the limit leaves some.
func (r *registry) nextLocked() uint16 {
	for {
		r.last++
		if _, taken := r.byTSIH[r.last]; r.last != 0 && !taken {
			return r.last
		}
	}
}

func (r *registry) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
}

func (r *registry) remove(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byTSIH, s.tsih)
}

func (r *registry) get(tsih uint16) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byTSIH[tsih]
}

// sameTarget compares by name: SetTargets replaces what stands behind it.
func sameTarget(a, b *Target) bool {
	return a == b || a != nil && b != nil && a.Name == b.Name
}

// of returns the sessions with a target; nil: the discovery sessions.
func (r *registry) of(t *Target) (list []*session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.byTSIH {
		if sameTarget(s.target, t) {
			list = append(list, s)
		}
	}
	return list
}

func (r *registry) all() (list []*session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.byTSIH {
		list = append(list, s)
	}
	return list
}
