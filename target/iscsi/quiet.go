package iscsi

import (
	"net/netip"
	"sync"
	"time"
)

// Bounds of what failed logins may write into the log: quietBurst lines at once and
// one every quietEvery, for each address and for at most quietHosts addresses at a
// time. All others share one allowance.
const (
	quietBurst = 8
	quietEvery = 10 * time.Second
	quietHosts = 256
)

// quiet keeps failed logins from filling the log: whoever tries again and again is
// counted, and heard of now and then. The zero value is ready.
type quiet struct {
	mu     sync.Mutex
	hosts  map[netip.Addr]*allowance
	others allowance
}

// allowance is what one address may still write.
type allowance struct {
	until   time.Time // the lines written are paid for at this time
	skipped int       // lines not written since the last that was
}

// allow tells whether to write a line about a host, and how many were left out
// before it.
func (q *quiet) allow(host netip.Addr, now time.Time) (skipped int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	a := q.allowanceLocked(host, now)
	if a.until.Before(now) {
		a.until = now
	}
	if a.until.Sub(now) > (quietBurst-1)*quietEvery {
		a.skipped++
		return 0, false
	}
	a.until = a.until.Add(quietEvery)
	skipped, a.skipped = a.skipped, 0
	return skipped, true
}

func (q *quiet) allowanceLocked(host netip.Addr, now time.Time) *allowance {
	if a := q.hosts[host]; a != nil {
		return a
	}
	if len(q.hosts) >= quietHosts {
		for h, a := range q.hosts {
			if a.until.Before(now) {
				delete(q.hosts, h)
			}
		}
	}
	if len(q.hosts) >= quietHosts {
		return &q.others
	}
	if q.hosts == nil {
		q.hosts = map[netip.Addr]*allowance{}
	}
	a := &allowance{}
	q.hosts[host] = a
	return a
}
